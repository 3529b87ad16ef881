"""Zones of the picture in which changes are ignored: screens, trees, burnt-in clocks."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from deltascene.stages.input_plan import InputPlan
from deltascene.stages.types import TokenGrid

COVERED = 0.5  # of a patch; from this share on it is in a zone
POINTS = 8  # along a side of a patch, at which that is looked up

Polygon = Sequence[tuple[float, float]]  # corners x, y: shares of the picture, or pixels of the frame if one is over 1


def ignored_patches(polygons: Iterable[Polygon], plan: InputPlan, grid: TokenGrid) -> NDArray[np.bool_] | None:
    """Patches that polygons cover by half or more [h*w]; None where there are none.

    Args:
        polygons: of the frame; parts outside of it are cut off.
        plan: how the frame became the model's input.
        grid: token grid.
    """
    top, left, height, width = plan.content
    step = grid.patch / POINTS
    x = ((np.arange(grid.width * POINTS) + 0.5) * step - left) / width
    y = ((np.arange(grid.height * POINTS)[:, None] + 0.5) * step - top) / height
    inside = np.zeros((y.size, x.size), bool)
    for polygon in polygons:
        in_pixels = max(max(corner) for corner in polygon) > 1
        frame_height, frame_width = plan.frame_size if in_pixels else (1, 1)
        inside |= _inside([(across / frame_width, down / frame_height) for across, down in polygon], x, y)
    covered = inside.reshape(grid.height, POINTS, grid.width, POINTS).mean((1, 3)).ravel() >= COVERED
    return covered if covered.any() else None


def _inside(polygon: Polygon, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether points at columns x [w] and rows y [h, 1] are inside of a polygon [h, w], by the even-odd rule."""
    inside = np.zeros((y.size, x.size), bool)
    for (x0, y0), (x1, y1) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


def shaded(image: NDArray[np.uint8], patches: Sequence[int], plan: InputPlan, patch: int) -> NDArray[np.uint8]:
    """A frame's picture [H, W, 3] with some patches, by their numbers, at half their brightness."""
    across = plan.model_size[1] // patch
    marked = np.zeros((plan.model_size[0] // patch, across), np.uint8)
    marked.flat[list(patches)] = 1
    top, left, height, width = plan.content
    rows = top + (np.arange(image.shape[0]) + 0.5) * height / image.shape[0]
    columns = left + (np.arange(image.shape[1]) + 0.5) * width / image.shape[1]
    inside = marked[np.ix_(rows.astype(int) // patch, columns.astype(int) // patch)]
    return image >> inside[..., None]
