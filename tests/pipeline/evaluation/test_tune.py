"""`deltascene tune` as people call it: a preset of their own, with what was measured inside."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from deltascene.pipeline.config import load_config

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
    text = out.read_text()
    config = load_config(file=out)
    assert config.policy.every == 4  # nothing is cheaper
    assert config.policy.refresh in (8, 12, 24, 48)
    evidence = [line for line in text.splitlines() if line.startswith("# ")]
    expected = "truth, relative to dense prediction" if against == "with_truth" else "dense prediction"
    assert f"losses against {expected}." in evidence[0]
    assert "own.avi" in evidence[1]
    (chosen,) = (line for line in text.splitlines() if line.endswith("<- chosen"))
    assert chosen.split()[1:4] == ["4", str(config.policy.refresh), f"{config.change.threshold:g}"]

    code, _, error = run_cli("run", sources, "-o", tmp_path / "run", "--model", tiny, "--config", out)
    assert code == 0, error
    code, _, error = run_cli("tune", sources, "-o", out, "--model", tiny)
    assert code == 2
    assert "mine.yaml: expected a new file; found one" in error


def test_where_nothing_fits_nothing_is_written(run_cli, tiny, clip, tmp_path):
    out = tmp_path / "mine.yaml"
    code, said, _ = run_cli(
        "tune", clip, "-o", out, "--model", tiny, "--budget", "whole.loss<=0", "--frames", 4
    )  # fmt: skip
    assert code == 3
    assert "none of 48 candidates keeps to the budget; nothing was written" in " ".join(said.split())
    assert not out.exists()


def test_truth_beside_some_clips_only_is_refused(run_cli, tiny, clip, with_truth, tmp_path):
    code, _, error = run_cli("tune", clip, with_truth, "-o", tmp_path / "mine.yaml", "--model", tiny)
    assert code == 2
    assert "tune: expected <stem>.truth.npz beside every clip or none; found none beside own.avi" in error
