"""Age of every patch: frames and seconds since it was computed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltascene.stages.types import TokenGrid

OLDEST = 255


@dataclass(frozen=True, slots=True)
class PatchAges:
    """Ages of the patches of one stream.

    Attributes:
        frames: processed frames since each patch was computed [h*w] int32.
        computed_s: presentation time in seconds of the frame that computed it [h*w].
    """

    frames: NDArray[np.int32]
    computed_s: NDArray[np.float64]

    def oldest_s(self, pts_s: float) -> float:
        """Seconds from when the oldest patch was computed to a time in seconds."""
        return float(pts_s - self.computed_s.min())


def aged(ages: PatchAges | None, patches: NDArray[np.intp] | None, grid: TokenGrid, pts_s: float) -> PatchAges:
    """Ages after a frame.

    Args:
        ages: ages before the frame; None at the start of a segment.
        patches: patches that the frame computed; None is all of them.
        grid: token grid.
        pts_s: presentation time of the frame in seconds.
    """
    if ages is None or patches is None:
        return PatchAges(np.zeros(grid.patches, np.int32), np.full(grid.patches, pts_s))
    frames, computed_s = ages.frames + 1, ages.computed_s.copy()
    frames[patches], computed_s[patches] = 0, pts_s
    return PatchAges(frames, computed_s)


def age_map(ages: PatchAges, grid: TokenGrid) -> NDArray[np.uint8]:
    """Age of every pixel in frames [H, W]; 255 means 255 or more."""
    small = np.minimum(ages.frames, OLDEST).astype(np.uint8).reshape(grid.height, grid.width)
    return np.repeat(np.repeat(small, grid.patch, axis=0), grid.patch, axis=1)
