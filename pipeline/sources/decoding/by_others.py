"""Pictures of a video file by decord or OpenCV, for those who ask for them and for stores that were begun with them.

Neither reports damage, decord makes up frames, and OpenCV leaves some out. So a file is read by them only if its first
frames are those that PyAV decodes, and every picture is judged by what PyAV decodes.
"""

import ctypes
import importlib.metadata
import importlib.util
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deltascene.pipeline.sources.decoding.by_av import av_pictures
from deltascene.pipeline.sources.decoding.by_image import opencv_name
from deltascene.pipeline.sources.errors import UnreadableSource
from deltascene.pipeline.sources.info import Picture, SourceInfo
from deltascene.stages.types import Image

_WORST_MEAN = 1.5
_WORST_PIXEL = 8
_SAMPLE = 12
_TOLERANCE_S = 1.1e-3
_BYTES_AT_ONCE = 24 << 20
_M_MMAP_THRESHOLD = -3  # malloc.h


def decord_name() -> str:
    """Name and version of decord; empty where it isn't installed (no wheel but for x86-64 Linux and Windows)."""
    if importlib.util.find_spec("decord") is None:
        return ""
    return f"decord {importlib.metadata.version('decord')}"


def read_by(decoder: str, path: Path, info: SourceInfo) -> SourceInfo:
    """What is known of a file, with another decoder than PyAV.

    Args:
        decoder: `decord` or `opencv`.
        path: the file.
        info: what PyAV tells of it.

    Raises:
        UnreadableSource: that decoder counts, times or colours its frames otherwise, or can't read it.
    """
    named = replace(info, decoder=decord_name() if decoder == "decord" else opencv_name())
    reason = "it is interlaced" if info.interlaced else ""
    if not reason and decoder == "decord":
        reason = _decord_reason(path, info)
    if not reason and not _agrees(path, named):
        reason = "its frames, times or colours differ from FFmpeg's"
    if reason:
        raise UnreadableSource(
            f"{path}: expected a file that {decoder} reads rightly, found that {reason}; leave the decoder at auto"
        )
    return named


def judged_pictures(path: Path, info: SourceInfo, wanted: range) -> Iterator[Picture]:
    """Decodes frames `wanted` of a file in order by the decoder that its `SourceInfo` names."""
    fetched = _fetched(path, info, wanted)
    for index, _, cause in av_pictures(path, info, wanted, convert=False):
        image = next(fetched)
        yield index, image, "corrupt" if image is None else cause


def _fetched(path: Path, info: SourceInfo, wanted: Sequence[int]) -> Iterator[Image | None]:
    return (_by_decord if info.decoder.startswith("decord") else _by_opencv)(path, info, wanted)


def _agrees(path: Path, info: SourceInfo) -> bool:
    is_decord = info.decoder.startswith("decord")
    after_seeking = info.table.keys[1:5].tolist() if is_decord else []  # OpenCV reads from the start
    indices = sorted({0, min(_SAMPLE, info.frames - 1), *after_seeking})
    for index, image in zip(indices, _fetched(path, info, indices), strict=True):
        _, own, cause = next(av_pictures(path, info, range(index, index + 1)))
        if is_decord and (image is None or (cause and index > 0)):
            continue  # whether it ran ahead into damage depends on its threads, and its fitness mustn't
        if image is None or own is None or image.shape != own.shape:
            return False
        difference = np.abs(image.astype(np.int16) - own)
        if float(difference.mean()) > _WORST_MEAN or int(difference.max()) > _WORST_PIXEL:
            return False
    return True


def _by_opencv(path: Path, info: SourceInfo, wanted: Sequence[int]) -> Iterator[Image | None]:
    """Pictures by OpenCV, from the start of the file on; none of a frame whose time is another than the file's."""
    import cv2

    capture: Any = cv2.VideoCapture(os.fspath(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    at, first_s, time_s = -1, math.nan, math.nan
    for index in wanted:
        while at < index and capture.grab():
            at, time_s = at + 1, float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1e3
            first_s = time_s if at == 0 else first_s
        # Where OpenCV skipped a frame, its count is wrong from there on, and its times show it.
        right = at == index and abs(time_s - first_s - float(info.table.pts_s[index])) <= _TOLERANCE_S
        done, picture = capture.retrieve() if right else (False, None)
        if not done or picture is None or picture.ndim != 3:
            yield None
        else:
            yield np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _by_decord(path: Path, info: SourceInfo, wanted: Sequence[int]) -> Iterator[Image | None]:
    """Pictures by decord, a group of pictures (or a part of it) in one call; none of a group with damage.

    decord decodes ahead of a slow reader without a bound (42 → 661 MB seen on a 2.4 MB clip) until it is sent back to
    the start, so `seek(0)` follows at once.
    """
    import decord

    _give_memory_back()
    reader: Any = None
    pictures, span = None, range(0)
    for index in wanted:
        if index not in span:
            span = _span(info, index)
            try:
                reader = reader or _open(path)
                pictures = np.asarray(reader.get_batch(span).asnumpy(), dtype=np.uint8)
                reader.seek(0)
            except (decord.DECORDError, RuntimeError):
                reader, pictures = None, None
        yield None if pictures is None else pictures[index - span.start]


def _decord_reason(path: Path, info: SourceInfo) -> str:
    """Why decord isn't fit for a file; empty if it counts and times its frames rightly."""
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
    except (decord.DECORDError, RuntimeError, AssertionError) as error:
        return f"decord can't open it: {str(error).splitlines()[0]}"
    late = bool(np.max(np.abs(pts_s - pts_s[0] - info.table.pts_s)) > _TOLERANCE_S)
    return "decord times the frames otherwise" if late else ""


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


def _give_memory_back() -> None:
    """Has glibc return every freed picture at once: decord's come and go in bursts, and the heap keeps the highest.

    Measured on 30 groups of 12 frames of 1280×720: 281 MB above the start without, 101 MB with.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 1 << 18)
