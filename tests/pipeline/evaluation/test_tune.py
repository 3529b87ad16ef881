"""`deltascene tune` as people call it: a preset of their own, with what was measured inside."""

import shutil
from math import ceil
from pathlib import Path

import numpy as np
import pytest

from deltascene.pipeline.config import load_config
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.evaluation.ladder import falling, ladder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def clip(make_clip, tmp_path_factory) -> Path:
    """A short clip without truth."""
    path = tmp_path_factory.mktemp("own") / "own.avi"
    shutil.copyfile(make_clip(frames=8, name="own"), path)
    return path


@pytest.fixture(scope="module")
def with_truth(clip, tmp_path_factory) -> Path:
    """The same with truth of the first two tasks."""
    path = tmp_path_factory.mktemp("truth") / "own.avi"
    shutil.copyfile(clip, path)
    parts = np.random.default_rng(0).integers(0, 3, (48, 64, 1)).repeat(8, -1).astype(np.uint8)
    parts[8:20, 8:20, 3:] = (parts[8:20, 8:20, 3:] + 1) % 3
    np.savez(path.with_name("own.truth.npz"), parts=parts, height=np.full((48, 64, 8), 2.0, np.float16))
    return path


@pytest.mark.parametrize("against", ["clip", "with_truth"])
def test_the_cheapest_within_the_budget_becomes_a_preset(run_cli, tiny, against, request, tmp_path):
    out = tmp_path / "new" / "mine.yaml"
    sources = request.getfixturevalue(against)
    code, said, error = run_cli(
        "tune", sources, "-o", out, "--model", tiny, "--budget", "moved.loss <= 9", "--objective", "macs"
    )  # fmt: skip
    assert code == 0, error
    assert "chosen" in said
    text, shipped = out.read_text(), load_config("balanced").policy
    policy = load_config(file=out).policy
    scale = policy.max_age_s / shipped.max_age_s
    assert scale == 3  # at 4, no fewer rows run in 8 frames
    assert policy == shipped.model_copy(update={"max_age_s": 0.375, "camera_price": pytest.approx(0.06)})
    first, clips, *_ = [line for line in text.splitlines() if line.startswith("# ")]
    if against == "with_truth":
        assert "moved loss at most 900 %; least macs; losses against truth, relative to dense prediction." in first
    else:
        assert "moved excess drift at most 900 %; least macs; drift from dense prediction / floor of" in first
    assert "own.avi" in clips
    (chosen,) = (line for line in text.splitlines() if line.endswith("<- chosen"))
    assert chosen.split()[1:3] == ["3", "0.375"]

    code, _, error = run_cli("run", sources, "-o", tmp_path / "run", "--model", tiny, "--config", out)
    assert code == 0, error
    code, _, error = run_cli("tune", sources, "-o", out, "--model", tiny)
    assert code == 2
    assert "mine.yaml: expected a new file; found one" in error


def test_where_nothing_fits_the_nearest_is_written(run_cli, tiny, clip, tmp_path, monkeypatch):
    monkeypatch.setattr("deltascene.pipeline.evaluation.ladder.SCALES", (2.0, 3.0))  # this film bears stricter ones
    monkeypatch.setattr("deltascene.pipeline.evaluation.ladder.STRICTER", ())
    out = tmp_path / "mine.yaml"
    code, said, _ = run_cli("tune", clip, "-o", out, "--model", tiny, "--budget", "moved.loss<=0", "--phases", 1)
    assert code == 3
    said = " ".join(said.split())
    assert "the budget isn't kept: no step keeps to moved excess drift at most 0 %; the nearest, the strictest," in said
    assert "# NOT KEPT: no step keeps to moved excess drift at most 0 %" in out.read_text()
    assert load_config(file=out).policy.max_age_s == 2 * load_config("balanced").policy.max_age_s


def test_every_step_runs_on_another_number_of_frames_and_costs_less():
    base = load_config("balanced")
    ages = {fps: [step.config.policy.max_age_s for step in ladder(base, fps)[2:]] for fps in (5, 15, 30, 60)}
    every = {fps: [ceil(age * fps) for age in found] for fps, found in ages.items()}
    assert every[15] == [1, 2, 3, 4, 6, 8]
    assert every[30] == [1, 2, 3, 4, 6, 8, 12, 15]
    assert all(sorted(set(frames)) == frames for frames in every.values())
    *strict, at_once, next_ = ladder(base, 15)[:4]
    assert at_once.numbers == {
        "policy.max_age_s": 0.0625,
        "policy.camera_price": 0.01,
        "policy.rolling": 0.02,
        "change.threshold": 12,
    }
    assert next_.config == base
    assert [list(step.numbers.values()) for step in strict] == [
        [0.0625, 0.0025, 0.32, 3],
        [0.0625, 0.005, 0.08, 6],
    ]
    steps = ladder(base, 15)[2:]
    assert [step.scale for step in steps] == [0.5, 1, 1.5, 2, 3, 4]
    assert all(step.config.policy.camera_price == pytest.approx(0.02 * step.scale) for step in steps)
    assert falling(steps, [9, 9, 7, 8, 6, 6]) == [steps[0], steps[2], steps[4]]
    with pytest.raises(UsageError, match=r"rows go by policy.max_age_s, such as balanced; found policy.reuse: false"):
        ladder(load_config("exact"), 15)


def test_truth_beside_some_clips_only_is_refused(run_cli, tiny, clip, with_truth, tmp_path):
    code, _, error = run_cli("tune", clip, with_truth, "-o", tmp_path / "mine.yaml", "--model", tiny)
    assert code == 2
    assert "tune: expected <stem>.truth.npz beside every clip or none; found none beside own.avi" in error
