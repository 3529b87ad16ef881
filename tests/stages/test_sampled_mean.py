"""Estimates from audits: the interval contains the true mean as often as it says, whatever is added at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltascene.stages.sampled_mean import FEWEST, Estimate, SampledMean

FRAMES = 900


def of(values, second=None, probability=0.1, open_=None, zero=0):
    values = np.array(values, np.float64)
    found = SampledMean()
    found.add(
        values,
        np.full(len(values), np.nan) if second is None else np.array(second, np.float64),
        np.full(len(values), probability),
        open_=len(values) * 10 if open_ is None else open_,
        zero=zero,
    )
    return found


def test_a_mean_by_hand():
    found = of([1, 2, 3, 4, 5, 6], [1, np.nan, np.nan, 1, np.nan, np.nan], open_=60, zero=20)
    assert found.first().mean == pytest.approx(3.5 * 0.75)
    assert found.second() == Estimate(0.75)
    assert found.difference() == Estimate(2.5 * 0.75)
    first = found.first()
    assert first.low < first.mean < first.high
    assert first.low * first.high == pytest.approx(first.mean**2)


def test_what_was_not_measured_has_no_estimate_and_few_have_no_interval():
    nothing = of([])
    assert (nothing.first(), nothing.second(), nothing.difference()) == (None, None, None)
    assert of([2.0] * (FEWEST - 1)).first() == Estimate(2.0)
    assert of([2.0] * FEWEST).first() == Estimate(2.0, 2.0, 2.0)
    assert of([0.0] * FEWEST).first() == Estimate(0.0, 0.0, 0.0)
    everything = of(np.arange(1, 9), probability=1.0, open_=8).first()
    assert (everything.low, everything.high) == (everything.mean, everything.mean) == (4.5, 4.5)


def test_a_frame_counts_as_many_frames_as_its_probability_says():
    found = SampledMean()
    found.add(np.array([1.0, 5.0]), np.full(2, np.nan), np.array([0.5, 0.1]), open_=12, zero=0)
    assert found.first().mean == pytest.approx((2 * 1 + 10 * 5) / 12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 90), st.none() | st.floats(0, 9), st.floats(0.01, 1)), max_size=30), st.data())
def test_part_after_part_is_the_same_as_all_at_once(frames, data):
    table = np.array([(a, np.nan if b is None else b, p) for a, b, p in frames], np.float64).reshape(-1, 3)
    whole, parts, at = SampledMean(), SampledMean(), 0
    whole.add(*table.T, open_=3 * len(table), zero=7)
    while at < len(table):
        end = data.draw(st.integers(at + 1, len(table)))
        parts.add(*table[at:end].T, open_=3 * (end - at), zero=0)
        at = end
    parts.add(*table[at:].T, open_=0, zero=7)
    for name in ("first", "second", "difference"):
        one, other = getattr(whole, name)(), getattr(parts, name)()
        assert (one is None) == (other is None)
        if one is not None:
            expected = pytest.approx([one.mean, one.low or 0, one.high or 0], rel=1e-6, abs=1e-9)
            assert [other.mean, other.low or 0, other.high or 0] == expected


def drift_series(kind, rng):
    """Drift of frames of a clip, and which are dense: calm and skewed, in bursts, or next to nothing."""
    slow = np.zeros(FRAMES)
    for at in range(1, FRAMES):
        slow[at] = 0.97 * slow[at - 1] + 0.24 * rng.standard_normal()
    burst = (np.sin(np.arange(FRAMES) / 70 + rng.uniform(0, 6)) > 0.5) * 0.08 + 0.002
    base = {"calm": 0.03 * np.exp(0.4 * slow), "skewed": 0.01 * np.exp(1.2 * slow), "bursts": burst}[kind]
    return base * np.exp(0.3 * rng.standard_normal(FRAMES)), np.arange(FRAMES) % 12 == 0


@pytest.mark.parametrize("kind", ["calm", "skewed", "bursts"])
def test_intervals_contain_the_true_mean_as_often_as_they_say(kind):
    """200 trials of 90 audits each, over 10 series."""
    rng = np.random.default_rng(4)
    hits, widths = 0, []
    for _ in range(10):
        drift, dense = drift_series(kind, rng)
        spent = np.where(dense, 0, 90 / (~dense).sum()) * np.where(np.arange(FRAMES) % 2, 0.8, 1.2)
        edges = np.concatenate([[0], np.cumsum(spent)])
        true = drift[~dense].sum() / FRAMES
        for _ in range(20):
            points = np.arange(90) + rng.random(90)
            chosen = np.searchsorted(edges, points[points < edges[-1]], "right") - 1
            found = SampledMean()
            nothing = np.full(len(chosen), np.nan)
            found.add(drift[chosen], nothing, spent[chosen], open_=int((~dense).sum()), zero=int(dense.sum()))
            estimate = found.first()
            hits += estimate.low <= true <= estimate.high
            widths.append((estimate.high - estimate.low) / 2 / max(0.01, true / 3))
    assert hits >= 184
    assert np.mean(widths) <= 1
