"""What is known of a source before it is decoded; plain values that travel between processes."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from deltascene.pipeline.sources.frame_table import FrameTable

Decoder = Literal["auto", "decord", "opencv"]

LARGEST_PICTURE = 1 << 26
"""Pixels of the largest picture that is decoded, twice 8K; a header can declare more, which would take gigabytes."""


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before it is decoded.

    Attributes:
        width: pixels of an upright picture.
        height: pixels of an upright picture.
        fps: frames per second according to the container.
        frames: number of frames in the file.
        frames_claimed: number of frames according to the header.
        duration_s: from the first frame to the end of the last, in seconds.
        decoder: name and version of the decoder that reads it, `decord 0.6.0` or `opencv 4.10.0`.
        rotation: degrees clockwise by which the stored picture is turned to stand upright: 0, 90, 180 or 270.
        converts: whether OpenCV can convert its pictures to RGB (it can't if they are interlaced).
        table: times and keyframes of all frames.
    """

    width: int
    height: int
    fps: Fraction
    frames: int
    frames_claimed: int
    duration_s: float
    decoder: str
    rotation: int
    converts: bool
    table: FrameTable

    @property
    def truncated(self) -> bool:
        """Whether the header claims more frames than there are."""
        return self.frames < self.frames_claimed
