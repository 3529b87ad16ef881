"""Zones of the picture in which changes are ignored: screens, trees, burnt-in clocks."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from deltascene.stages.input_plan import InputPlan
from deltascene.stages.types import TokenGrid

COVERED = 0.5  # of a patch; from this share on it is in a zone
FINER = 16  # steps of a pixel to which corners are rounded
_FINER_BITS = 4

Polygon = Sequence[tuple[float, float]]  # corners x, y: shares of the picture, or pixels of the frame if one is over 1


def ignored_patches(polygons: Iterable[Polygon], plan: InputPlan, grid: TokenGrid) -> NDArray[np.bool_] | None:
    """Patches that polygons cover by half or more [h*w]; None where there are none.

    Args:
        polygons: of the frame; parts outside of it are cut off.
        plan: how the frame became the model's input.
        grid: token grid.
    """
    top, left, height, width = plan.content
    drawn = np.zeros(plan.model_size, np.uint8)
    for polygon in polygons:
        in_pixels = max(max(corner) for corner in polygon) > 1
        frame_height, frame_width = plan.frame_size if in_pixels else (1, 1)
        corners = [(left + x * width / frame_width, top + y * height / frame_height) for x, y in polygon]
        steps = np.rint((np.array(corners) - 0.5) * FINER).astype(np.int32)
        cv2.fillPoly(drawn, [steps], 1, shift=_FINER_BITS)
    covered = drawn.reshape(grid.height, grid.patch, grid.width, grid.patch).mean((1, 3)).ravel() >= COVERED
    return covered if covered.any() else None


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
