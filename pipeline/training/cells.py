"""Truth at the resolution of a head's cells, so that a head that works on single tokens is trained on single tokens.

Shape letters: F images, N patch tokens of an image, K cells along a patch's side, C components.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.stages.kinds import Kind

Array = NDArray[Any]


def truth_cells(truth: Array, kind: Kind, patch: int, side: int) -> Array:
    """One image's stored truth as the cells of its tokens.

    Args:
        truth: [H, W] or [H, W, C], stored form; H and W are multiples of the patch.
        kind: heatmaps take the largest value of a cell (thin lines survive), others the value at the cell's centre.
        patch: side of a patch in pixels.
        side: K.

    Returns:
        [N, K*K] or [N, K*K, C], cells in reading order.
    """
    height, width = truth.shape[0] // patch, truth.shape[1] // patch
    picked = _largest(truth, patch, side) if kind.name == "heatmaps" else _centres(truth, patch, side)
    tail = truth.shape[2:]
    cells = picked.reshape(height, side, width, side, *tail).swapaxes(1, 2)
    return np.ascontiguousarray(cells).reshape(height * width, side * side, *tail)


def _centres(truth: Array, patch: int, side: int) -> Array:
    rows, columns = (_cell_centres(length, patch, side) for length in truth.shape[:2])
    return truth[rows][:, columns]


def _cell_centres(length: int, patch: int, side: int) -> NDArray[np.intp]:
    return np.floor((np.arange(length // patch * side) + 0.5) * patch / side).astype(np.intp)


def _largest(truth: Array, patch: int, side: int) -> Array:
    for axis in (0, 1):
        edges = np.floor(np.arange(truth.shape[axis] // patch * side) * patch / side).astype(np.intp)
        truth = np.maximum.reduceat(truth, edges, axis=axis)
    return truth
