"""How long ago every patch was computed, in frames and in seconds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltascene.stages.types import TokenGrid

OLDEST = 255


@dataclass(frozen=True, slots=True)
class PatchAges:
    """Of the patches of one stream.

    Attributes:
        frames: processed frames since each patch was computed [h*w] int32.
        computed_s: time of the frame that computed it [h*w].
    """

    frames: NDArray[np.int32]
    computed_s: NDArray[np.float64]

    def oldest_s(self, pts_s: float) -> float:
        """Seconds since the patch that waited longest was computed."""
        return float(pts_s - self.computed_s.min())


def aged(ages: PatchAges | None, patches: NDArray[np.intp] | None, grid: TokenGrid, pts_s: float) -> PatchAges:
    """Ages after a frame.

    Args:
        ages: before it; None at the start of a segment.
        patches: those that it computed; None is all.
        grid: token grid.
        pts_s: its time.
    """
    if ages is None or patches is None:
        return PatchAges(np.zeros(grid.patches, np.int32), np.full(grid.patches, pts_s))
    frames, computed_s = ages.frames + 1, ages.computed_s.copy()
    frames[patches], computed_s[patches] = 0, pts_s
    return PatchAges(frames, computed_s)


def age_map(ages: PatchAges, grid: TokenGrid) -> NDArray[np.uint8]:
    """Age of every pixel in frames [H, W]; 255 is that or more."""
    small = np.minimum(ages.frames, OLDEST).astype(np.uint8).reshape(grid.height, grid.width)
    return np.repeat(np.repeat(small, grid.patch, axis=0), grid.patch, axis=1)
