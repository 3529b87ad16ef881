import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from deltascene.stages.kinds import KINDS
from deltascene.stages.metrics import (
    METRICS,
    Angles,
    Depth,
    Edges,
    Segmentation,
    count_edges,
    moved_region,
    multi_task_gain,
    thin_ridges,
)

LEFT = np.array([[True, True, False], [True, False, False]])


def score(metric, *updates):
    for update in updates:
        metric.update(*update)
    return metric.result()


# ---- segmentation

TRUTH_IDS = np.array([[0, 0, 1], [1, 2, 255]], np.uint8)
SAID_IDS = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)


def test_segmentation_by_hand():
    # class 0: hit 1, true 2, said 2 -> 1/3; class 1: hit 2, true 2, said 3 -> 2/3; class 2: 0/1; 255 doesn't count
    found = score(Segmentation(), (TRUTH_IDS, SAID_IDS))
    assert found["miou"] == pytest.approx((1 / 3 + 2 / 3 + 0) / 3)
    assert found["pixel_accuracy"] == pytest.approx(3 / 5)


def test_segmentation_averages_over_the_set_and_the_classes_in_it():
    # second frame: class 1 all right, class 7 said but never true: it costs class 1 nothing but its own hits
    more = np.array([[1, 1]], np.uint8), np.array([[1, 7]], np.uint8)
    found = score(Segmentation(), (TRUTH_IDS, SAID_IDS), more)
    assert found["miou"] == pytest.approx((1 / 3 + 3 / 5 + 0) / 3)  # class 1: hit 3, true 4, said 4
    assert found["pixel_accuracy"] == pytest.approx(4 / 7)


