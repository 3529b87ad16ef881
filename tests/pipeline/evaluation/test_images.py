"""Models side by side on labelled images: their measures, their gain over single-task networks, their intervals."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.evaluation.images import ImageScores, gain, intervals, score_images
from deltascene.pipeline.training.data import LabelledFolder, open_labelled
from deltascene.stages.kinds import Classes, Heatmaps, Scalar, Vector
from deltascene.stages.metrics import METRICS

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = {"what": Classes(("a", "b", "c")), "far": Scalar("m"), "up": Vector(), "edge": Heatmaps(("edge",))}


@pytest.fixture(scope="module")
def scored(tiny, alone, labelled):
    """The tiny bundle, two single-task networks of which one says something else, and one task of the bundle alone."""
    engines = {
        "alone": [Engine.load(alone("height", 0.5)), Engine.load(alone("flow"))],
        "tiny": [Engine.load(tiny)],
        "one": [Engine.load(tiny, tasks=["flow"])],
    }
    told: list[tuple[int, int]] = []
    scores = score_images(engines, labelled, "test", lambda done, of: told.append((done, of)))
    assert told == [(number, 4) for number in (1, 2, 3, 4)]
    return engines, scores


def test_measures_are_those_of_every_image_run_dense(scored, labelled):
    engines, scores = scored
    (engine,) = engines["tiny"]
    assert list(scores["tiny"].sums) == ["parts", "height", "flow", "hands"]
    assert {task: len(sums) for task, sums in scores["tiny"].sums.items()} == dict.fromkeys(scores["tiny"].sums, 2)
    for task, kind in engine.model.bundle.kinds.items():
        counter = METRICS[kind.name]()
        for stem in labelled.stems("test"):
            value = engine.open_stream("fresh")(labelled.image(stem))[task].array
            counter.update(kind.decode(labelled.truth(task, stem)), value)
        assert scores["tiny"].measures(task) == pytest.approx(counter.result())


def test_cost_is_that_of_all_networks_together(scored, labelled):
    engines, scores = scored
    each = [engine.open_stream("s")(labelled.image("a18")).cost.macs_executed for engine in engines["alone"]]
    assert scores["alone"].macs == sum(each)
    assert scores["one"].macs < scores["tiny"].macs
    assert all((one.seconds > 0).all() and one.seconds.shape == (4,) for one in scores.values())


def test_images_of_several_shapes_are_scored_at_the_inputs_that_aspect_gives_them(tiny, tmp_path):
    engine = Engine.load(tiny, tasks=["height"], overrides=["input.resize=aspect"])
    for name in ("images", "height"):
        (tmp_path / name).mkdir()
    for stem, size, model_size in (
        ("tall", (96, 54), (80, 48)),
        ("wide", (54, 96), (48, 80)),
        ("own", (48, 64), (48, 64)),
    ):
        Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(tmp_path / "images" / f"{stem}.png")
        np.save(tmp_path / "height" / f"{stem}.npy", np.ones(model_size, np.float16))
    data = LabelledFolder(
        tmp_path, dict.fromkeys(("tall", "wide", "own"), "test"), {"tall": "a", "wide": "b", "own": "c"}
    )
    scores = score_images({"one": [engine]}, data, "test")["one"]
    assert scores.sums["height"].shape[0] == 3
    costs = [engine.open_stream("s")(data.image(stem)).cost.macs_executed for stem in data.stems("test")]
    assert len(set(costs)) == 2
    assert scores.macs == round(sum(costs) / 3)


def test_the_gain_by_hand():
    headlines = {"what": 0.6, "far": 2.0, "up": 9.0, "edge": 0.5}
    single = {"what": 0.5, "far": 1.6, "up": 10.0, "edge": 0.5}
    # +20 %, 25 % more error, 10 % less error, the same
    assert gain(headlines, single, KINDS) == pytest.approx((20 - 25 + 10 + 0) / 4)
    assert gain(headlines, {"far": 1.6}, KINDS) == pytest.approx(-25)
    assert gain(single, single, KINDS) == 0


def test_the_gain_of_bundles_is_that_of_their_measures_over_the_tasks_that_both_have(scored):
    _, scores = scored
    ours, theirs = scores["tiny"].headlines(), scores["alone"].headlines()
    assert ours["flow"] == theirs["flow"]
    expected = 100 * -(ours["height"] - theirs["height"]) / theirs["height"] / 2
    assert expected != 0
    assert gain(ours, theirs, scores["tiny"].kinds) == pytest.approx(expected)
    assert gain(scores["one"].headlines(), theirs, scores["one"].kinds) == 0


def scores_of(*groups, kind=KINDS["far"]):
    """A candidate whose groups have so many (truth, prediction) pixels each."""
    sums = []
    for pairs in groups:
        counter = METRICS[kind.name]()
        counter.update(*(np.array([[pair[side] for pair in pairs]], float) for side in (0, 1)))
        sums.append(counter.sums())
    return ImageScores({"far": kind}, {"far": np.stack(sums)}, 1, np.ones(1))


def test_one_group_leaves_no_doubt():
    one = scores_of([(2.0, 3.0), (1.0, 1.0)])
    assert intervals(one) == {"far": (pytest.approx(0.5**0.5), pytest.approx(0.5**0.5))}


def test_an_interval_spans_what_drawing_groups_gives():
    """Two rooms, off by 1 and by 3: drawn twice each or once each, the error is 1, sqrt(5) or 3."""
    two = scores_of([(5.0, 6.0)], [(5.0, 8.0)])
    low, high = intervals(two)["far"]
    assert (low, high) == (pytest.approx(1), pytest.approx(3))
    assert two.headlines() == {"far": pytest.approx(5**0.5)}
    assert intervals(two, draws=50, seed=2) == intervals(two, draws=50, seed=2)


def test_the_reference_is_drawn_along():
    """Twice the error in every room: -100 % in every draw, however much the rooms differ."""
    rooms = [[(9.0, 9.0 + off)] for off in (0.1, 0.5, 1.0, 4.0)]
    ours, theirs = scores_of(*[[(9.0, 9.0 + 2 * (said - 9.0))] for ((_, said),) in rooms]), scores_of(*rooms)
    found = intervals(ours, theirs, draws=200)
    assert found["gain"] == (pytest.approx(-100), pytest.approx(-100))
    assert found["far"][1] > 2 * found["far"][0]


def test_a_reference_without_error_leaves_the_gain_unknown():
    perfect = scores_of([(2.0, 2.0)], [(1.0, 1.0)])
    found = intervals(scores_of([(2.0, 3.0)], [(1.0, 1.0)]), perfect)
    assert np.isnan(found["gain"]).all()
    assert np.isfinite(found["far"]).all()


def test_groups_that_saw_fewer_classes_than_others(tiny, labelled, tmp_path):
    root = Path(shutil.copytree(labelled.root, tmp_path / "data"))
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(root / "parts" / "a20.png")
    Image.fromarray(np.full((48, 64), 255, np.uint8)).save(root / "parts" / "a21.png")
    scores = score_images({"one": [Engine.load(tiny, tasks=["parts"])]}, open_labelled(root), "test")["one"]
    assert scores.sums["parts"].shape == (2, 3, 3)
    assert scores.sums["parts"][1, 1].tolist() == [48 * 64, 0, 0]


def test_truth_that_does_not_fit_is_named(tiny, labelled, tmp_path):
    root = Path(shutil.copytree(labelled.root, tmp_path / "data"))
    np.save(root / "height" / "a20.npy", np.ones((24, 32), np.float16))
    with pytest.raises(
        UsageError, match=r"height/a20: expected truth of the input's size, \(48, 64\); found \(24, 32\)"
    ):
        score_images({"tiny": [Engine.load(tiny)]}, open_labelled(root), "test")
