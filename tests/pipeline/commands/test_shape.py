"""Commands have one shape: values in, an exit code out."""

import ast
from pathlib import Path

import deltascene.pipeline.commands

COMMANDS = Path(deltascene.pipeline.commands.__file__).parent


def test_every_command_returns_an_exit_code():
    trees = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in COMMANDS.glob("*.py")}
    functions = [
        (name, node) for name, tree in trees.items() for node in tree.body if isinstance(node, ast.FunctionDef)
    ]
    found = {f"{name}.{node.name}": node for name, node in functions if node.name.endswith("_command")}
    assert len(found) > 15
    assert {name for name, node in found.items() if ast.unparse(node.returns) != "ExitCode"} == set()
