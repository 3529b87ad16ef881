"""What the stages hand to each other: frozen records of tensors, grids and counts.

Shape letters used in names all over the package: N tokens of a frame (prefix tokens first), R rows being computed,
D width, H and W pixels, h and w the token grid, C channels, K cells of a patch side.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a video, or the place where one should have been.

    Attributes:
        source: id of the stream or video it belongs to.
        index: its number in the source, from 0, counted before any stride.
        pts_s: presentation time in seconds from the start of the source.
        image: RGB [H, W, 3]; None when nothing could be decoded.
        valid: False when the picture isn't what the camera saw then. An invalid frame is never predicted.
        cause: why it isn't valid: `corrupt`, `repeated`, `missing` …; empty for a good frame. A reset of the stream
            (size change) is a cause too, on a valid frame.
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
