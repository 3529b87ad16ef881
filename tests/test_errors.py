"""One tree of errors: drawn in one place, found at the face, each with its exit code, and one line at the command."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import deltascene
from deltascene import errors
from deltascene.errors import DeltasceneError, ExitCode

ROOT = Path(__file__).resolve().parent.parent


def tree(base: type[DeltasceneError]) -> list[type[DeltasceneError]]:
    return [base, *(error for each in base.__subclasses__() for error in tree(each))]


def drawn() -> dict[str, tuple[int, int]]:
    """Depth and exit code of every class that the docstring draws, from top to bottom."""
    lines = re.findall(r"^([│ ]*[├└]── )(\w+) +(\d+) ", errors.__doc__ or "", re.M)
    return {name: (len(stem) // 4, int(code)) for stem, name, code in lines}


def depth(error: type[DeltasceneError]) -> int:
    """How far below the base: by the first of its bases, as a second one is of Python."""
    return 0 if error is DeltasceneError else 1 + depth(error.__bases__[0])


def in_a_process(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


def test_every_class_is_drawn_with_its_code_and_stands_at_the_face():
    for path in [path for folder in ("cache", "pipeline", "stages") for path in (ROOT / folder).rglob("*.py")]:
        if re.search(r"^class \w+\(.*(Error|Exception)\b.*\):", path.read_text(encoding="utf-8"), re.M):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            importlib.import_module(f"deltascene.{name}".replace("deltascene.pipeline.public", "deltascene"))
    found = [error for error in tree(DeltasceneError) if error.__module__.startswith("deltascene.")][1:]
    assert {error.__name__: (depth(error), error.exit_code) for error in found} == drawn()
    for error in found:
        assert getattr(deltascene, error.__name__) is error
        assert error.__name__ in deltascene.__all__
        assert isinstance(error.exit_code, ExitCode)


def test_no_class_of_ours_is_an_exception_outside_of_the_tree():
    for folder in ("cache", "pipeline", "stages"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            bases = re.findall(r"^class (\w+)\(((?:\w+, )*(?:Exception|\w+Error)(?:, \w+)*)\):", text, re.M)
            for name, _ in bases:
                assert name == "DeltasceneError" or name in drawn(), f"{path}: {name}"


def test_exit_codes_are_those_of_the_contract():
    codes = {name: int(code) for name, code in ExitCode.__members__.items()}
    assert codes == {
        "OK": 0, "INTERNAL": 1, "USAGE": 2, "INPUT_FAILED": 3, "DISK_FULL": 4, "BUDGET_REACHED": 4, "STOPPED": 130,
    }  # fmt: skip
    assert json.dumps({"exit_code": ExitCode.STOPPED}) == '{"exit_code": 130}'


def test_errors_of_stages_and_cache_are_what_they_were():
    assert issubclass(deltascene.StageError, ValueError)
    assert issubclass(deltascene.NotPredicted, KeyError)
    assert str(deltascene.NotPredicted("frame 3")) == "frame 3"


def test_stages_and_cache_know_neither_each_other_nor_the_pipeline():
    code = "import sys, deltascene.{0}.errors; print(*(name for name in sys.modules if name.startswith('deltascene')))"
    for folder in ("stages", "cache"):
        ours = {"deltascene", "deltascene.errors", f"deltascene.{folder}", f"deltascene.{folder}.errors"}
        assert set(in_a_process(code.format(folder))) == ours


def test_an_error_can_be_caught_without_anything_heavy():
    code = (
        "import sys, deltascene\n"
        "deltascene.UsageError, deltascene.CacheError, deltascene.StageError, deltascene.SourceError\n"
        "print(*({'torch', 'numpy', 'cv2', 'zarr', 'ray', 'rich', 'typer', 'pyarrow'} & set(sys.modules)))\n"
    )
    assert in_a_process(code) == []


def test_one_except_catches_what_every_folder_raises(tmp_path):
    from deltascene.cache.places import place
    from deltascene.pipeline.sources.find import find_sources
    from deltascene.pipeline.training.rooms.catalogue import load_catalogue
    from deltascene.stages.kinds import kind_from_description

    calls = {
        "OutputError": lambda: deltascene.open_run(tmp_path),
        "SourceNotFound": lambda: find_sources([str(tmp_path / "none.mp4")]),
        "NoSuchStore": lambda: place("nowhere://films/out"),
        "UnsupportedKind": lambda: kind_from_description({"kind": "boxes"}),
        "MeshesMissing": lambda: load_catalogue(tmp_path),
    }
    for name, call in calls.items():
        with pytest.raises(deltascene.DeltasceneError) as caught:
            call()
        assert type(caught.value) is getattr(deltascene, name)
