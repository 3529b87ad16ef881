"""No two places of the code say the same ten lines: one piece serves both."""

import ast
import io
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("benchmarks", "cache", "configs", "pipeline", "stages")
LINES = 10
SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def spoken_lines(text: str) -> list[tuple[int, str]]:
    """Number and text of a module's lines of code.

    Imports, blank lines, comments, docstrings and lines of nothing but punctuation are left out; so is white space.
    """
    unspoken = {number for node in ast.walk(ast.parse(text)) for number in _unspoken(node)}
    words: dict[int, list[str]] = defaultdict(list)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SILENT and token.start[0] not in unspoken:
            words[token.start[0]].append(token.string)
    said = ((number, " ".join(line)) for number, line in sorted(words.items()))
    return [(number, line) for number, line in said if any(letter.isalnum() for letter in line)]


def _unspoken(node: ast.AST) -> range:
    """Lines of an import, or of a docstring."""
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    if is_text or isinstance(node, ast.Import | ast.ImportFrom):
        return range(node.lineno, node.end_lineno + 1)
    return range(0)


def repeated(modules: Mapping[str, Sequence[tuple[int, str]]], lines: int = LINES) -> Iterator[str]:
    """Pairs of places that say the same, each pair of runs once and as long as it is."""
    places: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for name, said in modules.items():
        for start in range(len(said) - lines + 1):
            places[tuple(line for _, line in said[start : start + lines])].append((name, start))
    pairs = {
        (one, other)
        for standing in places.values()
        for number, one in enumerate(standing)
        for other in standing[number + 1 :]
        if one[0] != other[0] or other[1] - one[1] >= lines  # a run doesn't repeat itself
    }
    for (one, first), (other, second) in sorted(pairs):
        if ((one, first - 1), (other, second - 1)) in pairs:
            continue
        length = lines
        while ((one, first + length - lines + 1), (other, second + length - lines + 1)) in pairs:
            length += 1
        yield f"{_place(one, modules[one], first, length)} = {_place(other, modules[other], second, length)}"


def _place(name: str, said: Sequence[tuple[int, str]], start: int, length: int) -> str:
    return f"{name}:{said[start][0]}-{said[start + length - 1][0]}"


def test_no_ten_lines_stand_in_two_places():
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    assert len(paths) > 100
    modules = {path.relative_to(ROOT).as_posix(): spoken_lines(path.read_text(encoding="utf-8")) for path in paths}
    found = list(repeated(modules))
    assert not found, "let one piece serve both:\n" + "\n".join(found)


BODY = "\n".join(f"    x{number} = f(x{number - 1}, {number})" for number in range(1, 12))
ONE = f'"""One."""\nimport os\n\n\ndef f(x0):\n{BODY}\n    return x11\n'


def test_the_same_lines_are_found_by_both_their_places():
    deeper = BODY.replace("    x", "        x").replace("f(x5, 6)", "f( x5, 6 )  # aside")
    other = f"import sys\nA = 1\n\n\nclass B:\n    def g(self, x0):\n        # why\n{deeper}\n"
    modules = {"one.py": spoken_lines(ONE), "other.py": spoken_lines(other)}
    assert list(repeated(modules)) == ["one.py:6-16 = other.py:8-18"]


def test_what_says_nothing_does_not_count():
    said = 'import a\nfrom b import (\n    c,\n)\n\n"""Text\nof lines."""\n# a remark\nx = [\n    1,\n]  # another\n'
    assert [line for _, line in spoken_lines(said)] == ["x = [", "1 ,"]
    nine = "\n".join(ONE.splitlines()[:14]).replace("def f", "def g")
    assert not list(repeated({"one.py": spoken_lines(ONE), "other.py": spoken_lines(nine)}))


def test_a_run_does_not_repeat_itself():
    assert not list(repeated({"one.py": spoken_lines("x = 1\n" * 19)}))
    assert list(repeated({"one.py": spoken_lines("x = 1\n" * 20)})) == ["one.py:1-10 = one.py:11-20"]
