"""Boxes around the marked parts of a mask, so that only they need work."""

from collections.abc import Sequence
from typing import Any

import cv2
from numpy.typing import NDArray

MOST_BOXES = 12  # of more than that, one around all is taken, so that finding them takes no time

Box = tuple[slice, slice]  # rows and columns
_Corners = tuple[int, int, int, int]  # top, left, bottom, right


def boxes_around(marked: NDArray[Any]) -> list[Box]:
    """Boxes around the connected parts of a mask [h, w]; two that one box holds in no more space become that one."""
    _, _, found, _ = cv2.connectedComponentsWithStats(marked)
    parts = [(top, left, top + height, left + width) for left, top, width, height, _ in found[1:].tolist()]
    kept: list[_Corners] = []
    for part in [_around(parts)] if len(parts) > MOST_BOXES else parts:
        box = part
        while inside := [other for other in kept if _area(_around([box, other])) <= _area(box) + _area(other)]:
            kept.remove(inside[0])
            box = _around([box, inside[0]])
        kept.append(box)
    return [(slice(top, bottom), slice(left, right)) for top, left, bottom, right in kept]


def widened(box: Box, margin: int, size: Sequence[int]) -> Box:
    """A box with a margin on all sides, inside of a picture of a size."""
    rows, columns = (
        slice(max(0, part.start - margin), min(side, part.stop + margin)) for part, side in zip(box, size, strict=True)
    )
    return rows, columns


def scaled(box: Box, size: Sequence[int], onto: Sequence[int]) -> Box:
    """The smallest box in a picture of another size that holds all of a box."""
    rows, columns = (
        slice(part.start * side // before, -(-part.stop * side // before))
        for part, before, side in zip(box, size, onto, strict=True)
    )
    return rows, columns


def _around(parts: Sequence[_Corners]) -> _Corners:
    tops, lefts, bottoms, rights = zip(*parts, strict=True)
    return min(tops), min(lefts), max(bottoms), max(rights)


def _area(corners: _Corners) -> int:
    return (corners[2] - corners[0]) * (corners[3] - corners[1])
