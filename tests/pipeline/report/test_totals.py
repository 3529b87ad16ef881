"""Sums over many ledgers, one after the other."""

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltascene.pipeline.report import totals
from deltascene.pipeline.report.totals import TaskTotals, Totals, Values, task_totals
from deltascene.pipeline.report.totals import totals as totals_of
from deltascene.pipeline.runs.ledger import SCHEMA

POLICIES = [("dense", "reset"), ("rows", "changed"), ("warped", "between"), ("held", "unchanged")]
frames = st.lists(
    st.fixed_dictionaries(
        {
            "valid": st.booleans(),
            "policy": st.sampled_from(POLICIES),
            "rows_computed": st.integers(0, 10),
            "macs_executed": st.integers(0, 10**15),
            "macs_single_task": st.sampled_from([None, 300, 500]),
            "seconds": st.integers(0, 10**6).map(lambda micros: micros / 1e4),
            "drift": st.sampled_from([None, 0.25, 0.5]),
        }
    ),
    max_size=20,
)


def ledger_of(name, rows, tasks=("base", "own")):
    """A ledger of one video, a row for every frame and task."""
    about = {
        "source": name, "pts_s": 0.0, "cause": "", "predicted": True, "rows": 10, "oldest_s": 0.5,
        "macs_dense": 10**15, "seconds_blocks": 0.75,
    }  # fmt: skip
    made = [
        about | row | {"index": place, "task": task, "policy": row["policy"][0], "reason": row["policy"][1]}
        for task in tasks
        for place, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(made, schema=SCHEMA)


def equal(one, other):
    """Whether two results are the same but for the rounding of sums."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    return one == pytest.approx(other, rel=1e-12, abs=1e-9) if isinstance(one, float) else one == other


@settings(max_examples=60, deadline=None)
@given(st.lists(frames, max_size=4))
def test_ledger_after_ledger_is_the_same_as_all_at_once(videos):
    ledgers = [ledger_of(f"video{number}", rows) for number, rows in enumerate(videos)]
    bit_by_bit, by_task = Totals(), TaskTotals()
    for ledger in ledgers:
        bit_by_bit.add(ledger)
        by_task.add(ledger)
    whole = pa.concat_tables([SCHEMA.empty_table(), *ledgers])
    assert equal(bit_by_bit.result(), totals_of(whole))
    assert equal(by_task.result(), task_totals(whole))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 16))
def test_values_are_sampled_evenly_from_the_first_on(sizes, kept):
    everything = np.arange(sum(sizes), dtype=np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(totals, "KEPT", kept)
        values, at = Values(), 0
        for size in sizes:
            values.add(everything[at : at + size])
            at += size
        if not at:
            assert values.spread() is None
            return
        assert (values.count, values.sum, values.largest) == (at, everything.sum(), at - 1)
        assert values.mean == everything.mean()
        sample = np.concatenate(values._sample)
        assert len(sample) < 2 * kept or at < 2 * kept
        assert set(np.diff(sample)) in (set(), {values._every})
        assert sample[0] == 0
        assert at - sample[-1] <= values._every


def test_a_night_of_ledgers_takes_no_more_memory_than_a_few(monkeypatch):
    monkeypatch.setattr(totals, "KEPT", 1000)
    rows = [{"valid": True, "policy": POLICIES[place % 4], "seconds": place / 1e3} for place in range(500)]
    ledger, whole = ledger_of("clip", rows), TaskTotals()
    for _ in range(10):
        whole.add(ledger)
    tracemalloc.start()
    try:
        for _ in range(30):
            whole.add(ledger)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 500_000  # the values alone would be 3 MB
    assert whole.result()["own"]["frames"] == 20_000
    assert whole.result()["own"]["frame_seconds"]["median"] == pytest.approx(0.25, rel=0.02)
