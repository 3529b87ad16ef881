"""The command on an error of every folder: one line, and its exit code."""

import errno
import os

import pytest
import yaml

from deltascene.errors import ExitCode
from deltascene.pipeline.commands import run
from deltascene.pipeline.commands.summary import exit_code
from deltascene.pipeline.errors import DiskFull, NoCapacity, Stopped
from deltascene.pipeline.training.rooms import __main__ as rooms


@pytest.fixture
def unsupported(tmp_path):
    """A bundle on a network that can't be run by rows."""
    folder = tmp_path / "convolutions"
    folder.mkdir()
    entry = {
        "format": 1, "name": "convolutions", "backbone": {"timm": "resnet18", "weights": "base.safetensors"},
        "input": {"size": [32, 32]}, "base": "parts",
        "tasks": {"parts": {"kind": "classes", "labels": ["sky", "road"], "taps": [1], "head": "linear"}},
    }  # fmt: skip
    (folder / "bundle.yaml").write_text(yaml.safe_dump(entry))
    (folder / "base.safetensors").touch()
    return folder


def test_an_error_of_every_folder_is_one_line(run_cli, tiny, make_clip, tmp_path, unsupported):
    clip = make_clip(2)
    for code, words, arguments in (
        (ExitCode.USAGE, "timm", ["run", clip, "-o", tmp_path / "a", "--model", unsupported]),  # stages
        (ExitCode.USAGE, "nowhere://: expected a path or a URL", ["jobs", "nowhere://films/out"]),  # cache
        (ExitCode.USAGE, "policy.evry", ["run", clip, "-o", tmp_path / "b", "--model", tiny, "--set", "policy.evry=2"]),
        (ExitCode.USAGE, "expected a run's folder", ["report", tmp_path]),
        (ExitCode.USAGE, "none.mp4", ["run", tmp_path / "none.mp4", "-o", tmp_path / "c", "--model", tiny]),
    ):
        found, text, error = run_cli(*arguments)
        assert (found, error.count("\n")) == (code, 1), text + error
        assert error.startswith("deltascene: ")
        assert words in error
        assert "Traceback" not in text + error


def test_rooms_that_cannot_be_made_are_one_line(tmp_path, capsys):
    code = rooms.main(["make", "--meshes", str(tmp_path), "--out", str(tmp_path / "set")])
    assert code == ExitCode.USAGE
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NoCapacity("no machine has room"), ExitCode.INPUT_FAILED),
        (DiskFull("no room left"), ExitCode.DISK_FULL),
        (Stopped("stopped at once"), ExitCode.STOPPED),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ExitCode.DISK_FULL),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/out"), ExitCode.USAGE),
        (OSError(errno.EIO, os.strerror(errno.EIO)), ExitCode.INTERNAL),
    ],
)
def test_what_ends_a_run_is_one_line_with_its_code(run_cli, tiny, make_clip, tmp_path, monkeypatch, error, code):
    def fail(*_):
        raise error

    monkeypatch.setattr(run, "run_command", fail)
    found, text, line = run_cli("run", make_clip(2), "-o", tmp_path / "out", "--model", tiny)
    assert (found, line.count("\n")) == (code, 1), text + line


def test_a_fault_of_ours_is_not_told_as_a_users(run_cli, tiny, make_clip, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("never")

    monkeypatch.setattr(run, "run_command", fail)
    with pytest.raises(RuntimeError, match="never"):
        run_cli("run", make_clip(2), "-o", tmp_path / "out", "--model", tiny)


def test_a_stop_counts_more_than_a_failure_and_a_failure_more_than_a_budget():
    assert exit_code(stopped=True, failed=True, over_budget=True) is ExitCode.STOPPED
    assert exit_code(stopped=False, failed=True, over_budget=True) is ExitCode.INPUT_FAILED
    assert exit_code(stopped=False, failed=False, over_budget=True) is ExitCode.BUDGET_REACHED
    assert exit_code(stopped=False, failed=False) is ExitCode.OK
