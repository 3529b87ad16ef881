"""Records that the stages pass to each other.

Shape letters used in names throughout the package: N tokens of a frame (prefix tokens first), R rows being computed,
D width, H and W pixels, h and w the token grid, C channels, K cells of a patch side.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a video; its picture may be missing or damaged.

    Attributes:
        source: id of the stream or video that it belongs to.
        index: its number in the source from 0, without regard to a stride.
        pts_s: presentation time in seconds from the start of the source.
        image: picture, RGB uint8 [H, W, 3]; None when nothing could be decoded.
        valid: False when the picture isn't what the camera saw at that time. An invalid frame is never predicted.
        cause: why it isn't valid: `corrupt`, or `missing` (an image that is gone); or, on a valid frame, why the stream
            was reset (`resized`). Empty otherwise.
    """

    source: str
    index: int
    pts_s: float
    image: Image | None
    valid: bool = True
    cause: str = ""


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """How a frame is cut into tokens.

    Attributes:
        height: patches from top to bottom.
        width: patches from left to right.
        patch: side of a patch in pixels.
        prefix: class and register tokens in front of the patches.
    """

    height: int
    width: int
    patch: int
    prefix: int

    @property
    def patches(self) -> int:
        """Patch tokens of a frame."""
        return self.height * self.width

    @property
    def tokens(self) -> int:
        """All tokens of a frame, prefix included."""
        return self.prefix + self.patches

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the model's input in pixels."""
        return self.height * self.patch, self.width * self.patch
