"""A video file by OpenCV: its packets, its first frames, and its pictures one at a time in constant memory."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deltascene.pipeline.sources.decoding.container import container_of, is_cut_off
from deltascene.pipeline.sources.errors import UnreadableSource
from deltascene.pipeline.sources.frame_table import FrameTable, Packets, Picture
from deltascene.stages.types import Image

_PATIENCE = 64
"""Packets that may fail beyond those known to be left, before the file counts as ended."""
_MOST_FAILURES = 200_000
_LEAST_LEAD = 17
"""OpenCV seeks to 16 frames before its target and reads on from there."""


class Complaints(Protocol):
    """What FFmpeg said while it worked."""

    def damage(self) -> bool:
        """Whether it complained of damage since it was last asked."""

    def early_end(self) -> bool:
        """Whether it said that the file is cut off, since it was last asked."""


def opencv_name() -> str:
    """Name and version of this decoder."""
    import cv2

    return f"opencv {cv2.__version__}"


def open_capture(path: Path, raw: bool = False) -> Any:
    """Open a file with one decoding thread, so that what FFmpeg says belongs to the frame at hand.

    Args:
        path: the file.
        raw: give packets instead of pictures.

    Raises:
        UnreadableSource: FFmpeg can't open it.
    """
    import cv2

    mode = [cv2.CAP_PROP_FORMAT, -1] if raw else [cv2.CAP_PROP_N_THREADS, 1]
    capture = cv2.VideoCapture(os.fspath(path), cv2.CAP_FFMPEG, mode)
    if not capture.isOpened():
        raise UnreadableSource(f"{path}: expected a video that FFmpeg can open, found {_looks_like(path)}")
    return capture


def scan_packets(path: Path, complaints: Complaints) -> Packets:
    """Read all packets of a file's video stream without decoding them.

    Raises:
        UnreadableSource: it isn't a video, or holds no frame.
    """
    import cv2

    capture = open_capture(path, raw=True)
    claimed = int(np.clip(capture.get(cv2.CAP_PROP_FRAME_COUNT), 0, 1 << 40))
    times_ms: list[float] = []
    keys: list[bool] = []
    unread = failed = 0
    while failed <= min(max(claimed - len(times_ms), 0), _MOST_FAILURES) + _PATIENCE:
        if not capture.grab():
            failed += 1
            continue
        unread, failed = unread + failed, 0
        times_ms.append(capture.get(cv2.CAP_PROP_POS_MSEC))
        keys.append(capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME) > 0)
    capture.release()
    if not times_ms:
        raise UnreadableSource(f"{path}: expected video frames, found a container without any; is the copy complete?")
    container, cut_off = container_of(path), is_cut_off(path) or complaints.early_end()
    return Packets(
        np.array(times_ms),
        np.array(keys),
        unread,
        claimed,
        exact=container in ("mp4", "avi"),
        numbered=container == "avi",
        cut_off=cut_off,
    )


def opencv_pictures(
    path: Path, table: FrameTable, wanted: range, complaints: Complaints, retrieve: bool = True
) -> Iterator[Picture]:
    """Decode frames `wanted` of a file in order, each exactly once.

    Frames from a complaint on are `corrupt` up to the next keyframe, as they build on each other. One that never comes
    is `missing` where its packet is gone or was never meant to be shown, and `corrupt` where decoding failed.

    Args:
        path: the file.
        table: its frames.
        wanted: numbers of the frames to give.
        complaints: what FFmpeg said.
        retrieve: convert pictures to RGB; without, only causes are found out.
    """
    import cv2

    if not wanted:
        return
    capture, expected, grabbed = _start(path, table, wanted[0], complaints)
    damaged_until = failed = 0
    try:
        while expected <= wanted[-1]:
            grabbed = grabbed or capture.grab()
            if complaints.damage() or not grabbed:
                damaged_until = max(damaged_until, table.damaged_until(expected + failed))
            if not grabbed:
                failed += 1
                if failed <= table.frames - expected + _PATIENCE:
                    continue
                index = table.frames
            elif table.timed:
                index = table.index_at(capture.get(cv2.CAP_PROP_POS_MSEC), expected)
            else:
                index = min(expected + failed, table.frames - 1)
            for absent in range(expected, min(index, wanted.stop)):
                if absent in wanted:
                    gone = table.lost[absent] or absent >= damaged_until
                    yield absent, None, "missing" if gone else "corrupt"
            if index in wanted:
                yield _judged(capture, index, index < damaged_until or index == table.torn, complaints, retrieve)
            expected, failed, grabbed = index + 1, 0, False
    finally:
        capture.release()


def _judged(capture: Any, index: int, damaged: bool, complaints: Complaints, retrieve: bool) -> Picture:
    image = retrieve_rgb(capture, complaints) if retrieve else None
    unsound = damaged or (image is None and retrieve)
    return index, image, "corrupt" if unsound else ""


def retrieve_rgb(capture: Any, complaints: Complaints) -> Image | None:
    """The grabbed picture as RGB [H, W, 3]; None if FFmpeg couldn't convert it.

    OpenCV says yes and hands out whatever its buffer held when swscale refuses (interlaced frames; seen in OpenCV 5.0).
    """
    import cv2

    _, picture = capture.retrieve()
    if complaints.damage() or picture is None or picture.ndim != 3:
        return None
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _start(path: Path, table: FrameTable, first: int, complaints: Complaints) -> tuple[Any, int, bool]:
    """Open a file shortly before a frame, so that what follows is what reading from the start would give.

    Returns:
        The capture, the number of the frame that is due, and whether one is already grabbed.
    """
    key = table.group_of(first)[0] if table.timed else 0
    if key > 0:
        capture = open_capture(path)
        complaints.damage()
        if table.closed and first - key >= _LEAST_LEAD:
            landed = _seek(capture, table, first)
            if landed is not None and key <= landed <= first and not complaints.damage():
                return capture, landed, True
        for back in (table.delay + 2, 64, 512):
            landed = _seek(capture, table, max(key - back, 0))
            expected = None if landed is None else _roll_to_key(capture, table, landed, key, complaints)
            if expected is not None:
                return capture, expected, True
        capture.release()
    capture = open_capture(path)
    complaints.damage()
    return capture, 0, False


def _seek(capture: Any, table: FrameTable, target: int) -> int | None:
    """Seek close to a frame and grab one; its number, or None when the file gave none."""
    import cv2

    capture.set(cv2.CAP_PROP_POS_MSEC, float(table.times_ms[target]))
    return table.index_at(capture.get(cv2.CAP_PROP_POS_MSEC), 0) if capture.grab() else None


def _roll_to_key(capture: Any, table: FrameTable, landed: int, key: int, complaints: Complaints) -> int | None:
    """Read on to a keyframe, and forget complaints of what comes before it.

    Returns:
        The frame that was due when the keyframe was grabbed; None if it can't be reached, may be damaged, or isn't
        whole in itself (periodic intra refresh).
    """
    import cv2

    due = landed
    if landed > key or (landed >= key - table.delay and complaints.damage()):
        return None
    while landed < key:
        if landed < key - table.delay:
            complaints.damage()
        due = landed + 1
        if not capture.grab():
            return None
        landed = table.index_at(capture.get(cv2.CAP_PROP_POS_MSEC), 0)
    return due if landed == key and is_plain(capture) else None


def is_plain(capture: Any) -> bool:
    """Whether the grabbed frame needs no other, as far as the decoder says."""
    import cv2

    return chr(int(capture.get(cv2.CAP_PROP_FRAME_TYPE))) not in "PBSpb"


def _looks_like(path: Path) -> str:
    if container_of(path) == "mp4" and is_cut_off(path):
        return "an MP4 file that is cut off before its index; copy it again"
    return f"{path.stat().st_size} bytes of something else"
