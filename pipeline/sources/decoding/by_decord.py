"""A video file by decord: whole groups of pictures, then back to the start.

decord decodes ahead of a slow reader without a bound (42 → 661 MB seen on a 2.4 MB clip) until it is sent back to the
start, so a group is fetched in one call and `seek(0)` follows at once. decord is imported here only.
"""

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.sources.decoding.by_opencv import Complaints, opencv_pictures
from deltascene.pipeline.sources.frame_table import FrameTable, Picture
from deltascene.stages.types import Image

_BYTES_AT_ONCE = 24 << 20
_LARGEST_PICTURE = 1 << 20


def decord_name() -> str:
    """Name and version of this decoder; empty where it isn't installed (no wheel but for x86-64 Linux and Windows)."""
    if importlib.util.find_spec("decord") is None:
        return ""
    return f"decord {importlib.metadata.version('decord')}"


def decord_sample(path: Path, table: FrameTable, indices: list[int]) -> list[Image] | str:
    """Some frames of a file, if decord counts and times its frames as the table does.

    Returns:
        RGB pictures [H, W, 3], or the reason why decord doesn't fit the file. No pictures, if decord ran ahead into
        damage: that depends on its threads, and the choice of a decoder mustn't.
    """
    import decord

    try:
        reader = _open(path)
    except (decord.DECORDError, RuntimeError, AssertionError) as error:
        return f"it can't open it: {str(error).splitlines()[0]}"
    if len(reader) != table.frames:
        return f"it counts {len(reader)} frames, there are {table.frames}"
    pts_s = np.asarray(reader.get_frame_timestamp(range(len(reader))))[:, 0].astype(np.float64)
    if np.max(np.abs(pts_s - pts_s[0] - table.pts_s)) > 1e-3:
        return "it times the frames otherwise"
    pictures: list[Image] = []
    for index in indices:
        fetched = _fetch(reader, range(index, index + 1))
        if fetched is None:
            return pictures
        pictures.append(fetched[0].copy())
    return pictures


def frames_at_once(image_bytes: int) -> int:
    """Frames that may be fetched in one call."""
    return max(_BYTES_AT_ONCE // image_bytes, 1)


def fits_in_memory(table: FrameTable, image_bytes: int) -> bool:
    """Whether decord stays within bounds: besides a group it keeps some hundred pictures of its own in pools.

    Measured with groups of 12, above an empty process: 200 MB at 640×480, 350 MB at 1280×720, flat from frame 2000 on;
    beside busy programs a third more.
    """
    return image_bytes <= _LARGEST_PICTURE and table.longest_group <= frames_at_once(image_bytes)


def decord_pictures(
    path: Path, table: FrameTable, wanted: range, complaints: Complaints, at_once: int, recheck: bool = True
) -> Iterator[Picture]:
    """Decode frames `wanted` of a file, a group of pictures (or `at_once` frames of it) in one call.

    decord neither says which frame of a group failed nor that it gave an earlier picture again. A group with an error,
    a complaint or two equal pictures in a row is gone through once more with OpenCV, which can tell.

    Args:
        path: the file.
        table: its frames; they have been compared with decord's.
        wanted: numbers of the frames to give.
        complaints: what FFmpeg said.
        at_once: most frames in one call.
        recheck: OpenCV can convert this file's pictures.
    """
    reader: Any = None
    index = wanted.start
    while index < wanted.stop:
        start, end = table.group_of(index) if table.longest_group > 1 else (0, table.frames)
        start += (index - start) // at_once * at_once
        stop = min(start + at_once, end)
        span = range(start, stop)
        reader = reader or _open(path)
        pictures = _fetch(reader, span)
        if pictures is None:
            reader = None
        doubts = complaints.damage() or pictures is None
        found = span_pictures(path, table, span, pictures, complaints, doubts, recheck)
        yield from (each for each in found if each[0] in wanted)
        index = stop


def span_pictures(
    path: Path,
    table: FrameTable,
    span: range,
    pictures: NDArray[np.uint8] | None,
    complaints: Complaints,
    doubts: bool,
    recheck: bool,
) -> Iterator[Picture]:
    """Tell good frames of a fetched span from others.

    Args:
        path: the file.
        table: its frames.
        span: numbers of the frames fetched.
        pictures: what decord gave for them [S, H, W, 3], or None.
        complaints: what FFmpeg said.
        doubts: something was wrong in the span.
        recheck: OpenCV can convert this file's pictures.
    """
    again = repeats(pictures) if pictures is not None else []
    if not doubts and not (again and recheck):
        assert pictures is not None
        yield from ((index, pictures[index - span.start], "") for index in span)
        return
    before: Image | None = None
    for index, own, cause in opencv_pictures(path, table, span, complaints, retrieve=recheck):
        at = index - span.start
        moved = own is not None and before is not None and not np.array_equal(own, before)
        if not cause and at in again and moved:
            cause = "repeated"
        yield index, own if pictures is None else pictures[at], cause
        before = own


def repeats(pictures: NDArray[np.uint8]) -> list[int]:
    """Positions of pictures equal to the one before them.

    Args:
        pictures: [S, H, W, 3]; a sparse grid is compared first, as nearly all of them differ.
    """
    sparse = pictures[:, ::31, ::17]
    alike = np.all(sparse[1:] == sparse[:-1], axis=(1, 2, 3))
    return [int(at) + 1 for at in np.flatnonzero(alike) if np.array_equal(pictures[at], pictures[at + 1])]


def _open(path: Path) -> Any:
    import decord

    return decord.VideoReader(os.fspath(path), num_threads=1)


def _fetch(reader: Any, span: range) -> NDArray[np.uint8] | None:
    import decord

    try:
        pictures = np.asarray(reader.get_batch(span).asnumpy(), dtype=np.uint8)
        reader.seek(0)
    except (decord.DECORDError, RuntimeError):
        return None
    return pictures
