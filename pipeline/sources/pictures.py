"""What image files say of time: whether one is animated, and which numbers the images of a sequence have."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from deltascene.cache.places import Place
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.units import count

_LONGEST_GAP = 10_000  # images; numbers further apart count something else
_MOST_DIGITS = 8  # longer numbers are times of day or stamps
_NUMBERS = re.compile("([0-9]+)")
_DATE = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")


def is_animated(path: Path) -> bool:
    """Whether a file is an animated picture by its bytes: a GIF, or a PNG, WebP or AVIF of several frames.

    Source: PNG specification, third edition, 11.3.6.2 (acTL, before IDAT); WebP container specification (VP8X, flag A);
    AV1 Image File Format 1.1.0, 6.2 (brand avis).
    """
    with path.open("rb") as file:
        head = file.read(21)
        if head[4:12] == b"ftypavis":
            return True
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png_frames(file) > 1
    return head.startswith((b"GIF87a", b"GIF89a")) or (
        head[:4] + head[8:16] == b"RIFFWEBPVP8X" and bool(head[20:] and head[20] & 2)
    )


def positions_of(paths: Sequence[Place]) -> tuple[int, ...]:
    """Positions of the images of a sequence on its clock by their numbers, from 0; empty where they are 0, 1, 2, ….

    Images have numbers if their names are the same but for one number, which counts up.
    """
    if len({name_around_numbers(path.name) for path in paths}) != 1:
        return ()
    names = [_NUMBERS.split(_stem(path.name)) for path in paths]
    columns = [column for column in zip(*(parts[1::2] for parts in names), strict=True) if len(set(column)) > 1]
    if len(columns) != 1 or max(len(number.lstrip("0")) for number in columns[0]) > _MOST_DIGITS:
        return ()
    numbers = [int(number) for number in columns[0]]
    steps = _steps(numbers)
    if all(map(_DATE.fullmatch, columns[0])) or min(steps) < 1 or max(steps) > _LONGEST_GAP or max(steps) == 1:
        return ()
    return tuple(number - numbers[0] for number in numbers)


def name_around_numbers(name: str) -> tuple[str, ...]:
    """The parts of a file's name between its numbers, without its suffix."""
    return tuple(_NUMBERS.split(_stem(name))[::2])


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def gaps_line(specs: Iterable[SourceSpec]) -> str:
    """Which sequences have gaps between their images, in one line; empty if none has."""
    gapped = [(spec.id, found) for spec in specs if spec.kind == "sequence" and (found := positions_of(spec.paths))]
    if not gapped:
        return ""
    (first, positions), more = gapped[0], len(gapped) - 1
    gaps = [step - 1 for step in _steps(positions) if step > 1]
    words = f"{len(gaps)} {'gap' if len(gaps) == 1 else 'gaps, the longest'} of {max(gaps)} images"
    others = f", and {count(more, 'more sequence')} {'has' if more == 1 else 'have'} gaps" if more else ""
    return f"{first}: its numbered images have {words}{others}; times follow the numbers"


def _steps(numbers: Sequence[int]) -> list[int]:
    return [after - before for before, after in pairwise(numbers)]


def _png_frames(file: BinaryIO) -> int:
    """Number of frames that a PNG announces before its picture; 1 if it isn't animated."""
    file.seek(8)
    while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
        if head[4:] == b"acTL":
            return int.from_bytes(file.read(4), "big")
        file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return 1
