"""The library's warnings: notes of the command line, and plain `logging` for a program that imports the package."""

import ast
import logging
import subprocess
import sys
from pathlib import Path

import deltascene.pipeline
from deltascene.pipeline.commands import run
from deltascene.pipeline.commands.notes import LIBRARY, NoteHandler, notes_on_stderr
from deltascene.pipeline.numerics import core_watch

PIPELINE = Path(deltascene.pipeline.__file__).parent


def test_a_warning_is_one_note_on_standard_error(capsys):
    root, logger = logging.getLogger(), logging.getLogger(f"{LIBRARY}.pipeline.somewhere")
    noisy = logging.StreamHandler(sys.stdout)
    root.addHandler(noisy)  # as other libraries do
    try:
        with notes_on_stderr():
            for _ in range(2):
                logger.warning("%d of %d workers\nhave room \x1b[31m", 1, 2)
            logger.info("nobody wants to know")
            logger.warning("another")
    finally:
        root.removeHandler(noisy)
    out, error = capsys.readouterr()
    assert error == "note: 1 of 2 workers\\nhave room \\x1b[31m\nnote: another\n"
    assert out == ""
    assert not any(isinstance(handler, NoteHandler) for handler in logging.getLogger(LIBRARY).handlers)
    assert logging.getLogger(LIBRARY).propagate


def test_a_message_that_cannot_be_shown_ends_nothing(capsys, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    with notes_on_stderr():
        logging.getLogger(LIBRARY).warning("%d", "no number")
        logging.getLogger(LIBRARY).warning("next")
    assert capsys.readouterr().err == "note: next\n"


def test_a_run_shows_its_warning_once_beside_its_json(run_cli, tiny, make_clip, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "seconds_lost", lambda: 0.25)
    options = ["--model", tiny, "--preset", "exact", "--json"]
    code, text, error = run_cli("run", make_clip(2), "-o", tmp_path / "out", *options)
    assert code == 0, error
    (line,) = error.splitlines()
    assert line.startswith("note: torch's ")
    assert "250 ms in a small product" in line
    assert all(line.startswith("{") for line in text.splitlines())


def test_the_face_installs_no_handler_and_python_shows_the_warning():
    code = (
        "import logging, deltascene\n"
        "deltascene.Engine\n"
        "for name in ('', 'deltascene'):\n"
        "    assert not logging.getLogger(name).handlers, name\n"
        "logging.getLogger('deltascene.pipeline.engine').warning('seen')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", "seen\n")


def test_loggers_of_modules_stand_below_the_library():
    """`logging.getLogger(__name__)`, or the logger of another library by its name; never the root."""
    named = 0
    for path in PIPELINE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "logging.getLogger":
                (name,) = map(ast.unparse, node.args)
                assert name in ("__name__", "LIBRARY") or name.startswith("'"), f"{path}:{node.lineno}: {name}"
                named += name == "__name__"
    assert named > 2
    assert core_watch.__name__.startswith(f"{LIBRARY}.")
