import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from deltascene.stages.edge_scores import Edges, count_edges, thin_ridges


def score(metric, *updates):
    for update in updates:
        metric.update(*update)
    return metric.result()


def line(row, value=1.0, size=(12, 16)):
    out = np.zeros(size, np.float32)
    out[row] = value
    return out


def test_edges_within_two_pixels_match():
    for shift, expected in ((0, 1), (1, 1), (2, 1), (3, 0)):
        found = score(Edges(), (line(4), line(4 + shift)))
        assert (found["f_ods"], found["precision"], found["recall"]) == (expected, expected, expected)


def test_edges_by_hand():
    # 16 true pixels in row 2 and 8 in row 9; said: row 3 in full at .9, and a stray line in row 6 at .4
    truth = line(2)
    truth[9, :8] = 1
    said = line(3, 0.9) + line(6, 0.4)
    found = score(Edges(thresholds=(0.3, 0.5)), (truth, said))
    # at .3: 16 of 32 right, 16 of 24 found; at .5: 16 of 16 right, 16 of 24 found
    assert found == pytest.approx({"f_ods": 0.8, "precision": 1, "recall": 2 / 3, "threshold": 0.5})
    only_low = score(Edges(thresholds=(0.3,)), (truth, said))
    assert only_low["f_ods"] == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3))


def test_the_best_threshold_is_chosen_for_the_whole_set():
    # first frame is best cut below .4, second above: together 16 more found at .3, 32 wrong
    faint = line(4), line(4, 0.4)
    noisy = line(4), line(4, 0.9) + line(8, 0.4)
    found = score(Edges(thresholds=(0.3, 0.5)), faint, noisy)
    low, high = 2 * (32 / 48) * 1 / (32 / 48 + 1), 2 * 1 * 0.5 / 1.5
    assert found["f_ods"] == pytest.approx(max(low, high))
    assert found["threshold"] == 0.3


def test_edges_under_a_mask_count_inside_and_match_outside():
    inside = np.zeros((12, 16), np.bool_)
    inside[:6] = True
    # the true line just outside still confirms; the stray line outside isn't counted
    found = score(Edges(thresholds=(0.5,)), (line(6), line(5) + line(11), inside))
    assert math.isnan(found["f_ods"])  # no true pixel inside
    found = score(Edges(thresholds=(0.5,)), (line(5) + line(11), line(6) + line(9), inside))
    assert (found["recall"], found["precision"]) == (1, 0)  # found by one outside; none predicted inside


def test_edges_of_several_maps_are_pooled():
    truth = np.stack([line(4), line(8)], -1)
    said = np.stack([line(4), np.zeros((12, 16), np.float32)], -1)
    found = score(Edges(thresholds=(0.5,)), (truth, said))
    assert (found["precision"], found["recall"]) == (1, 0.5)


@given(
    arrays(np.bool_, (9, 11)),
    arrays(np.float32, (9, 11), elements=st.sampled_from([0, 0.2, 0.5, 0.8, 1])),
    arrays(np.bool_, (9, 11)),
    st.sampled_from([0.0, 1.0, 1.5, 2.0, 3.0]),
)
def test_counting_all_thresholds_at_once_equals_one_by_one(truth, value, where, tolerance_px):
    thresholds = np.array([0.1, 0.5, 0.8])
    counts = count_edges(truth, value, thresholds, tolerance_px, where)
    assert counts.true == (truth & where).sum()
    for number, threshold in enumerate(thresholds):
        said = value >= threshold
        to_truth = ndimage.distance_transform_edt(~truth) if truth.any() else np.full(truth.shape, np.inf)
        to_said = ndimage.distance_transform_edt(~said) if said.any() else np.full(truth.shape, np.inf)
        assert counts.predicted[number] == (said & where).sum()
        assert counts.confirmed[number] == (said & where & (to_truth <= tolerance_px)).sum()
        assert counts.found[number] == (truth & where & (to_said <= tolerance_px)).sum()


@pytest.mark.parametrize("turn_deg", [0, 30, 45, 72, 90, 135])
def test_thinning_leaves_the_ridge_of_a_blurred_line(turn_deg):
    y, x = np.mgrid[-20:21, -20:21]
    off = x * np.sin(np.radians(turn_deg)) + y * np.cos(np.radians(turn_deg))
    blurred = np.exp(-((off / 2.5) ** 2)).astype(np.float32)
    thin = thin_ridges(blurred)
    kept = thin > 0.05
    assert np.abs(off[kept]).max() <= 1.0
    assert kept.sum() <= 41 * 1.8  # one pixel wide, at most two where the line steps
    assert (thin[kept] == blurred[kept]).all()
    on_line = np.abs(off) <= 0.5
    assert (ndimage.binary_dilation(kept, np.ones((3, 3)))[on_line]).all()


@pytest.mark.parametrize("apart", [2, 3, 5])
def test_thinning_keeps_neighbouring_lines(apart):
    np.testing.assert_array_equal(np.flatnonzero(thin_ridges(line(4) + line(4 + apart))[:, 8]), [4, 4 + apart])


def test_thinning_makes_a_thick_line_count_once():
    thick = line(4) + line(5) + line(6)
    assert (thin_ridges(thick) > 0).sum() == 16
    assert (thin_ridges(thick)[5] == 1).all()
    raw = Edges(thresholds=(0.5,), thin=False, tolerance_px=0)
    assert score(raw, (line(5), thick))["precision"] == pytest.approx(1 / 3)


def test_unknown_edges_are_no_edges():
    said = line(4)
    said[8] = np.nan
    assert score(Edges(), (line(4), said))["precision"] == 1
