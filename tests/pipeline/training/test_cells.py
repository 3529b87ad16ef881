"""Truth at the resolution of a head's cells."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from deltascene.pipeline.training.cells import truth_cells
from deltascene.stages.heads import assemble, lay_out
from deltascene.stages.kinds import Heatmaps, Scalar
from deltascene.stages.types import TokenGrid


def test_cells_take_the_pixel_at_their_centre_in_reading_order():
    truth = np.arange(4 * 8).reshape(4, 8)  # two tokens of 4x4 pixels, 2x2 cells of 2x2 pixels
    cells = truth_cells(truth, Scalar(), 4, 2)
    assert cells.tolist() == [[9, 11, 25, 27], [13, 15, 29, 31]]


def test_thin_lines_survive_in_heatmaps():
    truth = np.zeros((4, 8), np.uint8)
    truth[0, 5] = 255
    assert truth_cells(truth, Heatmaps(("edge",)), 4, 2).tolist() == [[0, 0, 0, 0], [255, 0, 0, 0]]


@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([(4, 2), (14, 4), (14, 7)]))
def test_a_heads_assembled_cells_are_the_truth_that_they_were_learned_from(height, width, sizes):
    """Cells cut from a map and laid out by the head's own `assemble` land where they came from."""
    patch, side = sizes
    grid = TokenGrid(height, width, patch, 1)
    truth = np.random.default_rng(height * 10 + width).random(grid.image_size).astype(np.float32)
    cells = truth_cells(truth, Scalar(), patch, side)
    cell_grid = TokenGrid(height, width, side, 1)  # a pixel for each cell
    small = lay_out(assemble(torch.from_numpy(cells), cell_grid, 1, side)[:, 0].numpy(), cell_grid)
    centres = [np.floor((np.arange(count * side) + 0.5) * patch / side).astype(int) for count in (height, width)]
    np.testing.assert_array_equal(small, truth[np.ix_(*centres)])
