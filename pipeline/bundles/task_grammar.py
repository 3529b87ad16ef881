"""The grammar of `--task NAME:KIND[:CHANNELS]`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from deltascene.pipeline.bundles.entry import TaskEntry, check_task_name
from deltascene.pipeline.errors import UsageError, nearest

_KINDS: tuple[str, ...] = get_args(TaskEntry.model_fields["kind"].annotation)
_CHANNELS = {"scalar": 1, "vector": 3, "heatmaps": 1}  # where none are given; classes have no default


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as given by `NAME:KIND[:CHANNELS]`."""

    name: str
    kind: str
    channels: int


def parse_tasks(texts: Sequence[str], base: str | None = None) -> list[TaskSpec]:
    """Tasks as given on the command line, the base first.

    Args:
        texts: `NAME:KIND[:CHANNELS]` each.
        base: name of the base task; None is the first.

    Raises:
        UsageError: one of them isn't valid, two have the same name, or none is the base.
    """
    specs = [_parse_task(text) for text in texts]
    names = [spec.name for spec in specs]
    if not specs:
        raise UsageError("--task: expected at least one NAME:KIND[:CHANNELS]; found none")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--task: expected each name once; found {name!r} twice")
    base = names[0] if base is None else base
    if base not in names:
        raise UsageError(f"--base: expected one of {', '.join(names)}; found {base!r}{nearest(base, names)}")
    return sorted(specs, key=lambda spec: spec.name != base)


def _parse_task(text: str) -> TaskSpec:
    name, *rest = text.split(":")
    if not 1 <= len(rest) <= 2:
        raise UsageError(f"--task: expected NAME:KIND[:CHANNELS], e.g. hands:heatmaps:21; found {text!r}")
    try:
        check_task_name(name)
    except ValueError as error:
        raise UsageError(f"--task {text}: {error}; found {name!r}") from error
    kind = rest[0]
    if kind not in _KINDS:
        raise UsageError(f"--task {text}: expected kind {', '.join(_KINDS)}; found {kind!r}{nearest(kind, _KINDS)}")
    return TaskSpec(name, kind, _parse_channels(text, kind, rest[1:]))


def _parse_channels(text: str, kind: str, rest: Sequence[str]) -> int:
    if not rest:
        if kind not in _CHANNELS:
            raise UsageError(f"--task {text}: expected a number of classes, {text}:NUMBER; found none")
        return _CHANNELS[kind]
    number = rest[0]
    if not (number.isascii() and number.isdigit()) or not 1 <= int(number) <= 65535:
        raise UsageError(f"--task {text}: expected a number of channels, 1 to 65535; found {number!r}")
    if kind == "scalar" and int(number) != 1:
        raise UsageError(f"--task {text}: expected 1 channel, as kind scalar has one; found {number}")
    return int(number)
