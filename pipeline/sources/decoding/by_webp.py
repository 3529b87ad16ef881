"""An animated WebP, which FFmpeg can't decode: its frames one by one by OpenCV, put together here.

As in a browser: over white, the file's own background colour isn't used, and a duration of up to 10 ms means 100 ms.

Source: WebP Container Specification, "Extended File Format" and "Animation" (RFC 9649, 2.7).
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.sources.decoding.by_image import decode_image, still_info
from deltascene.pipeline.sources.errors import UnreadableSource
from deltascene.pipeline.sources.frame_table import Picture
from deltascene.pipeline.sources.info import LARGEST_PICTURE, SourceInfo
from deltascene.stages.types import Image

_SHORTEST_MS = 10
_TOO_SHORT_MS = 100
_WHITE = 255


@dataclass(frozen=True)
class _Part:
    """A frame of the file: a rectangle of the picture.

    Attributes:
        at: where its data start in the file.
        size: bytes of its data.
        place: rows and columns that it covers.
        duration_ms: how long it is shown.
        blends: it is laid over what is there; else it replaces it.
        disposed: its rectangle is emptied after it.
        opaque: none of its pixels is transparent.
    """

    at: int
    size: int
    place: tuple[slice, slice]
    duration_ms: int
    blends: bool
    disposed: bool
    opaque: bool


@dataclass(frozen=True)
class _Animation:
    """Size of the picture [H, W], its parts in order, and whether the file ends before its last one does."""

    size: tuple[int, int]
    parts: list[_Part]
    cut_off: bool


def is_webp(path: Path) -> bool:
    """Whether a file starts like a WebP."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[:4] == b"RIFF" and head[8:] == b"WEBP"


def examine_animation(path: Path) -> SourceInfo:
    """Learn the times of an animated WebP without decoding.

    Raises:
        UnreadableSource: it holds no picture, or too large ones.
    """
    with path.open("rb") as file:
        found = _index(path, file)
    durations_ms = np.array([each.duration_ms for each in found.parts], dtype=np.float64)
    ends_ms = np.cumsum(durations_ms)
    total_ms = int(ends_ms[-1])
    rate = Fraction(1000 * len(durations_ms), total_ms)
    return still_info(found.size, rate, total_ms / 1e3, np.asarray(ends_ms - durations_ms), found.cut_off)


def animation_pictures(path: Path, wanted: range) -> Iterator[Picture]:
    """Compose pictures `wanted` of an animated WebP; one that builds on a damaged frame is `corrupt`.

    Composing starts at the last frame before them that needs no other.
    """
    if not wanted:
        return
    with path.open("rb") as file:
        found = _index(path, file)
        canvas = np.full((*found.size, 3), _WHITE, dtype=np.uint8)
        whole = True
        start = max(number for number in range(min(wanted[0] + 1, len(found.parts))) if _is_key(found, number))
        for index in range(start, min(wanted[-1] + 1, len(found.parts))):
            part = found.parts[index]
            if _is_key(found, index):
                canvas[:], whole = _WHITE, True
            whole = _draw(canvas, part, _decode(file, part)) and whole
            if index in wanted:
                yield index, canvas.copy() if whole else None, "" if whole else "corrupt"
            if part.disposed:
                canvas[part.place] = _WHITE


def _is_key(found: _Animation, number: int) -> bool:
    """Whether a frame needs none before it."""
    part, before = found.parts[number], found.parts[max(number - 1, 0)]
    covers = _covers(part, found.size) and (part.opaque or not part.blends)
    return number == 0 or covers or (before.disposed and _covers(before, found.size))


def _covers(part: _Part, size: tuple[int, int]) -> bool:
    return part.place == (slice(0, size[0]), slice(0, size[1]))


def _draw(canvas: Image, part: _Part, picture: NDArray[np.uint8] | None) -> bool:
    """Whether a frame's picture [h, w, 3 or 4] was there to be drawn onto the canvas, which is written to."""
    below = canvas[part.place]
    if picture is None or picture.shape[:2] != below.shape[:2]:
        return False
    rgb = picture[..., 2::-1]
    if picture.shape[2] == 4:
        alpha = picture[..., 3:].astype(np.uint16)
        under = below if part.blends else _WHITE
        rgb = ((rgb * alpha + under * (255 - alpha) + 127) // 255).astype(np.uint8)
    below[:] = rgb
    return True


def _decode(file: BinaryIO, part: _Part) -> NDArray[np.uint8] | None:
    """A frame's own picture, BGR or BGRA, read as a file of one picture."""
    import cv2

    file.seek(part.at)
    data = file.read(part.size)
    height, width = (each.stop - each.start for each in part.place)
    head = b"VP8X" + struct.pack("<II", 10, 0 if part.opaque else 0x10) + _triple(width - 1) + _triple(height - 1)
    encoded = b"RIFF" + struct.pack("<I", 4 + len(head) + len(data)) + b"WEBP" + head + data
    picture = decode_image(encoded, cv2.IMREAD_UNCHANGED)
    return None if picture is None or picture.ndim != 3 else picture.astype(np.uint8, copy=False)


def _index(path: Path, file: BinaryIO) -> _Animation:
    end, at = os.fstat(file.fileno()).st_size, 12
    promised = 8 + struct.unpack("<I", file.read(8)[4:].ljust(4, b"\0"))[0]
    size, parts = (0, 0), []
    while at + 8 <= min(end, promised):
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        head = file.read(min(length, 64))
        if name == b"VP8X" and len(head) >= 10:
            size = 1 + _number(head[7:10]), 1 + _number(head[4:7])
        elif name == b"ANMF" and len(head) >= 32 and at + 8 + length <= end:
            parts.append(_part(at + 8, length, head))
        at += 8 + length + length % 2
    if size[0] * size[1] > LARGEST_PICTURE:
        raise UnreadableSource(
            f"{path}: expected pictures of at most {LARGEST_PICTURE} pixels, found {size[1]}x{size[0]}; scale it down"
        )
    inside = [each for each in parts if each.place[0].stop <= size[0] and each.place[1].stop <= size[1]]
    if not inside:
        raise UnreadableSource(f"{path}: expected an animated WebP, found none of its frames; is the copy complete?")
    return _Animation(size, inside, promised > end or len(inside) < len(parts))


def _part(at: int, length: int, head: bytes) -> _Part:
    left, top, width, height, duration_ms = (_number(head[start : start + 3]) for start in range(0, 15, 3))
    place = slice(2 * top, 2 * top + height + 1), slice(2 * left, 2 * left + width + 1)
    lossless_alpha = head[16:20] == b"VP8L" and bool(
        head[28] & 0x10
    )  # RFC 9649, 3.4: alpha_is_used, after 14 + 14 bits
    return _Part(
        at + 16,
        length - 16,
        place,
        duration_ms if duration_ms > _SHORTEST_MS else _TOO_SHORT_MS,
        blends=not head[15] & 2,
        disposed=bool(head[15] & 1),
        opaque=head[16:20] == b"VP8 " or (head[16:20] == b"VP8L" and not lossless_alpha),
    )


def _number(three: bytes) -> int:
    return int.from_bytes(three, "little")


def _triple(number: int) -> bytes:
    return number.to_bytes(3, "little")
