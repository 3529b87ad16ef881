"""The change mask: which patches changed since they were last computed.

It is decided on pixels, not on features: a patch is cut into cells of about 5 px, and it counts as moved if the mean of
a cell differs by more than a threshold from that of the same cell *as it was last computed*. So slow change adds up
while noise averages out. References are kept at an exposure of 1, so that a change of the camera's exposure doesn't
mark every patch.

Shape letters besides those of types.py: Q cell means of one patch, all colours.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from deltascene.stages.types import TokenGrid

COLOURS = 3
DARKEST, BRIGHTEST = 16.0, 240.0  # cells outside don't show the exposure: noise below, saturation above
LARGEST_GAIN = 4.0
WHITE = 255.0


@dataclass(frozen=True, slots=True)
class Reference:
    """The patches of a stream as they were when last computed.

    Attributes:
        cells_PQ: cell means at an exposure of 1 [patches, Q].
        gain: exposure of the latest frame relative to that.
    """

    cells_PQ: Tensor
    gain: float = 1.0


def cells_per_side(patch: int, cell_px: int) -> int:
    """Number of cells along a patch's side, so that one is about `cell_px` wide; at least one."""
    return max(1, round(patch / cell_px))


def cell_means(pixels_CHW: Tensor, grid: TokenGrid, cell_px: int) -> Tensor:
    """Mean of every cell and colour.

    Args:
        pixels_CHW: model input before normalising, uint8 [3, H, W].
        grid: token grid of the frame.
        cell_px: approximate width of a cell in pixels.

    Returns:
        Means [patches, Q], 0 to 255. Where the side of a patch isn't a multiple of the cell, neighbouring cells share
        pixels; no cell reaches outside its patch.
    """
    side = cells_per_side(grid.patch, cell_px)
    spans = [(cell * grid.patch // side, -(-(cell + 1) * grid.patch // side)) for cell in range(side)]
    sizes = np.array([end - begin for begin, end in spans], np.float32)[:, None, None]
    patch, rows = grid.patch, COLOURS * grid.height
    sums = cv2.integral(pixels_CHW.numpy().reshape(rows * patch, -1))  # one colour below the other
    tall = np.empty((side, rows, sums.shape[1]), np.int32)  # sums of rows of cells
    for down, (top, bottom) in enumerate(spans):
        np.subtract(sums[bottom::patch][:rows], sums[top::patch][:rows], out=tall[down])
    means = np.empty((side, side, rows, grid.width), np.float32)
    for across, columns in enumerate(spans):
        before, after = (tall[..., at::patch][..., : grid.width] for at in columns)
        np.subtract(after, before, out=means[:, across], casting="unsafe")
    means /= sizes[:, None]  # height, then width: rounded as by torch's pooling, by which stores were begun
    means /= sizes
    parted = means.reshape(side, side, COLOURS, grid.height, grid.width)
    return torch.from_numpy(parted.transpose(3, 4, 2, 0, 1).reshape(grid.patches, -1))


def exposure(cells_PQ: Tensor, reference: Reference) -> float:
    """Gain between a frame and the references: the median ratio of cells that are neither dark nor saturated.

    Moving objects usually cover less than half of the picture, so the median follows the light alone; under a moving
    camera the gain doesn't matter. Where too few cells can be used, the last gain is kept.
    """
    found_PQ, expected_PQ = cells_PQ.numpy(), reference.cells_PQ.numpy()
    usable = np.minimum(found_PQ, expected_PQ) > DARKEST
    usable &= np.maximum(found_PQ, expected_PQ) < BRIGHTEST
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (found_PQ / expected_PQ)[usable]
    if len(ratios) < max(COLOURS, usable.size // 10):
        return reference.gain
    middle = float(torch.from_numpy(ratios).median())  # numpy's takes twice as long where most ratios are alike
    return min(max(middle, 1 / LARGEST_GAIN), LARGEST_GAIN)


def change_strength(cells_PQ: Tensor, reference: Reference, gain: float) -> Tensor:
    """Largest difference between a cell of a patch and its reference [patches], 0 to 255.

    Expected values above white are clamped to white.
    """
    apart_PQ = reference.cells_PQ.numpy() * np.float32(gain)
    np.minimum(apart_PQ, np.float32(WHITE), out=apart_PQ)
    np.abs(np.subtract(cells_PQ.numpy(), apart_PQ, out=apart_PQ), out=apart_PQ)
    return torch.from_numpy(np.ascontiguousarray(apart_PQ.T).max(0))  # along short rows it takes twice as long


def moved_patches(strength_P: Tensor, threshold: float) -> Tensor:
    """Indices of the patches that changed by more than a threshold, increasing int64. A larger threshold gives a
    subset."""
    return torch.from_numpy(np.flatnonzero(strength_P.numpy() > threshold))


def as_computed(reference: Reference, cells_PQ: Tensor, gain: float, patches: Tensor | None) -> Reference:
    """References after some patches were computed; None is all of them and resets the exposure to 1."""
    if patches is None:
        return Reference(cells_PQ)
    kept_PQ = reference.cells_PQ.index_copy(0, patches, cells_PQ[patches] / gain)
    return replace(reference, cells_PQ=kept_PQ, gain=gain)


def rows_of(patches: Tensor, grid: TokenGrid) -> Tensor:
    """Rows of a frame's tokens that patches need: all prefix tokens, then the patches'; increasing int64 [R]."""
    return torch.cat([torch.arange(grid.prefix), patches + grid.prefix])


def count_rows(rows: Tensor | None, grid: TokenGrid) -> int:
    """Number of rows; None is all tokens of the grid."""
    return grid.tokens if rows is None else len(rows)


def patches_of(rows: Tensor | None, grid: TokenGrid) -> Tensor | None:
    """Patches among some rows, the inverse of `rows_of`; None stands for all rows and all patches."""
    return None if rows is None else rows[grid.prefix :] - grid.prefix
