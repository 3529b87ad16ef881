"""What is known of a source before it is decoded: size, rate, and number, time and packet of every frame."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deltascene.stages.types import Image

Decoder = Literal["auto", "av", "decord", "opencv"]

Picture = tuple[int, Image | None, str]
"""Frame number, RGB [H, W, 3] or None, and why it isn't a good frame (empty if it is)."""

LARGEST_PICTURE = 1 << 26
"""Pixels of the largest picture that is decoded, twice 8K; a header can declare more, which would take gigabytes."""


@dataclass(frozen=True, eq=False)
class FrameTable:
    """Frames of a source in the order of presentation. A packet is one unit of a file's video stream.

    Attributes:
        pts_s: presentation times in seconds from the first frame [F], float64, ascending.
        packets: number of the packet that holds a frame, counted from 0 in the order of the file [F], int64.
        orphans: whether a frame needs one that isn't in the file, so that it can't be whole [F], bool.
        keys: numbers of the frames at which decoding can start [K], int64, ascending.
        key_pts: presentation times of these in the clock of the container, to seek to [K], int64.
        key_bytes: sizes of their packets, to recognise them after seeking [K], int64.
        seekable: whether the container's times lead to its packets; else a file is read from its start.
        delay: most frames that are decoded before a frame and shown after it.
        steady: whether frames follow each other without gaps from a whole picture on. What stands in for lost frames
            depends on the threads that decode.
    """

    pts_s: NDArray[np.float64]
    packets: NDArray[np.int64]
    orphans: NDArray[np.bool_]
    keys: NDArray[np.int64]
    key_pts: NDArray[np.int64]
    key_bytes: NDArray[np.int64]
    seekable: bool = False
    delay: int = 0
    steady: bool = False

    @classmethod
    def of_images(cls, pts_s: NDArray[np.float64]) -> "FrameTable":
        """The table of pictures that stand alone, at these times [F]."""
        numbers = np.arange(len(pts_s), dtype=np.int64)
        return cls(pts_s, numbers, np.zeros(len(pts_s), dtype=np.bool_), numbers, numbers, numbers)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.pts_s)

    @property
    def longest_group(self) -> int:
        """Frames of the longest group of pictures."""
        return int(np.diff([0, *self.keys[self.keys > 0].tolist(), self.frames]).max())

    def group_of(self, index: int) -> int:
        """Place in `keys` of the last keyframe that isn't shown after a frame; -1 before the first."""
        return int(np.searchsorted(self.keys, index, side="right")) - 1


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before it is decoded.

    Attributes:
        width: pixels of an upright picture.
        height: pixels of an upright picture.
        fps: frames per second according to the container.
        duration_s: from the first frame to the end of the last, in seconds.
        decoder: name and version of the decoder that reads it, `av 18.1.0`, `decord 0.6.0` or `opencv 5.0.0`.
        truncated: whether the file ends before its container does, or its header claims more frames than there are.
        interlaced: whether its frames hold two fields each, which are made one picture.
        notes: what a user should know of its times, one sentence each: where streams were joined, gaps.
        stream: number of the video stream in its file.
        table: times and keyframes of all frames.
    """

    width: int
    height: int
    fps: Fraction
    duration_s: float
    decoder: str
    table: FrameTable
    truncated: bool = False
    interlaced: bool = False
    notes: tuple[str, ...] = ()
    stream: int = 0

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.table.frames
