"""Pictures of a video file by decord, for those who ask for it and for stores that were begun with it.

decord reports no damage and makes up frames, so each of its pictures is judged by what PyAV decodes. It also decodes
ahead of a slow reader without a bound (42 → 661 MB seen on a 2.4 MB clip) until it is sent back to the start, so a
group is fetched in one call and `seek(0)` follows at once. decord is imported here only, and only when it is used.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.sources.decoding.by_av import av_pictures
from deltascene.pipeline.sources.frame_table import Picture
from deltascene.pipeline.sources.info import SourceInfo
from deltascene.stages.types import Image

_BYTES_AT_ONCE = 24 << 20
_M_MMAP_THRESHOLD = -3  # malloc.h


def decord_name() -> str:
    """Name and version of this decoder; empty where it isn't installed (no wheel but for x86-64 Linux and Windows)."""
    if importlib.util.find_spec("decord") is None:
        return ""
    return f"decord {importlib.metadata.version('decord')}"


def decord_sample(path: Path, info: SourceInfo, indices: list[int]) -> list[Image] | str:
    """Some pictures of a file, if decord counts and times its frames rightly; else the reason why it doesn't.

    Fewer pictures, if decord ran ahead into damage: that depends on its threads, and its fitness mustn't.
    """
    if not decord_name():
        return "it isn't installed"
    if info.table.longest_group > _frames_at_once(info):
        return "its groups of pictures are long or its pictures large, and decord keeps whole groups in memory"
    import decord

    try:
        reader = _open(path)
        if len(reader) != info.frames:
            return f"decord counts {len(reader)} frames, there are {info.frames}"
        pts_s = np.asarray(reader.get_frame_timestamp(range(len(reader))))[:, 0].astype(np.float64)
        if np.max(np.abs(pts_s - pts_s[0] - info.table.pts_s)) > 1e-3:
            return "decord times the frames otherwise"
    except (decord.DECORDError, RuntimeError, AssertionError) as error:
        return f"decord can't open it: {str(error).splitlines()[0]}"
    pictures: list[Image] = []
    with suppress(decord.DECORDError, RuntimeError):
        pictures.extend(_fetch(reader, range(index, index + 1))[0].copy() for index in indices)
    return pictures


def decord_pictures(path: Path, info: SourceInfo, wanted: range) -> Iterator[Picture]:
    """Decodes frames `wanted` of a file in order, a group of pictures (or a part of it) in one call.

    Args:
        path: the file.
        info: what is known of it; decord's count and times of its frames have been compared.
        wanted: numbers of the frames to give.
    """
    import decord

    _give_memory_back()
    reader: Any = None
    nothing = np.empty((0, 0, 0, 3), dtype=np.uint8)
    pictures, span = nothing, range(0)
    for index, _, cause in av_pictures(path, info, wanted, convert=False):
        if index not in span:
            span = _span(info, index)
            try:
                reader = reader or _open(path)
                pictures = _fetch(reader, span)
            except (decord.DECORDError, RuntimeError):
                reader, pictures = None, nothing
        found = len(pictures) > 0
        yield index, pictures[index - span.start] if found else None, cause if found else "corrupt"


def _span(info: SourceInfo, index: int) -> range:
    """Numbers of the frames that are fetched together with one."""
    keys, group, at_once = info.table.keys, info.table.group_of(index), _frames_at_once(info)
    start = int(keys[group]) if group >= 0 and info.table.longest_group > 1 else 0
    end = int(keys[group + 1]) if info.table.longest_group > 1 and group + 1 < len(keys) else info.frames
    start += (index - start) // at_once * at_once
    return range(start, min(start + at_once, end))


def _frames_at_once(info: SourceInfo) -> int:
    return max(_BYTES_AT_ONCE // (3 * info.width * info.height), 1)


def _open(path: Path) -> Any:
    import decord

    return decord.VideoReader(os.fspath(path), num_threads=1)


def _fetch(reader: Any, span: range) -> NDArray[np.uint8]:
    pictures = np.asarray(reader.get_batch(span).asnumpy(), dtype=np.uint8)
    reader.seek(0)
    return pictures


def _give_memory_back() -> None:
    """Has glibc return every freed picture at once: decord's come and go in bursts, and the heap keeps the highest.

    Measured on 30 groups of 12 frames of 1280×720: 281 MB above the start without, 101 MB with.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 1 << 18)
