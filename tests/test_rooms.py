"""The rooms of `pipeline/`: one order of imports, what stays light, who prints. docs/architecture.md is the map."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PIPELINE = ROOT / "pipeline"
GROUND = "ground"  # the modules in pipeline/ itself

# A room imports only what stands before it.
ORDER = (
    GROUND,
    "processes",
    "sources",
    "sources.decoding",
    "bundles",
    "numerics",
    "drawing",
    "engine",
    "runs",
    "workers",
    "batch",
    "live",
    "training.rooms",
    "training",
    "evaluation",
    "report",
    "doctor",
    "commands",
    "cli",
    "public",
)
NOT_BUILT = {"live"}
IN_GROUND = {"__init__", "config", "errors", "openmp", "quick_imports", "safe_yaml", "text", "units", "versions"}

# Stricter than the order: all that a room may import besides itself.
ONLY = {"runs": {GROUND}, "report": {GROUND, "sources", "drawing", "runs"}}
LIGHT = (GROUND, "processes", "sources", "drawing", "runs", "report")  # import no torch, not even by way of others
PRINTS = {"commands", "training.rooms"}  # training.rooms has a command of its own, python -m


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PIPELINE).with_suffix("").parts)


MODULES = {name_of(path): path for path in sorted(PIPELINE.rglob("*.py"))}


def room_of(module: str) -> str:
    """The innermost room that a module lies in."""
    folders = module.split(".")[:-1]
    return next((room for depth in (2, 1) if (room := ".".join(folders[:depth])) in ORDER), GROUND)


def imported(module: str, *, when_imported: bool = False) -> Iterator[str]:
    """Modules of `pipeline` that a module imports: anywhere in it, or only those that come with it."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in _at_once(tree) if when_imported else ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in found:
            parts = name.removeprefix("deltascene.pipeline").strip(".").split(".")
            if name.startswith("deltascene.pipeline"):
                yield next((known for known in (".".join(parts), ".".join(parts[:-1])) if known in MODULES), "__init__")


def _at_once(tree: ast.AST) -> Iterator[ast.AST]:
    """Statements that run when a module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from _at_once(node)


def test_every_module_lies_in_a_known_room():
    assert {module for module in MODULES if "." not in module} == IN_GROUND
    assert {room_of(module) for module in MODULES} == set(ORDER) - NOT_BUILT


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_rooms_before_it(module):
    mine = room_of(module)
    for other in imported(module):
        theirs = room_of(other)
        if theirs == mine:
            continue
        assert ORDER.index(theirs) < ORDER.index(mine), f"{module} ({mine}) imports {other} ({theirs})"
        assert theirs in ONLY.get(mine, ORDER), f"{module} ({mine}) imports {other}; expected {ONLY[mine]}"
        assert theirs != "sources.decoding", f"{module} imports {other}; decoding is started by name"
        assert {mine, theirs} != {"live", "batch"}, f"{module} imports {other}"


def test_the_map_names_every_module_and_no_other_file():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w*./]+)`", text))
    for path in [*PIPELINE.rglob("*.py"), *(ROOT / "stages").glob("*.py"), *(ROOT / "cache").glob("*.py")]:
        if path.stem.startswith("__") or "training/rooms/" in path.as_posix():
            continue
        assert any(fnmatch(path.stem, name) for name in named), f"{path} isn't named"
    for name in named:
        if "/" in name and "." in name:
            assert [*ROOT.glob(name), *PIPELINE.glob(name)], f"{name} isn't there"


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: set(imported(module)) - {"__init__"} for module in MODULES}
    while leaves := {module for module, others in graph.items() if not others & graph.keys()}:
        for module in leaves:
            del graph[module]
    assert not graph, f"these lie on circles, or lead to one: {sorted(graph)}"


@pytest.mark.parametrize("room", LIGHT)
def test_light_rooms_import_no_torch(room):
    names = [module for module in MODULES if room_of(module) == room and not module.endswith("__main__")]
    seen, waiting = set(), names
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += imported(module, when_imported=True)
    dotted = sorted(f"deltascene.pipeline.{name}".removesuffix(".__init__") for name in seen)
    code = (
        f"import importlib, sys\nfor name in {dotted}: importlib.import_module(name)\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", [module for module in MODULES if room_of(module) not in PRINTS])
def test_only_commands_print(module):
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        said = ast.unparse(node) if isinstance(node, (ast.Call, ast.Attribute, ast.ImportFrom, ast.Import)) else ""
        prints = said.startswith(("print(", "console.print(")) or said in ("sys.stdout", "sys.stderr")
        assert not prints, f"{module}:{node.lineno}: {said}"  # type: ignore[attr-defined]
        assert not said.startswith(("from rich", "import rich")), f"{module}:{node.lineno}: {said}"  # type: ignore[attr-defined]
