"""Standard output that nobody reads, or that has no room, is told apart from inputs and from OUT's disk."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from deltascene import open_run
from deltascene.errors import ExitCode
from deltascene.pipeline.cli import app
from deltascene.pipeline.commands.progress import JsonEvents

OPTIONS = ["--preset", "exact", "--set", "save.video=false", "--set", "numerics.threads=1", "--dtype", "float32"]
FULL = Path("/dev/full")
OUTPUT_CLOSED = 141  # as of other commands in a pipe: 128 + SIGPIPE
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")


@contextmanager
def closed_pipe():
    """The end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as file:
        yield file


def call(monkeypatch, out, *arguments, error=None) -> int:
    """Runs the command with a real file as its standard output."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", error or sys.stderr)
        patch.setattr(sys, "argv", ["deltascene", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            app.main()
    return int(exit_.value.code or 0)


@pytest.mark.parametrize("how", ["--json", "--no-archive"])
def test_a_run_that_nobody_reads_ends_quietly_and_fails_no_input(
    run_cli, tiny, make_clip, tmp_path, monkeypatch, capfd, how
):
    arguments = ["run", make_clip(3), "-o", tmp_path / "out", "--model", tiny, *OPTIONS, how]
    with closed_pipe() as out:
        assert call(monkeypatch, out, *arguments) == OUTPUT_CLOSED
    assert capfd.readouterr().err == ""
    assert not (tmp_path / "out" / "errors.jsonl").exists()
    assert open_run(tmp_path / "out")["clip"].record.status == "waiting"
    code, _, error = run_cli(*arguments)
    assert code == 0, error
    assert open_run(tmp_path / "out")["clip"].record.status == "done"


@needs_full
def test_a_full_disk_behind_standard_output_is_not_that_of_the_results(tiny, make_clip, tmp_path, monkeypatch, capfd):
    with FULL.open("w") as out:
        code = call(monkeypatch, out, "run", make_clip(3), "-o", tmp_path / "out", "--model", tiny, *OPTIONS)
    assert code == ExitCode.DISK_FULL
    assert capfd.readouterr().err == "deltascene: standard output: No space left on device\n"
    assert not (tmp_path / "out" / "errors.jsonl").exists()


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["config", "show"], ["run", "--help"]])
def test_every_command_ends_quietly_where_nobody_reads(monkeypatch, capfd, arguments):
    with closed_pipe() as out:
        assert call(monkeypatch, out, *arguments) == OUTPUT_CLOSED
    assert capfd.readouterr().err == ""


@needs_full
def test_standard_error_that_cannot_be_written_changes_nothing(monkeypatch, tmp_path, capfd):
    with FULL.open("w") as error:
        assert call(monkeypatch, sys.stdout, "jobs", tmp_path, error=error) == ExitCode.USAGE
        assert call(monkeypatch, sys.stdout, "--version", error=error) == 0
    assert capfd.readouterr().out.startswith("deltascene ")


@pytest.mark.parametrize("event", ["video_started", "frame_done", "finishing", "video_ended"])
def test_an_error_of_a_listener_is_not_that_of_the_input(run_cli, tiny, make_clip, tmp_path, monkeypatch, event):
    """A program's own listener, as one that sends events elsewhere."""

    def refuse(*_, **__):
        raise ConnectionResetError("nobody listens")

    arguments = ["run", make_clip(3), "-o", tmp_path / "out", "--model", tiny, "--json", "--dtype", "float32"]
    with monkeypatch.context() as patch:
        patch.setattr(JsonEvents, event, refuse)
        assert run_cli(*arguments)[0] == ExitCode.INTERNAL
    assert not (tmp_path / "out" / "errors.jsonl").exists()
    assert open_run(tmp_path / "out")["clip"].record.status != "failed"
