"""Several phases of the first dense frame, and the moving region at any frame rate."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.evaluation import ladder, phases, tune
from deltascene.pipeline.evaluation.clips import Clip, open_clip
from deltascene.pipeline.evaluation.walk import ByEngine, walk
from deltascene.pipeline.numerics.settle import settle
from deltascene.stages.kinds import Classes
from deltascene.stages.metrics import moving_window

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES = 20


@pytest.fixture(scope="module")
def path(make_clip, tmp_path_factory) -> Path:
    """A clip that is long enough for two phases, with truth of the first task that doesn't say its rate."""
    path = tmp_path_factory.mktemp("phases") / "own.avi"
    shutil.copyfile(make_clip(FRAMES, fps=25.0, name="own"), path)
    parts = np.random.default_rng(0).integers(0, 3, (48, 64, 1)).repeat(FRAMES, -1).astype(np.uint8)
    parts[8:20, 8:20, 3:] = (parts[8:20, 8:20, 3:] + 1) % 3
    np.savez(path.with_name("own.truth.npz"), parts=parts)
    return path


def columns(*costs):
    """A record of a pass: MACs of each frame, of 10; the policy tells the frame's number."""
    macs = np.array([[[cost], [10]] for cost in costs], np.float64)
    return {"macs": macs, "a/whole": macs.copy(), "policy": np.array([f"{at}" for at in range(len(costs))])}


def test_the_moving_region_is_that_of_the_same_time_at_every_rate(path, tmp_path):
    assert [moving_window(fps) for fps in (1, 5, 15, 30, 60)] == [1, 3, 8, 16, 32]
    seen = np.zeros((1, 1, 40), np.uint8)
    seen[..., 4:] = 1
    for fps in (15, 30):
        np.savez(tmp_path / "film.truth.npz", parts=seen, fps=np.array(float(fps)))
        clip = open_clip(tmp_path / "film.mp4", {"parts": Classes(("a", "b"))})
        assert clip.moving[:, 0, 0].nonzero()[0].tolist() == list(range(4, 4 + round(8 / 15 * fps)))
    moving = open_clip(path, {"parts": Classes(("a", "b", "c"))}).moving  # 25 frames a second: 13 of them
    assert moving[:, 8, 8].nonzero()[0].tolist() == list(range(3, 16))


def test_phases_are_added_up_over_the_frames_that_all_have():
    assert phases.passes(["exact", "ours"], 2) == {
        "exact": ("exact", 0),
        "ours": ("ours", 0),
        "ours from 5": ("ours", 5),
    }
    walked = {"exact": columns(*[10] * 8), "ours": columns(10, 1, 1, 1, 1, 1, 1, 2), "ours from 5": columns(10, 3, 3)}
    found = phases.over_phases(walked, ["exact", "ours"], 2)
    assert found["ours"]["a/whole"][:, :, 0].tolist() == [[1 + 10, 20], [1 + 3, 20], [2 + 3, 20]]
    assert found["ours"]["macs"][:, :, 0].tolist() == [[15 + 10, 70], [1 + 3, 20], [2 + 3, 20]]  # none is lost
    assert found["ours"]["policy"].tolist() == [["5", "0"], ["6", "1"], ["7", "2"]]
    assert found["exact"]["macs"][:, 0, 0].tolist() == [60, 10, 10]
    np.testing.assert_array_equal(phases.over_phases(walked, ["exact"], 1)["exact"]["macs"], walked["exact"]["macs"])
    assert phases.phases_that_fit(Clip("", Path(), {}, np.zeros((39, 1, 1), bool)), 100, 3) == 2
    assert phases.phases_that_fit(Clip("", Path(), {}, np.zeros((39, 1, 1), bool)), 19, 3) == 1


def test_a_later_phase_is_what_a_clip_that_begins_there_gives(path, tiny):
    model = Engine.load(tiny).model
    config = settle(load_config("balanced", overrides=["segment.frames=7"], values={"model": tiny}))
    clip, kinds = open_clip(path, model.bundle.kinds), model.bundle.kinds
    start = {"ours": partial(ByEngine, model, config)}
    classes = clip.truth["parts"]
    once = walk(clip, kinds, {"ours": start["ours"]()}, classes, frames=FRAMES)["ours"]
    later = walk(clip, kinds, {"ours": start["ours"]()}, classes, frames=FRAMES, starts={"ours": 5})["ours"]
    both = phases.walk_phases(clip, kinds, start, classes, frames=FRAMES, phases=2)["ours"]
    assert later["reason"].tolist().index("reset", 1) == 7
    assert both["policy"].tolist() == np.stack([once["policy"][5:], later["policy"]], 1).tolist()
    np.testing.assert_array_equal(both["parts/whole"], once["parts/whole"][5:] + later["parts/whole"])
    np.testing.assert_array_equal(both["macs"].sum(0), once["macs"].sum(0) + later["macs"].sum(0))


def test_tune_and_eval_look_at_several_phases(run_cli, path, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(ladder, "SCALES", (1.0,))
    asked = []
    monkeypatch.setattr(
        tune, "walk_phases", lambda *given, **more: asked.append(more["phases"]) or phases.walk_phases(*given, **more)
    )
    budget, out = ("--budget", "moved.loss<=9", "--objective", "macs"), tmp_path / "mine.yaml"
    code, _, error = run_cli("tune", path, "-o", out, "--model", tiny, *budget, "--phases", 9)
    assert code == 0, error
    assert "at most 150 frames and 9 phases of each" in out.read_text()
    assert asked == [2]  # as many as the clip is long enough for
    code, said, error = run_cli("eval", "--model", tiny, "--clips", path.parent, "--phases", 2, "-o", tmp_path / "out")
    assert code == 0, error
    assert "own" in said
    policies = phases_of(tmp_path / "out")
    assert {name: sum(counted.values()) for name, counted in policies.items()} == {"exact": 15, "balanced": 30}


def phases_of(out):
    """Number of frames by policy, of every candidate that was evaluated."""
    (clips,) = json.loads((out / "eval.json").read_text())["clips"].values()
    return {name: judged["policies"] for name, judged in clips["own"].items()}
