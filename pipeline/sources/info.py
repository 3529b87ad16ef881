"""What is known of a source before it is decoded; plain values that travel between processes."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from deltascene.pipeline.sources.frame_table import FrameTable

Decoder = Literal["auto", "av", "decord", "opencv"]

LARGEST_PICTURE = 1 << 26
"""Pixels of the largest picture that is decoded, twice 8K; a header can declare more, which would take gigabytes."""


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
