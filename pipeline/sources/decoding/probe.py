"""Look at a file: its frames, size and rate, and which decoder reads it rightly. Runs in the decoder process."""

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.sources.decoding.by_decord import decord_name, decord_sample, fits_in_memory
from deltascene.pipeline.sources.decoding.by_opencv import (
    Complaints,
    is_plain,
    open_capture,
    opencv_name,
    retrieve_rgb,
    scan_packets,
)
from deltascene.pipeline.sources.decoding.container import container_of
from deltascene.pipeline.sources.errors import UnreadableSource
from deltascene.pipeline.sources.frame_table import FrameTable, build_table
from deltascene.pipeline.sources.info import LARGEST_PICTURE, Decoder, SourceInfo
from deltascene.stages.types import Image

_LONGEST_GROUP = 64
_FEW_FRAMES = 24
_WORST_MEAN = 1.5
_WORST_PIXEL = 8


@dataclass(frozen=True)
class _Trial:
    """The first frames of a file as OpenCV decodes them.

    Attributes:
        shown_ms: their times [n].
        first: the first picture, or None if OpenCV couldn't convert one of them.
        size: height and width of an upright picture.
        later: the picture at a later keyframe, if asked for and reached.
        plain_key: that keyframe is whole in itself.
        cut_ms: time at the start that an edit list cuts off.
    """

    shown_ms: NDArray[np.float64]
    first: Image | None
    size: tuple[int, int]
    later: Image | None
    plain_key: bool
    cut_ms: float


def examine(path: Path, decoder: Decoder, complaints: Complaints) -> SourceInfo:
    """Learn all about a video file that can be learnt from its packets and first frames.

    Raises:
        UnreadableSource: no picture comes out of it, or not with the decoder asked for.
    """
    packets = scan_packets(path, complaints)
    rough = build_table(packets, np.zeros(0))
    capture = open_capture(path)
    try:
        _refuse_too_large(path, _size(capture))
        asked = decoder == "decord" and rough.longest_group <= _LONGEST_GROUP
        short = len(rough.keys) > 1 and (asked or _fits(rough, _size(capture)))
        second = int(rough.keys[1]) if short else None
        trial = _decode_some(capture, path, rough, second, complaints)
        rate, rotation = _rate(capture, rough), _rotation(capture)
    finally:
        capture.release()
    table = build_table(packets, trial.shown_ms, trial.cut_ms)
    if np.any(np.diff(table.times_ms) <= 0):
        table = replace(table, times_ms=np.arange(table.frames, dtype=np.float64) * float(1000 / rate))
    hidden = len(packets.times_ms) + int(table.lost.sum()) - table.frames
    promised = packets.claimed - hidden if packets.truncated else table.frames
    height, width = trial.size
    name = _choose(path, table, trial, second, decoder, promised > table.frames)
    duration_s = float(table.pts_s[-1]) + float(1 / rate)
    claimed = max(promised, table.frames)
    frames, converts = table.frames, trial.first is not None
    return SourceInfo(width, height, rate, frames, claimed, duration_s, name, rotation, converts, table)


def _decode_some(capture: Any, path: Path, table: FrameTable, second: int | None, complaints: Complaints) -> _Trial:
    import cv2

    shown_ms: list[float] = []
    first: Image | None = None
    later: Image | None = None
    plain_start, plain_key, converts, failed = True, True, True, 0
    enough = min(table.frames, _FEW_FRAMES if second is None else second + 1)
    while len(shown_ms) < enough and failed <= table.frames:
        if not capture.grab():
            failed += 1
            continue
        shown_ms.append(capture.get(cv2.CAP_PROP_POS_MSEC))
        complaints.damage()
        image = retrieve_rgb(capture, complaints)
        converts = converts and image is not None
        if len(shown_ms) == 1:
            first, plain_start = image, is_plain(capture)
        elif len(shown_ms) - 1 == second:
            later, plain_key = image, is_plain(capture)
    if not shown_ms:
        code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("ascii", "replace")
        raise UnreadableSource(
            f"{path}: expected a video that can be decoded, found {table.frames} packets ({code}) and no picture"
        )
    cut_ms = 0.0 if plain_start or table.keys[:1] != [0] else _cut_off(capture, table)
    size = _size(capture) if first is None else first.shape[:2]
    return _Trial(np.array(shown_ms), first if converts else None, size, later, plain_key, cut_ms)


