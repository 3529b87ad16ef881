import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltascene.stages.errors import UnsupportedHead
from deltascene.stages.heads import HEADS, activate, assemble, build_head, stack_taps
from deltascene.stages.types import TokenGrid


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(
    name=st.sampled_from(sorted(HEADS)),
    width=st.integers(2, 24),
    taps=st.integers(1, 3),
    channels=st.integers(1, 5),
    tokens=st.integers(1, 40),
    seed=st.integers(0, 2**16),
    data=st.data(),
)
@settings(max_examples=30)
def test_cells_of_some_rows_are_those_rows_of_all_cells(name, width, taps, channels, tokens, seed, data, randomise):
    head = build_head(name, width, taps, channels, {"side": 2}).eval()
    randomise(head, seed)
    rows = data.draw(st.lists(st.integers(0, tokens - 1), max_size=tokens, unique=True))
    taps_NTD = drawn(tokens, taps, width, seed=seed)
    with torch.no_grad():
        cells_NX = head.cells(taps_NTD)
        assert cells_NX.shape == (tokens, channels * 4)
        torch.testing.assert_close(head.cells(taps_NTD[rows]), cells_NX[rows], rtol=1e-5, atol=1e-5)


def test_every_tap_has_its_own_norm_and_place(randomise):
    head = build_head("linear", 4, 2, 1, {"side": 1}).eval()
    randomise(head, 1)
    taps_RTD = drawn(3, 2, 4)
    normed = [
        torch.nn.functional.layer_norm(taps_RTD[:, tap], (4,), norm.weight, norm.bias)
        for tap, norm in enumerate(head.norms)
    ]
    layer = head.layers[0]
    expected = torch.cat(normed, 1) @ layer.weight.T + layer.bias
    torch.testing.assert_close(head(taps_RTD), expected)
    assert head.receptive_field == 0


def test_cells_land_where_their_patch_is():
    """Two channels of 2x2 cells; a patch of 2 pixels has one cell per pixel, so nothing is resized."""
    grid, channels, side = TokenGrid(height=2, width=3, patch=2, prefix=1), 2, 2
    cells_NX = torch.arange(6 * channels * side * side, dtype=torch.float32).view(6, -1)
    expected = np.zeros((channels, 4, 6), np.float32)
    for row in range(grid.height):
        for column in range(grid.width):
            token = cells_NX[row * grid.width + column].view(channels, side, side).numpy()
            expected[:, row * 2 : row * 2 + 2, column * 2 : column * 2 + 2] = token
    np.testing.assert_array_equal(assemble(cells_NX, grid, channels, side).numpy(), expected)


def test_cells_are_blended_between_their_centres():
    # cell centres at pixels 0.5 and 2.5; pixels 0 and 3 lie outside them, 1 and 2 a quarter of the way in
    grid = TokenGrid(height=1, width=2, patch=2, prefix=0)
    found = assemble(torch.tensor([[0.0], [1.0]]), grid, 1, 1)
    torch.testing.assert_close(found, torch.tensor([[[0, 0.25, 0.75, 1], [0, 0.25, 0.75, 1]]]))


def test_a_token_reaches_no_further_than_half_a_cell_past_its_patch():
    grid = TokenGrid(height=3, width=3, patch=8, prefix=0)
    cells_NX = torch.zeros(9, 4)
    cells_NX[4] = 1
    touched = assemble(cells_NX, grid, 1, 2)[0] > 0
    rows = torch.nonzero(touched.any(1)).flatten()
    assert (rows.min(), rows.max()) == (8 - 2, 15 + 2)


def test_activations_give_natural_values():
    raw_CHW = torch.tensor([[[1.0, -1.0]], [[0.5, 2.0]], [[3.0, 0.0]]])
    assert activate(raw_CHW, "argmax").tolist() == [[2, 1]]
    torch.testing.assert_close(activate(raw_CHW, "sigmoid"), raw_CHW.sigmoid().permute(1, 2, 0))
    torch.testing.assert_close(activate(raw_CHW[:1], "sigmoid"), raw_CHW[0].sigmoid())
    torch.testing.assert_close(activate(raw_CHW[:1], "exp"), raw_CHW[0].exp())
    torch.testing.assert_close(activate(raw_CHW[:1], "identity"), raw_CHW[0])
    unit = activate(raw_CHW, "unit")
    assert unit.shape == (1, 2, 3)
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(1, 2))
    torch.testing.assert_close(unit[0, 1], torch.tensor([-1.0, 2.0, 0.0]) / 5**0.5)


def test_activations_leave_the_heads_output_alone():
    raw_CHW = drawn(3, 2, 2)
    before = raw_CHW.clone()
    for activation in ("argmax", "identity", "exp", "unit", "sigmoid"):
        activate(raw_CHW, activation)
    assert torch.equal(raw_CHW, before)


def test_taps_are_stacked_in_the_heads_order_without_prefix():
    tapped = {6: drawn(5, 4, seed=1), 9: drawn(5, 4, seed=2), 12: drawn(5, 4, seed=3)}
    stacked = stack_taps(tapped, (12, 6), prefix=2)
    assert stacked.shape == (3, 2, 4)
    assert torch.equal(stacked[:, 0], tapped[12][2:])
    assert torch.equal(stacked[:, 1], tapped[6][2:])


def test_unknown_heads_and_arguments_are_refused_by_name():
    with pytest.raises(UnsupportedHead, match="expected one of linear, token_mlp; found 'conv'"):
        build_head("conv", 8, 1, 1, {})
    with pytest.raises(UnsupportedHead, match=r"head linear: .*'hidden'"):
        build_head("linear", 8, 1, 1, {"hidden": 4})
