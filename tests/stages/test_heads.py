from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from deltascene.stages.errors import UnsupportedHead
from deltascene.stages.heads import (
    HEADS,
    activate,
    assemble,
    build_head,
    lay_out,
    natural_values,
    run_head,
    stack_taps,
    touched_patches,
)
from deltascene.stages.types import TokenGrid


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictured(cells_PX, grid, channels, side):
    """All cells as a picture [C, H, W]."""
    pixels = assemble(cells_PX, grid, channels, side).permute(0, 2, 3, 1).numpy()
    return torch.from_numpy(lay_out(pixels, grid)).permute(2, 0, 1)


class Around(nn.Module):
    """A head as a user may write it: one linear layer over a patch and its eight neighbours."""

    receptive_field = 1

    def __init__(self, width, taps, channels, side=2):
        super().__init__()
        self.side = side
        self.layer = nn.Linear(9 * taps * width, channels * side * side)

    def cells(self, taps_RTD):
        return self.layer(taps_RTD.flatten(1))

    def macs_per_token(self):
        return self.layer.in_features * self.layer.out_features


grids = st.builds(TokenGrid, st.integers(1, 6), st.integers(1, 6), st.integers(1, 9), st.integers(0, 5))


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
    np.testing.assert_array_equal(pictured(cells_NX, grid, channels, side).numpy(), expected)


def test_cells_are_blended_between_their_centres():
    # cell centres at pixels 0.5 and 2.5; pixels 0 and 3 lie outside them, 1 and 2 a quarter of the way in
    grid = TokenGrid(height=1, width=2, patch=2, prefix=0)
    found = pictured(torch.tensor([[0.0], [1.0]]), grid, 1, 1)
    torch.testing.assert_close(found, torch.tensor([[[0, 0.25, 0.75, 1], [0, 0.25, 0.75, 1]]]))


def test_a_token_reaches_no_further_than_half_a_cell_past_its_patch():
    grid = TokenGrid(height=3, width=3, patch=8, prefix=0)
    cells_NX = torch.zeros(9, 4)
    cells_NX[4] = 1
    touched = pictured(cells_NX, grid, 1, 2)[0] > 0
    rows = torch.nonzero(touched.any(1)).flatten()
    assert (rows.min(), rows.max()) == (8 - 2, 15 + 2)


@given(grids, st.integers(1, 3), st.integers(1, 5), st.integers(0, 2**16))
def test_cells_are_drawn_as_torch_resizes_them(grid, channels, side, seed):
    """Laid out as one small picture, then interpolated: whole, that is the same."""
    cells_PX = drawn(grid.patches, channels * side * side, seed=seed)
    squares = cells_PX.view(grid.height, grid.width, channels, side, side).permute(2, 0, 3, 1, 4)
    small = squares.reshape(1, channels, grid.height * side, grid.width * side)
    expected = functional.interpolate(small, size=grid.image_size, mode="bilinear")[0]
    torch.testing.assert_close(pictured(cells_PX, grid, channels, side), expected, rtol=1e-5, atol=1e-5)


