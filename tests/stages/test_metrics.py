import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deltascene.stages.kinds import KINDS
from deltascene.stages.metrics import (
    METRICS,
    Angles,
    Depth,
    Segmentation,
    moved_region,
    multi_task_gain,
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
        "heatmaps": np.eye(12, 16)[None].repeat(2, 0),
    }[kind]
    metric = METRICS[kind]
    result = score(metric(), *zip(truth, truth, strict=True))
    assert result[metric.headline] == pytest.approx(0 if metric.lower_is_better else 1)
    halves = [np.arange(16) < 8, np.arange(16) >= 8]
    parts = [(truth[0], truth[1], np.broadcast_to(half, (12, 16))) for half in halves]
    assert score(metric(), *parts) == pytest.approx(score(metric(), (truth[0], truth[1])))


def frames_of(kind, seed, count):
    """Random truths and predictions; ids of one set need not reach as far as those of another."""
    rng = np.random.default_rng(seed)
    make = {
        "classes": lambda: rng.integers(0, rng.integers(1, 6), (6, 8)).astype(np.uint8),
        "scalar": lambda: rng.uniform(0, 5, (6, 8)),
        "vector": lambda: rng.normal(size=(6, 8, 3)),
        "heatmaps": lambda: rng.random((6, 8)) ** 3,
    }[kind]
    return [(make(), make()) for _ in range(count)]


@pytest.mark.parametrize("kind", sorted(METRICS))
@pytest.mark.parametrize("seed", range(6))
def test_sums_of_two_sets_are_those_of_both(kind, seed):
    metric = METRICS[kind]
    sets = [frames_of(kind, (seed, number), count) for number, count in enumerate((2, seed % 3))]
    parts, both = [metric(), metric()], metric()
    for part, frames in zip(parts, sets, strict=True):
        for frame in frames:
            part.update(*frame)
            both.update(*frame)
    sums = [part.sums() for part in parts]
    width = max(each.shape[1] for each in sums)
    assert kind == "classes" or {each.shape[1] for each in sums} == {width}, "classes alone grow"
    first, second = (np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in sums)
    np.testing.assert_allclose(first + second, both.sums(), rtol=1e-12)
    assert metric.of(first + second).result() == pytest.approx(both.result(), nan_ok=True)


@pytest.mark.parametrize("kind", sorted(METRICS))
def test_what_was_counted_can_be_taken_out_and_put_back(kind):
    metric = METRICS[kind]()
    for frame in frames_of(kind, 3, 3):
        metric.update(*frame)
    again = METRICS[kind].of(metric.sums())
    assert again.result() == metric.result()
    np.testing.assert_array_equal(again.sums(), metric.sums())
    more = frames_of(kind, 4, 1)[0]
    metric.update(*more)
    again.update(*more)
    assert again.result() == pytest.approx(metric.result())
    doubled = METRICS[kind].of(2 * metric.sums()).result()  # every frame drawn twice
    assert doubled == pytest.approx(metric.result(), abs=0.011 if kind == "vector" else 1e-12)
    assert METRICS[kind].of(METRICS[kind]().sums()).result() == pytest.approx(METRICS[kind]().result(), nan_ok=True)


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


def test_there_is_no_gain_over_nothing():
    assert math.isnan(multi_task_gain({"a": 0.4, "b": 1.0}, {"a": 0.0, "b": 1.0}, {"a": False, "b": True}))
