"""The change mask: which patches moved since they were last computed.

Pixels decide, not features: a patch is cut into cells of about 5 px, and it moved if a cell's mean differs from the
same cell *as it was last computed* by more than a threshold, so that slow change adds up while noise averages out.
References are kept at an exposure of 1, so that a camera that opens its iris doesn't move every patch.

Shape letters as in types.py; Q cell means of one patch, all colours.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from deltascene.stages.types import TokenGrid

COLOURS = 3
DARKEST, BRIGHTEST = 16.0, 240.0  # cells outside don't tell the exposure: noise below, saturation above
LARGEST_GAIN = 4.0
WHITE = 255.0


@dataclass(frozen=True, slots=True)
class Reference:
    """What a stream's patches looked like when they were last computed.

    Attributes:
        cells_PQ: cell means at an exposure of 1 [patches, Q].
        gain: exposure of the latest frame against that.
    """

    cells_PQ: Tensor
    gain: float = 1.0


def cells_per_side(patch: int, cell_px: int) -> int:
    """Cells along a patch's side, so that one is about `cell_px` wide; at least one."""
    return max(1, round(patch / cell_px))


def cell_means(pixels_CHW: Tensor, grid: TokenGrid, cell_px: int) -> Tensor:
    """Mean of every cell and colour.

    Args:
        pixels_CHW: model input before normalising, uint8 [3, H, W].
        grid: token grid of the frame.
        cell_px: about how wide a cell is.

    Returns:
        [patches, Q] in steps of 255. Where the side of a patch isn't a multiple of the cell, neighbouring cells share
        pixels; no cell reaches outside its patch.
    """
    side = cells_per_side(grid.patch, cell_px)
    means = functional.adaptive_avg_pool2d(pixels_CHW.float(), (grid.height * side, grid.width * side))
    squares = means.view(COLOURS, grid.height, side, grid.width, side).permute(1, 3, 0, 2, 4)
    return squares.reshape(grid.patches, COLOURS * side * side)


def exposure(cells_PQ: Tensor, reference: Reference) -> float:
    """Gain between a frame and the references: the median ratio of cells that are neither dark nor saturated.

    Things that move cover less than half of the picture, or the camera does and the gain doesn't matter; so the median
    follows the light alone. The last gain stands where too few cells tell.
    """
    expected_PQ = reference.cells_PQ
    telling = (expected_PQ > DARKEST) & (cells_PQ > DARKEST) & (expected_PQ < BRIGHTEST) & (cells_PQ < BRIGHTEST)
    ratios = (cells_PQ / expected_PQ)[telling]
    if ratios.numel() < max(COLOURS, cells_PQ.numel() // 10):
        return reference.gain
    return min(max(float(ratios.median()), 1 / LARGEST_GAIN), LARGEST_GAIN)


def change_strength(cells_PQ: Tensor, reference: Reference, gain: float) -> Tensor:
    """How far every patch is from its reference [patches], in steps of 255: the largest difference of a cell.

    What more light would push past white is expected white.
    """
    return (cells_PQ - (reference.cells_PQ * gain).clamp_max(WHITE)).abs().amax(dim=1)


def moved_patches(strength_P: Tensor, threshold: float) -> Tensor:
    """Numbers of the patches that changed by more than a threshold, increasing int64. One decision, not a clip: a
    larger threshold gives a subset."""
    return (strength_P > threshold).nonzero()[:, 0]


def as_computed(reference: Reference, cells_PQ: Tensor, gain: float, patches: Tensor | None) -> Reference:
    """References after some patches were computed; None is all of them, and starts a new exposure."""
    if patches is None:
        return Reference(cells_PQ)
    kept_PQ = reference.cells_PQ.index_copy(0, patches, cells_PQ[patches] / gain)
    return replace(reference, cells_PQ=kept_PQ, gain=gain)


def rows_of(patches: Tensor, grid: TokenGrid) -> Tensor:
    """Rows of a frame's tokens that patches need: the prefix tokens always, then theirs; increasing int64 [R]."""
    return torch.cat([torch.arange(grid.prefix), patches + grid.prefix])


def count_rows(rows: Tensor | None, grid: TokenGrid) -> int:
    """How many tokens some rows are; None is all of them."""
    return grid.tokens if rows is None else len(rows)


def patches_of(rows: Tensor | None, grid: TokenGrid) -> Tensor | None:
    """Patches among some rows, the inverse of `rows_of`; None, all rows, is all patches."""
    return None if rows is None else rows[grid.prefix :] - grid.prefix