def _size(capture: Any) -> tuple[int, int]:
    import cv2

    return int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))


def _refuse_too_large(path: Path, size: tuple[int, int]) -> None:
    if size[0] * size[1] > LARGEST_PICTURE:
        raise UnreadableSource(
            f"{path}: expected pictures of at most {LARGEST_PICTURE} pixels, found {size[1]}x{size[0]}; scale it down"
        )


def _cut_off(capture: Any, table: FrameTable) -> float:
    """How much later the last packet says it is than its frame does, which counts from the start of the edit list.

    The first packet being a keyframe and the first frame shown not told that there is one.
    """
    import cv2

    capture.set(cv2.CAP_PROP_POS_MSEC, max(float(table.times_ms[-1]) - 2000, 0))
    last_ms = float(table.times_ms[-1])
    while capture.grab():
        last_ms = float(capture.get(cv2.CAP_PROP_POS_MSEC))
    return max(float(table.times_ms[-1]) - last_ms, 0.0)


def _rate(capture: Any, table: FrameTable) -> Fraction:
    import cv2

    rate = float(capture.get(cv2.CAP_PROP_FPS))
    if not 0 < rate < 1e4:
        rate = (table.frames - 1) / float(table.pts_s[-1]) if table.pts_s[-1] > 0 else 30.0
    return Fraction(rate).limit_denominator(100_000)


def _rotation(capture: Any) -> int:
    import cv2

    return round(float(capture.get(cv2.CAP_PROP_ORIENTATION_META))) % 360


def _choose(path: Path, table: FrameTable, trial: _Trial, second: int | None, decoder: Decoder, truncated: bool) -> str:
    """The decoder of a file, by the file alone.

    Raises:
        UnreadableSource: none reads it rightly.
    """
    readable = trial.first is not None
    if decoder == "opencv" and readable:
        return opencv_name()
    reason = "" if decoder != "opencv" else "OpenCV was asked for"
    reason = reason or _why_not_decord(path, table, trial, second, truncated)
    if not reason and decoder == "auto" and readable and not _fits(table, trial.size):
        reason = "its pictures are large or its groups long"
    if not reason:
        return decord_name()
    if not readable:
        raise UnreadableSource(
            f"{path}: expected frames that OpenCV can convert, found interlaced or unknown ones, and decord can't help "
            f"({reason}); way out: ffmpeg -i {path.name} -vf bwdif -pix_fmt yuv420p OUT.mp4"
        )
    if decoder == "decord":
        raise UnreadableSource(f"{path}: expected a file for decord, found that {reason}; leave the decoder at auto")
    return opencv_name()


def _fits(table: FrameTable, size: tuple[int, int]) -> bool:
    return table.longest_group <= _LONGEST_GROUP and fits_in_memory(table, 3 * size[0] * size[1])


def _why_not_decord(path: Path, table: FrameTable, trial: _Trial, second: int | None, truncated: bool) -> str:
    """Why decord would give other frames than OpenCV; empty if it gives the same."""
    if not decord_name():
        return "decord isn't installed"
    container = container_of(path)
    if container not in ("mp4", "matroska") and not (container == "avi" and table.longest_group == 1):
        return "decord is exact in MP4, Matroska and MJPEG AVI only"
    if truncated or table.lost.any():
        return "frames are missing"
    if not table.timed or not table.closed or not trial.plain_key:
        return "groups of pictures lean on each other, or times are wrong"
    pictures = decord_sample(path, table, [0] if trial.later is None or second is None else [0, second])
    if isinstance(pictures, str):
        return pictures
    for own, other in zip(pictures, (trial.first, trial.later), strict=False):
        if other is not None and not _agree(own, other):
            return "its colours or frames differ from OpenCV's"
    return ""


def _agree(one: Image, other: Image) -> bool:
    if one.shape != other.shape:
        return False
    difference = np.abs(one.astype(np.int16) - other)
    return float(difference.mean()) <= _WORST_MEAN and int(difference.max()) <= _WORST_PIXEL