def test_segmentation_under_a_mask():
    # counted: true 0 0 1, said 0 1 1
    found = score(Segmentation(), (TRUTH_IDS, SAID_IDS, LEFT))
    assert found["miou"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert found["pixel_accuracy"] == pytest.approx(2 / 3)


def test_segmentation_takes_16_bit_and_signed_ids():
    truth = np.array([[300, 65535]], np.uint16)
    assert score(Segmentation(), (truth, np.array([[300, 300]], np.uint16))) == {"miou": 1, "pixel_accuracy": 1}
    signed = np.array([[2, -1]], np.int64)
    assert score(Segmentation(), (signed, np.array([[2, 0]], np.uint8))) == {"miou": 1, "pixel_accuracy": 1}


# ---- depth


def test_depth_by_hand():
    truth = np.array([[1, 2, 0], [4, np.inf, 10]], np.float32)
    said = np.array([[1.2, 1, 5], [4, 1, 13]], np.float32)
    # counted: off by .2, 1, 0, 3 -> squares .04, 1, 0, 9; relative .2, .5, 0, .3; within 1.25: 1.2, -, 1, 1.3
    found = score(Depth(), (truth, said))
    assert found["rmse"] == pytest.approx(math.sqrt(10.04 / 4))
    assert found["abs_rel"] == pytest.approx(1.0 / 4)
    assert found["delta1"] == pytest.approx(2 / 4)
    masked = score(Depth(), (truth, said, LEFT))  # 1, 2 and 4
    assert masked["rmse"] == pytest.approx(math.sqrt(1.04 / 3))
    assert masked["abs_rel"] == pytest.approx(0.7 / 3)
    assert masked["delta1"] == pytest.approx(2 / 3)


def test_depth_that_is_not_positive_is_far_off():
    found = score(Depth(), (np.ones((1, 2)), np.array([[0.0, -1.0]])))
    assert found["delta1"] == 0


# ---- angles


def test_angles_by_hand():
    turns_deg = np.radians([0, 10, 20, 25, 60])
    said = np.stack([np.sin(turns_deg), np.zeros(5), np.cos(turns_deg)], -1)[None]
    truth = np.broadcast_to([0.0, 0.0, 2.0], (1, 5, 3))
    found = score(Angles(), (truth, said))
    assert found["mean_deg"] == pytest.approx(115 / 5)
    assert found["median_deg"] == pytest.approx(20, abs=0.02)
    assert found["within_11.25"] == pytest.approx(2 / 5)
    assert found["within_22.5"] == pytest.approx(3 / 5)
    assert found["within_30"] == pytest.approx(4 / 5)


def test_angles_count_only_where_there_is_a_truth():
    truth = np.array([[[0, 0, 1], [0, 0, 0], [np.nan, 0, 1]], [[0, 1, 0], [0, 0, 1], [0, 0, 1]]])
    said = np.zeros((2, 3, 3))
    said[0, 0] = [0, 0, -1]  # opposite: 180; all others zero: 90
    found = score(Angles(), (truth, said))
    assert found["mean_deg"] == pytest.approx((180 + 90 + 90 + 90) / 4)
    assert score(Angles(), (truth, said, LEFT))["mean_deg"] == pytest.approx((180 + 90) / 2)


@given(arrays(np.float64, (20,), elements=st.floats(0, 180)))
def test_the_median_is_right_to_a_hundredth_of_a_degree(angles_deg):
    turns = np.radians(angles_deg)
    said = np.stack([np.sin(turns), np.cos(turns)], -1)[None]
    found = score(Angles(), (np.broadcast_to([0.0, 1.0], said.shape), said))
    low, high = np.sort(angles_deg)[9:11]
    assert low - 0.011 <= found["median_deg"] <= high + 0.011


# ---- edges


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


# ---- all of them


def test_every_kind_has_its_metric():
    assert set(METRICS) == set(KINDS)


@pytest.mark.parametrize("kind", sorted(METRICS))
def test_nothing_counted_is_nan_and_the_headline_is_there(kind):
    metric = METRICS[kind]()
    assert all(math.isnan(value) for value in metric.result().values())
    assert metric.headline in metric.result()
    assert isinstance(metric.lower_is_better, bool)


@pytest.mark.parametrize("kind", sorted(METRICS))
def test_the_truth_itself_scores_best_and_frames_add_up(kind):
    rng = np.random.default_rng(0)
    truth = {
        "classes": rng.integers(0, 5, (2, 12, 16)).astype(np.uint8),
        "scalar": rng.uniform(1, 5, (2, 12, 16)),
        "vector": rng.normal(size=(2, 12, 16, 3)),
        "heatmaps": np.stack([line(3), line(7)]),
    }[kind]
    metric = METRICS[kind]
    result = score(metric(), *zip(truth, truth, strict=True))
    assert result[metric.headline] == pytest.approx(0 if metric.lower_is_better else 1)
    halves = [np.arange(16) < 8, np.arange(16) >= 8]
    parts = [(truth[0], truth[1], np.broadcast_to(half, (12, 16))) for half in halves]
    assert score(metric(), *parts) == pytest.approx(score(metric(), (truth[0], truth[1])))


# ---- moving region and Delta m


def test_the_moved_region_by_hand():
    classes = np.zeros((12, 1, 4), np.uint8)
    depth = np.full((12, 1, 4), 2.0, np.float32)
    classes[2:, 0, 0] = 1  # changed once, at frame 2
    depth[5, 0, 1] = 3.0  # nearer for one frame only
    depth[6:, 0, 2] = 2.05  # 2.4 %: the same depth
    depth[7:, 0, 3] = 0.0  # unknown from frame 7

    def moved(t, **options):
        return moved_region(classes, depth, t, **options)[0].tolist()

    assert moved(0) == [False, False, False, False]
    assert moved(1) == [False, False, False, False]
    assert moved(2) == [True, False, False, False]
    assert moved(5) == [True, True, False, False]
    assert moved(9) == [True, True, False, True]
    assert moved(10) == [False, True, False, True]  # frames 2 to 9: the class was the same in all of them
    assert moved(9, window=2) == [False, False, False, False]
    assert moved(6, depth_tolerance=0.02) == [True, True, True, False]


def test_the_multi_task_gain_by_hand():
    # +10 % accuracy, and 5 % more error: (10 - 5) / 2
    gain = multi_task_gain({"a": 0.55, "b": 2.1}, {"a": 0.5, "b": 2.0}, {"a": False, "b": True})
    assert gain == pytest.approx(2.5)
    assert multi_task_gain({"a": 0.4}, {"a": 0.5}, {"a": False}) == pytest.approx(-20)
