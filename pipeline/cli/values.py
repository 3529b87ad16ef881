"""Texts of options as values."""

import re
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.evaluation.bounds import MEAN, Goal

_BUDGET = re.compile(r"(whole|moved)\.loss<=(\d+\.?\d*|\.\d+)")
_DRIFT = re.compile(r"(?:([^=,\s]+)=)?(\d+\.?\d*|\.\d+)(%?)")
_REGION = {"whole": "whole", "moved": "moving"}  # as records of clips name them
_SAVED = ("arrays", "video", "png", "npz")


def split_names(text: str | None) -> tuple[str, ...] | None:
    """Comma-separated names; None stays None."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def parse_models(texts: Sequence[str]) -> dict[str, str]:
    """`NAME=BUNDLE` each, or a bundle by its folder's name; the result is by name.

    Raises:
        UsageError: two bundles have one name.
    """
    models: dict[str, str] = {}
    for text in texts:
        name, equals, model = text.partition("=")
        if not equals or "/" in name:  # a folder may have = in its name
            name, model = Path(text).name or text, text
        if name in models:
            raise UsageError(f"--model: expected a name for each, NAME=BUNDLE; found {name!r} twice")
        models[name] = model
    return models


def parse_size(text: str | None) -> int | tuple[int, int] | None:
    """A short side in pixels such as `518`, or `H,W`; None stays None.

    Raises:
        UsageError: the text has another form.
    """
    if text is None:
        return None
    numbers = [int(part) for part in re.split(r"[,x]", text) if part.strip().isdigit()]
    if re.fullmatch(r"\s*\d+\s*([,x]\s*\d+\s*)?", text) is None or min(numbers) < 1:
        raise UsageError(f"--size: expected a short side in pixels or H,W; found {text!r}")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def read_zones(path: Path | None) -> list[Any] | None:
    """Zones of a file, as `change.ignore` takes them; None stays None.

    Raises:
        UsageError: the file can't be read, or holds something else.
    """
    if path is None:
        return None
    from pydantic import ValidationError

    from deltascene.pipeline.config import Zone
    from deltascene.pipeline.safe_yaml import read_mapping
    from deltascene.pipeline.text import first_problem, shown

    try:
        data = read_mapping(path)
        if list(data) != ["zones"] or not isinstance(data["zones"], list):
            raise ValueError(f"expected `zones:` with a list; found {shown(data)}")
        for number, zone in enumerate(data["zones"], 1):
            try:
                Zone.model_validate(zone)
            except ValidationError as error:
                raise ValueError(f"zone {number}: {first_problem(error, Zone)}") from error
    except ValueError as error:
        raise UsageError(f"--ignore {path}: {error}") from error
    zones: list[Any] = data["zones"]
    return zones


def parse_time(text: str | None) -> float | None:
    """Seconds, MM:SS or HH:MM:SS, as seconds; None stays None.

    Raises:
        UsageError: the text has another form.
    """
    if text is None:
        return None
    if re.fullmatch(r"(\d+:){0,2}\d+(\.\d+)?", text) is None:
        raise UsageError(f"time: expected seconds, MM:SS or HH:MM:SS; found {text!r}")
    seconds = 0.0
    for part in text.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def parse_bytes(text: str | None) -> int | None:
    """A number of bytes such as `20GB`, `512 MB` or `1000`; None stays None.

    Raises:
        UsageError: the text has another form.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)b?\s*", text.lower())
    if match is None:
        raise UsageError(f"size: expected bytes such as 20GB; found {text!r}")
    scale: int = 1000 ** " kmgt".index(match[2] or " ")
    return round(float(match[1]) * scale)


def parse_save(text: str | None) -> dict[str, Any]:
    """Config keys of what is saved beside the arrays; empty where nothing is chosen.

    Raises:
        UsageError: an unknown output.
    """
    names = split_names(text)
    if names is None:
        return {}
    for name in names:
        if name not in _SAVED:
            raise UsageError(f"--save: expected some of {', '.join(_SAVED)}; found {name!r}")
    return {f"save.{name}": name in names for name in _SAVED if name != "arrays"}


def parse_budgets(texts: Sequence[str]) -> dict[str, float]:
    """Largest losses by region, from texts such as `moved.loss<=0.05`.

    Raises:
        UsageError: a text has another form.
    """
    budgets = {}
    for text in texts:
        match = _BUDGET.fullmatch(text.replace(" ", ""))
        if match is None:
            raise UsageError(f"--budget: expected whole.loss<=NUMBER or moved.loss<=NUMBER; found {text!r}")
        budgets[_REGION[match[1]]] = float(match[2])
    return budgets


def parse_goal(max_drift: str | None, max_ms: float | None, target_fps: float | None) -> Goal:
    """What a run's pilot is to keep to, from at most one of its options.

    Raises:
        UsageError: there are several, or a value can't be one.
    """
    given = {"--max-drift": max_drift, "--max-ms": max_ms, "--target-fps": target_fps}
    typed = [name for name, value in given.items() if value is not None]
    if len(typed) > 1:
        raise UsageError(f"{typed[0]}: expected one bound, on drift or on time; found {' and '.join(typed)}")
    for name, value in (("--max-ms", max_ms), ("--target-fps", target_fps)):
        if value is not None and not (value > 0 and isfinite(value)):
            raise UsageError(f"{name}: expected a number above 0; found {value:g}")
    return Goal(parse_max_drift(max_drift), max_ms if target_fps is None else round(1000 / target_fps, 6))


def parse_max_drift(text: str | None) -> dict[str, float]:
    """Bounds on drift from `5%` or `seg=3%,depth=8%`, as shares; a bound without a task is of their mean.

    Raises:
        UsageError: the text has another form, or a bound isn't above 0 and at most 100 %.
    """
    bounds: dict[str, float] = {}
    for part in (text or "").replace(" ", "").split(",") if text is not None else ():
        match = _DRIFT.fullmatch(part)
        most = float(match[2]) / (100 if match[3] else 1) if match else 0.0
        if match is None or not 0 < most <= 1 or (match[1] or MEAN) in bounds:
            raise UsageError(f"--max-drift: expected a bound such as 5%, or seg=3%,depth=8%; found {text!r}")
        bounds[match[1] or MEAN] = most
    return bounds
