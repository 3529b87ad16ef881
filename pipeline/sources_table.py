"""The frames of a video file by its packets alone: how many, when, and which are keyframes. Nothing is decoded."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.sources_errors import UnreadableSource


@dataclass(frozen=True)
class FrameTable:
    """What the container says about each frame, in presentation order.

    Attributes:
        pts: presentation times in ticks of the container [F], int64, ascending.
        pts_s: the same in seconds from the first frame [F], float64.
        keys: frame numbers of the keyframes [K], int64; a decoder can start at any of them.
        closed: no frame before a keyframe needs anything after it.
    """

    pts: NDArray[np.int64]
    pts_s: NDArray[np.float64]
    keys: NDArray[np.int64]
    closed: bool

    @property
    def frames(self) -> int:
        """Number of frames that have a packet."""
        return len(self.pts)

    def group_of(self, index: int) -> tuple[int, int]:
        """First frame of the group of pictures that holds a frame, and the first one after it."""
        at = int(np.searchsorted(self.keys, index, side="right"))
        start = int(self.keys[at - 1]) if at > 0 else 0
        stop = int(self.keys[at]) if at < len(self.keys) else self.frames
        return start, stop

    @property
    def longest_group(self) -> int:
        """Frames of the longest group of pictures."""
        return int(np.diff([0, *self.keys.tolist(), self.frames]).max())


def scan(path: Path) -> FrameTable:
    """Read the packets of a file's first video stream.

    Raises:
        UnreadableSource: no container that FFmpeg knows, or no video in it.
    """
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    if not capture.isOpened():
        raise UnreadableSource(f"{path}: expected a video that FFmpeg can open, found {_found(path)}")
    packets: list[tuple[float, float, bool]] = []
    while capture.grab():
        key = capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME) > 0
        packets.append((capture.get(cv2.CAP_PROP_PTS), capture.get(cv2.CAP_PROP_POS_MSEC), key))
    capture.release()
    if not packets:
        raise UnreadableSource(f"{path}: expected video frames, found a container without any; is the copy complete?")
    return _table(packets)


def _table(packets: list[tuple[float, float, bool]]) -> FrameTable:
    decode_order = np.array([pts for pts, _, _ in packets]).astype(np.int64)
    order = np.argsort(decode_order, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    key = np.array([key for _, _, key in packets])
    ms = np.array([ms for _, ms, _ in packets])[order]
    before = np.maximum.accumulate(rank)
    at = np.flatnonzero(key)
    closed = bool(np.all(before[at[at > 0] - 1] < rank[at[at > 0]]))
    # A leading frame comes after its keyframe in the file and before it on the screen.
    after = np.minimum.accumulate(rank[::-1])[::-1]
    closed = closed and bool(np.all(after[at] == rank[at]))
    return FrameTable(decode_order[order], (ms - ms[0]) / 1e3, np.sort(rank[at]), closed)


def _found(path: Path) -> str:
    size = path.stat().st_size
    return "an empty file" if size == 0 else f"{size} bytes of something else"
