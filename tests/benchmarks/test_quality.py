"""What the quality benchmark computes, on cases small enough to do by hand."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.evaluation import clip_scores
from deltascene.pipeline.evaluation.clips import Clip
from deltascene.pipeline.numerics.settle import settle
from deltascene.stages.kinds import Classes, Heatmaps, Scalar, Vector

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def judging() -> Iterator[ModuleType]:
    """The program, imported as it imports its own parts: from its folder."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("quality")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def scores():
    return clip_scores


def pairs(*rows):
    """A column of (sum of errors, counted) by frame."""
    return np.array([[[error], [count]] for error, count in rows], np.float64)


def test_errors_of_a_frame_by_hand(scores):
    kinds = {"what": Classes(("a", "b", "c")), "far": Scalar(), "up": Vector()}
    moving = np.array([[True, False], [False, False]])
    truth = {
        "what": np.array([[0, 1], [2, 255]], np.uint8),
        "far": np.array([[2.0, 4.0], [0.0, 1.0]], np.float32),
        "up": np.array([[(0, 0, 1), (0, 1, 0)], [(1, 0, 0), (0, 0, 0)]], np.float32),
    }
    said = {
        "what": np.array([[1, 1], [2, 0]], np.uint8),
        "far": np.array([[3.0, 4.0], [9.0, 2.0]], np.float32),
        "up": np.array([[(0, 1, 0), (0, 1, 0)], [(1, 0, 0), (1, 0, 0)]], np.float32),
    }
    sums = scores.score_frame(kinds, truth, said, moving, 0)
    assert {name: values[:, 0].tolist() for name, values in sums.items()} == {
        "what/whole": [1, 3],
        "what/moving": [1, 1],
        "far/whole": [0.5 + 0 + 1, 3],
        "far/moving": [0.5, 1],
        "up/whole": [pytest.approx(90), 3],
        "up/moving": [pytest.approx(90), 1],
    }


def test_edges_found_exactly_score_no_error_and_only_in_their_turn(scores):
    line = np.zeros((20, 20), np.float32)
    line[:, 10] = 1
    edges, moving = {"edge": Heatmaps()}, np.zeros((20, 20), bool)
    sums = scores.score_frame(edges, {"edge": line}, {"edge": line}, moving, 0)
    assert scores.error_of(sums["edge/whole"]) == 0
    assert np.isnan(scores.error_of(sums["edge/moving"]))
    assert not scores.score_frame(edges, {"edge": line}, {"edge": line}, moving, 1)["edge/whole"].any()


def test_flicker_counts_still_pixels_alone(scores):
    changed = np.array([[True, True, False, False]])
    moving = np.array([[True, False, False, False]])
    assert scores.count_pixels(changed, ~moving)[:, 0].tolist() == [1, 3]
    assert scores.count_pixels(changed)[:, 0].tolist() == [2, 4]


def test_loss_is_the_mean_of_the_tasks_ratios(scores):
    dense = {"a/whole": np.array([[10.0], [100.0]]), "b/whole": np.array([[2.0], [4.0]])}
    mine = {"a/whole": np.array([[11.0], [100.0]]), "b/whole": np.array([[2.6], [4.0]])}
    assert scores.loss_percent(dense, dense, "whole") == 0
    assert scores.loss_percent(mine, dense, "whole") == pytest.approx((10 + 30) / 2)


def test_a_task_without_pixels_in_a_region_is_left_out(scores):
    dense = {"a/moving": np.array([[10.0], [100.0]]), "b/moving": np.zeros((2, 1))}
    mine = {"a/moving": np.array([[12.0], [100.0]]), "b/moving": np.zeros((2, 1))}
    assert scores.loss_percent(mine, dense, "moving") == pytest.approx(20)


def test_where_nothing_can_be_compared_the_loss_is_unknown(scores):
    nothing = {"parts/moving": np.zeros((2, 1))}
    assert np.isnan(scores.loss_percent(nothing, nothing, "moving"))
    assert scores.mean_of_known(np.array([[1.0, np.nan], [3.0, np.nan]])).tolist() == [
        2.0,
        pytest.approx(np.nan, nan_ok=True),
    ]


def test_intervals_hold_the_value_and_vanish_where_nothing_varies(scores):
    same = {"a/whole": pairs(*[(1, 10)] * 60)}
    mixed = {"a/whole": pairs(*[(1, 10)] * 30, *[(3, 10)] * 30)}

    def statistic(sums):
        return scores.error_of(sums["a/whole"])

    (flat, wide), of_mean = scores.bootstrap([(same,), (mixed,)], statistic, draws=200)
    assert flat == pytest.approx((0.1, 0.1))
    assert 0.1 <= wide[0] < 0.2 < wide[1] <= 0.3
    assert of_mean[0] < 0.15 < of_mean[1]
    assert scores.bootstrap([(same,), (mixed,)], statistic, draws=200)[1] == of_mean


@pytest.mark.parametrize("warped", [False, True])
def test_every_kth_starts_anew_with_every_segment(judging, make_clip, tiny, warped):
    model = Engine.load(tiny).model
    dense = settle(load_config("exact", overrides=["segment.frames=7"], values={"model": tiny}))
    walkers = {
        "exact": judging.ByEngine(model, dense),
        "third": judging.EveryKth(model, dense, 3, warped=warped),
    }
    path = make_clip(18, fps=25.0)
    clip = Clip(path.stem, path, {}, np.zeros((18, 1, 1), bool))
    walked = judging.walk(clip, model.bundle.kinds, walkers, frames=18, judged=False)["third"]
    between = "warped" if warped else "held"
    expected = ["dense" if number % 7 % 3 == 0 else between for number in range(18)]
    assert walked["policy"].tolist() == expected


def test_policies_walk_together_and_are_found_again(judging, make_clip, tiny, tmp_path):
    model = Engine.load(tiny).model
    path, size = make_clip(9), (48, 64)
    truth = {"parts": np.zeros((9, *size), np.uint8), "height": np.ones((9, *size), np.float16)}
    moving = np.zeros((9, *size), bool)
    moving[1:, 10:30] = True
    clip = Clip("square", path, truth, moving)
    configs = {name: settle(load_config(name, values={"model": tiny})) for name in ("exact", "fast")}
    policies = {name: one for name, one in judging.candidates(model, configs).items() if name[-1] not in "468"}
    records = judging.Records.of(tmp_path, model, 100)
    found = judging.score(clip, model, policies, records)
    assert list(found) == ["exact", "hold 2", "warp 2", "hold 3", "warp 3", "fast"]
    assert [str(policy) for policy in found["hold 3"]["policy"]] == ["dense", "held", "held"] * 3
    assert found["warp 2"]["macs"].sum(0)[:, 0].tolist() == [
        5 * found["exact"]["macs"][0, 0, 0],
        9 * found["exact"]["macs"][0, 1, 0],
    ]
    again = judging.score(clip, model, {name: policies[name] for name in ("exact", "fast")}, records)
    for name, record in again.items():
        for column, values in record.items():
            np.testing.assert_array_equal(values, found[name][column])
    times = judging.time_policies(clip, model, {"timm": judging.eager(model, configs), **policies}, records, 1)
    assert (times["timm"]["seconds"][:, 0] > 0).all()
    table = judging.markdown([found | {"timm": times["timm"]}], "timm")
    assert "| exact | 0 | 0 |" in table
    assert "×)" in table
