"""The rules of the house that a program can hold: who imports whom, tasks only as data, a face that answers at once."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

import deltascene

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("cache", "configs", "pipeline", "stages")
MODULES = sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

# Which of our own folders a folder may import from.
OWN: dict[str, tuple[str, ...]] = {
    "cache": ("cache", "errors"),
    "configs": (),
    "stages": ("stages", "errors"),
    "pipeline": ("cache", "configs", "errors", "pipeline", "stages", ""),  # "" is the face, for its version
}

# Which files may import a library; `*` crosses folders.
HEAVY: dict[str, tuple[str, ...]] = {
    "torch": ("stages/*", "pipeline/*"),
    "timm": ("stages/backbone.py", "stages/preprocess.py", "pipeline/training/*"),
    "zarr": ("cache/zarr_store.py", "cache/shards.py", "pipeline/runs/predictions.py"),
    "cv2": (  # where pictures come in or go out, and what is done to each of them before and after the network
        "pipeline/sources/*",
        "pipeline/drawing/panel.py",
        "pipeline/report/pictures.py",
        "pipeline/doctor/media.py",
        "stages/preprocess.py",
        "stages/change.py",
        "stages/boxes.py",
        "stages/motion.py",
        "pipeline/training/rooms/*",
    ),
    "ray": ("pipeline/workers/ray_pool.py", "pipeline/workers/worker_ray.py"),
    "decord": ("pipeline/sources/*",),
    "av": ("pipeline/drawing/webm_main.py", "pipeline/sources/decoding/*"),
}

TASKS = {"seg", "depth", "normals", "edges"}
AT_ONCE = ("torch", "timm", "cv2", "zarr", "ray", "decord", "av")


def parsed(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"), module)


def imports(module: str) -> Iterator[str]:
    """Dotted names that a module imports, anywhere in it; a relative one starts with a dot."""
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def test_there_is_something_to_look_at():
    assert {module.split("/")[0] for module in MODULES} == set(FOLDERS)
    assert "torch" in {name.split(".")[0] for name in imports("stages/rows.py")}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    for name in imports(module):
        assert not name.startswith("."), f"{module}: relative import {name}"
        top, _, rest = name.partition(".")
        assert top not in FOLDERS, f"{module}: {name} is a second copy of deltascene.{name}"
        if top == "deltascene":
            assert rest.split(".")[0] in OWN[module.split("/")[0]], f"{module} may not import {name}"
        if top in HEAVY:
            allowed = HEAVY[top]
            assert any(fnmatch(module, pattern) for pattern in allowed), f"{module} may not import {name}: {allowed}"


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith("pipeline/training/rooms/")])
def test_no_code_asks_for_a_task_by_name(module):
    named = [
        f"{module}:{node.lineno}: {node.value!r}"
        for node in ast.walk(parsed(module))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in TASKS
    ]
    assert not named


def test_timms_network_is_touched_by_its_adapter_alone():
    """`stages/backbone.py` has methods for what others want of it."""
    sources = (path for folder in (*FOLDERS, "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py"))
    found = {path.relative_to(ROOT).as_posix() for path in sources if re.search(r"\._?vit\b", path.read_text("utf-8"))}
    assert found == {"stages/backbone.py"}


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_a_drawer_for_everything(module):
    assert Path(module).stem not in {"utils", "util", "helpers", "common", "misc"}


def test_the_package_list_is_the_folders():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {Path(module).parent.as_posix() for module in MODULES}
    names = {
        "deltascene" if folder == "pipeline/public" else "deltascene." + folder.replace("/", ".") for folder in folders
    }
    assert set(setup["packages"]) == names
    for name, folder in setup["package-dir"].items():
        assert (ROOT / folder).is_dir(), name


def test_type_checkers_see_the_folders():
    seen = ROOT / "typings" / "deltascene"
    for folder in FOLDERS:
        assert (seen / folder).resolve() == ROOT / folder
    for path in (ROOT / "pipeline" / "public").glob("*.py"):
        assert (seen / path.name).resolve() == path


def test_the_face_keeps_its_promises():
    for name in deltascene.__all__:
        assert getattr(deltascene, name).__name__ == name
    with pytest.raises(AttributeError, match=r"no attribute 'Nothing'; it has .*Engine"):
        _ = deltascene.Nothing


def test_the_command_answers_at_once():
    """Help imports nothing heavy, and takes less than a second of processor time in the best of three tries."""
    code = (
        "import runpy, sys\n"
        "sys.argv = ['deltascene', '--help']\n"
        "try:\n"
        "    runpy.run_module('deltascene', run_name='__main__')\n"
        "finally:\n"
        f"    print('imported:', *(name for name in {AT_ONCE} if name in sys.modules))\n"
    )
    spent_s = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        after = os.times()
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout
        assert done.stdout.splitlines()[-1] == "imported:"
        spent_s.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(spent_s) < 1, spent_s


def test_actors_that_do_not_compute_start_without_torch():
    code = "import sys, deltascene.pipeline.workers.ray_actors; print('torch' in sys.modules, 'cv2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "False"]