@given(grids, st.sampled_from([1, 3]), st.integers(1, 4), st.integers(0, 2**16), st.data())
@settings(max_examples=50)
def test_some_patches_are_drawn_onto_the_others(grid, channels, side, seed, data):
    some = data.draw(st.sets(st.integers(0, grid.patches - 1)))
    patches = torch.tensor(sorted(some), dtype=torch.int64)
    cells_PX = drawn(grid.patches, channels * side * side, seed=seed)
    whole, few = (activate(assemble(cells_PX, grid, channels, side, which), "identity") for which in (None, patches))
    torch.testing.assert_close(few, whole[patches], rtol=1e-5, atol=1e-5)
    before = np.random.default_rng(seed).random(lay_out(whole.numpy(), grid).shape, np.float32)
    kept = before.copy()
    after = lay_out(few.numpy(), grid, before, patches.numpy())
    np.testing.assert_array_equal(before, kept)
    expected = lay_out(whole.numpy(), grid)
    for number in range(grid.patches):
        row, column = number // grid.width * grid.patch, number % grid.width * grid.patch
        there = np.s_[row : row + grid.patch, column : column + grid.patch]
        if number in some:
            np.testing.assert_allclose(after[there], expected[there], rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(after[there], before[there])


@given(grids, st.integers(0, 3), st.data())
def test_touched_patches_are_those_within_reach(grid, reach, data):
    some = data.draw(st.sets(st.integers(0, grid.patches - 1)))
    places = [divmod(number, grid.width) for number in range(grid.patches)]
    expected = [
        number
        for number, (row, column) in enumerate(places)
        if any(max(abs(row - places[one][0]), abs(column - places[one][1])) <= reach for one in some)
    ]
    patches = torch.tensor(sorted(some), dtype=torch.int64)
    assert touched_patches(patches, grid, reach).tolist() == expected


def test_a_head_with_a_receptive_field_is_a_convolution(randomise):
    """Its linear layer over nine tokens is torch's 3x3 convolution; outside the frame are zeros."""
    grid, head = TokenGrid(3, 5, 2, 1), Around(6, 2, 3, side=1)
    randomise(head, 2)
    taps_NTD = drawn(grid.patches, 2, 6, seed=4)
    kernel = head.layer.weight.view(3, 3, 3, 12).permute(0, 3, 1, 2)
    image = taps_NTD.flatten(1).T.reshape(1, 12, 3, 5)
    with torch.no_grad():
        expected = functional.conv2d(image, kernel, head.layer.bias, padding=1)[0].flatten(1).T
        torch.testing.assert_close(run_head(head, taps_NTD, grid, None), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["linear", "token_mlp", "around"])
@given(grids, st.integers(0, 2**16), st.data())
@settings(max_examples=20)
def test_a_head_on_some_patches_is_those_of_all(name, randomise, grid, seed, data):
    some = data.draw(st.sets(st.integers(0, grid.patches - 1)))
    head = Around(6, 2, 3) if name == "around" else build_head(name, 6, 2, 3, {"side": 2})
    randomise(head, seed)
    taps_NTD, patches = drawn(grid.patches, 2, 6, seed=seed), torch.tensor(sorted(some), dtype=torch.int64)
    with torch.no_grad():
        whole, few = run_head(head, taps_NTD, grid, None), run_head(head, taps_NTD, grid, patches)
    torch.testing.assert_close(few, whole[patches], rtol=1e-4, atol=1e-5)


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


@given(st.sampled_from([(4,), (1, 5), (6, 3)]), st.sampled_from([1, 3, 24, 255, 256, 300]), st.integers(0, 2**16))
def test_classes_and_unit_vectors_are_those_of_torch_bit_for_bit(leading, channels, seed):
    """Also where values are equal, and for more channels than a byte has numbers."""
    raw = drawn(*leading, channels, 3, 2, seed=seed)
    for some, activation in ((raw, "argmax"), (raw.mul(4).round(), "argmax"), (raw[..., :3, :, :], "unit")):
        expected = activate(some, activation).numpy()
        np.testing.assert_array_equal(natural_values(some, activation), expected)


@given(grids, st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**16), st.data())
@settings(max_examples=50)
def test_windows_of_some_patches_are_those_of_all_bit_for_bit(grid, channels, side, seed, data):
    """Read off what the same product makes of them: it is given as many rows, in the same order."""
    some = data.draw(st.sets(st.integers(0, grid.patches - 1), min_size=1))
    cells_PX = drawn(grid.patches, channels * side * side, seed=seed)
    squares = cells_PX.view(grid.height, grid.width, channels, side, side).permute(2, 0, 3, 1, 4)
    laid_out = squares.reshape(1, channels, grid.height * side, grid.width * side)
    padded = functional.pad(laid_out, (1, 1, 1, 1), mode="replicate")[0]
    windows = padded.unfold(1, side + 2, side).unfold(2, side + 2, side).permute(1, 2, 0, 3, 4).flatten(0, 1)
    patches = torch.tensor(sorted(some), dtype=torch.int64)
    with patch("deltascene.stages.heads.functional.linear", side_effect=functional.linear) as product:
        assemble(cells_PX, grid, channels, side, patches)
    assert torch.equal(product.call_args.args[0], windows[patches].reshape(-1, (side + 2) ** 2))


def test_activations_leave_the_heads_output_alone():
    raw_CHW = drawn(3, 2, 2)
    before = raw_CHW.clone()
    for activation in ("argmax", "identity", "exp", "unit", "sigmoid"):
        activate(raw_CHW, activation)
        natural_values(raw_CHW, activation)
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
