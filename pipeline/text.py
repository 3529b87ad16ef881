"""One short line on what is wrong with data from outside: where, what was expected, what was found."""

import re
import reprlib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from deltascene.cache.places import Place
from deltascene.pipeline.errors import nearest

# pydantic's words for Python types, and those for YAML.
_WORDS = (
    (r"Input should be", "expected"),
    (r"a valid tuple", "a list"),
    (r"a valid dictionary( or instance of \w+)?", "a mapping"),
    (r"^(Tuple|Dictionary) should have", "expected"),
    (r"after validation, not \d+$", ""),
    (r"^Field required$", "expected a value"),
)


def one_line(text: object, longest: int = 200) -> str:
    """A text, or an error's text, on one line, cut to a length."""
    line = "".join(letter if letter.isprintable() else " " for letter in str(text))
    line = " ".join(line.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def printable(text: str) -> str:
    """A text that is safe to print: control characters, ANSI escapes, characters that change the direction of writing,
    and bytes that aren't UTF-8 are escaped."""
    return "".join(each if _harmless(each) else each.encode("unicode_escape").decode() for each in text)


def _harmless(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"  # of any width


def path_text(path: Place) -> str:
    """A path as text that every file format takes: bytes that aren't UTF-8 are escaped."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def shown(value: object) -> str:
    """A value as a message shows it: short, however long or deep it is."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxlist, short.maxtuple = 3, 80, 80, 8, 8
    return one_line(short.repr(value))


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem that pydantic found; an unknown key comes before a missing one.

    Args:
        error: that `model_validate` raised.
        model: class that was validated.
    """
    problem = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    if problem["type"] == "extra_forbidden":
        return f"{one_line(where)}: unknown key{nearest(str(problem['loc'][-1]), _keys_at(model, problem['loc'][:-1]))}"
    return one_line(f"{where}: {_text(problem)}" if where else _text(problem), 400)


def _text(problem: ErrorDetails) -> str:
    if problem["type"] == "missing":
        return "expected a value; found none"
    text = problem["msg"].removeprefix("Value error, ")
    for pattern, word in _WORDS:
        text = re.sub(pattern, word, text)
    complete = "; found " in text or isinstance(problem["input"], dict | BaseModel)
    return text if complete else f"{text}; found {shown(problem['input'])}"


def _keys_at(model: type[BaseModel], path: Sequence[str | int]) -> Iterable[str]:
    rest = list(path)
    while rest:
        annotation = model.model_fields[str(rest.pop(0))].annotation
        if get_origin(annotation) is dict and rest:
            rest.pop(0)
        inner = _model_in(annotation)
        if inner is None:
            return ()
        model = inner
    return model.model_fields


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
