"""The change mask: what moved moves a patch; light, noise and grain don't."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from deltascene.stages.change import (
    Reference,
    as_computed,
    cell_means,
    cells_per_side,
    change_strength,
    exposure,
    moved_patches,
    rows_of,
)
from deltascene.stages.types import TokenGrid

GRID = TokenGrid(height=16, width=22, patch=14, prefix=5)
THRESHOLD, CELL = 12.0, 5


def scene(seed=0, low=5.0, high=250.0):
    """A picture of soft shapes, as float [3, H, W]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 12, generator=generator)
    soft = functional.interpolate(coarse, size=GRID.image_size, mode="bicubic", align_corners=False)[0]
    return (soft.clamp(0, 1) * (high - low) + low).clamp(0, 255)


def shot(picture, gain=1.0, noise=0.0, seed=1):
    """What a camera of 8 bits sees of it."""
    grain = torch.randn(picture.shape, generator=torch.Generator().manual_seed(seed)) * noise
    return (picture * gain + grain).round().clamp(0, 255).to(torch.uint8)


def moved_between(before, after):
    cells, reference = cell_means(after, GRID, CELL), Reference(cell_means(before, GRID, CELL))
    gain = exposure(cells, reference)
    return set(moved_patches(change_strength(cells, reference, gain), THRESHOLD).tolist()), gain


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 17), st.integers(1, 20), st.integers(0, 2**16), st.data())
def test_no_cell_reaches_outside_its_patch(height, width, patch, cell_px, seed, data):
    """Also where the patch isn't a multiple of the cell."""
    grid = TokenGrid(height, width, patch, 0)
    pixels = torch.randint(0, 256, (3, *grid.image_size), generator=torch.Generator().manual_seed(seed)).byte()
    cells = cell_means(pixels, grid, cell_px)
    assert cells.shape == (grid.patches, 3 * cells_per_side(patch, cell_px) ** 2)
    number = data.draw(st.integers(0, grid.patches - 1))
    row, column = number // width * patch, number % width * patch
    alone = pixels[:, row : row + patch, column : column + patch].clone()
    torch.testing.assert_close(cells[number], cell_means(alone, TokenGrid(1, 1, patch, 0), cell_px)[0])
    others = pixels ^ 255
    others[:, row : row + patch, column : column + patch] = alone
    assert torch.equal(cell_means(others, grid, cell_px)[number], cells[number])


def test_cells_are_means_by_colour():
    pixels = torch.arange(3 * 4 * 8).view(3, 4, 8).byte()
    cells = cell_means(pixels, TokenGrid(1, 2, 4, 0), 2)
    blocks = pixels.numpy().reshape(3, 2, 2, 2, 2, 2).mean((2, 5))  # colour, row in patch, patch, column in patch
    np.testing.assert_allclose(cells.numpy(), blocks.transpose(2, 0, 1, 3).reshape(2, 12))


@pytest.mark.parametrize(("patch", "expected"), [(14, 3), (16, 3), (8, 2), (5, 1), (2, 1), (32, 6)])
def test_a_cell_is_about_as_wide_as_asked(patch, expected):
    assert cells_per_side(patch, CELL) == expected


@given(
    st.lists(st.floats(0, 255), min_size=4, max_size=30),
    st.floats(0, 255),
    st.floats(0, 255),
    st.floats(0.25, 4),
    st.integers(0, 2**16),
)
def test_a_larger_threshold_gives_a_subset(values, one, other, gain, seed):
    cells = torch.tensor(values)[:, None].repeat(1, 3)
    reference = Reference(torch.rand(cells.shape, generator=torch.Generator().manual_seed(seed)) * 255)
    strength = change_strength(cells, reference, gain)
    low, high = sorted((one, other))
    few, many = moved_patches(strength, high).tolist(), moved_patches(strength, low).tolist()
    assert set(few) <= set(many)
    assert many == sorted(many)


@pytest.mark.parametrize("sigma", [2.0, 5.0])
def test_sensor_noise_moves_nothing(sigma):
    moved, gain = moved_between(shot(scene(), noise=sigma, seed=1), shot(scene(), noise=sigma, seed=2))
    assert not moved
    assert abs(gain - 1) < 0.01


@pytest.mark.parametrize("gain", [0.88, 0.94, 1.06, 1.12])
@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_an_exposure_swing_moves_nothing_but_what_moved(gain, noise):
    """Shapes up to white: with more light, some of them saturate."""
    before, after = scene(), scene()
    before[:, 70:98, 70:98], after[:, 70:98, 84:112] = 20, 20  # a dark square of 2x2 patches, one patch further
    after[:, 70:98, 70:84] = scene()[:, 70:98, 70:84]
    moved, found = moved_between(shot(before, noise=noise), shot(after, gain, noise, seed=3))
    assert abs(found - gain) < 0.01
    object_patches = {row * 22 + column for row in (5, 6) for column in (5, 7)}
    assert object_patches <= moved
    assert len(moved - object_patches) <= 0.01 * GRID.patches


def test_where_few_cells_tell_the_last_exposure_stands():
    dark = cell_means(shot(scene() * 0.02), GRID, CELL)
    assert exposure(dark, Reference(dark * 2, gain=1.25)) == 1.25
    white = torch.full_like(dark, 255.0)
    assert exposure(white, Reference(white, gain=0.8)) == 0.8


def test_the_exposure_is_bounded():
    cells = torch.full((10, 12), 20.0)
    assert exposure(cells * 11, Reference(cells)) == 4
    assert exposure(cells, Reference(cells * 11)) == 0.25


def test_slow_change_adds_up():
    """One level a frame, in one patch: it moves when it is more than the threshold away, and then starts again."""
    picture = scene(low=60, high=180)
    reference = Reference(cell_means(shot(picture), GRID, CELL))
    moved_at = []
    for frame in range(1, 41):
        picture[:, 28:42, 42:56] += 1
        cells = cell_means(shot(picture), GRID, CELL)
        gain = exposure(cells, reference)
        moved = moved_patches(change_strength(cells, reference, gain), THRESHOLD + 0.5)
        if len(moved):
            assert moved.tolist() == [2 * 22 + 3]
            moved_at.append(frame)
            reference = as_computed(reference, cells, gain, moved)
    assert moved_at == [13, 26, 39]


@given(st.sets(st.integers(0, 9)), st.floats(0.5, 2), st.integers(0, 2**16))
def test_references_change_just_where_rows_ran(patches, gain, seed):
    generator = torch.Generator().manual_seed(seed)
    reference = Reference(torch.rand(10, 4, generator=generator) * 200 + 20, 1.0)
    kept, cells = reference.cells_PQ.clone(), torch.rand(10, 4, generator=generator) * 100 + 20
    chosen = torch.tensor(sorted(patches), dtype=torch.int64)
    after = as_computed(reference, cells, gain, chosen)
    assert torch.equal(reference.cells_PQ, kept)
    assert after.gain == gain
    others = [number for number in range(10) if number not in patches]
    assert torch.equal(after.cells_PQ[others], kept[others])
    assert (change_strength(cells, after, gain)[chosen] < 1e-3).all()
    everything = as_computed(reference, cells, gain, None)
    assert (everything.gain, change_strength(cells, everything, 1.0).max()) == (1.0, 0)


@given(st.sets(st.integers(0, GRID.patches - 1)))
def test_rows_are_the_prefix_and_the_patches(patches):
    rows = rows_of(torch.tensor(sorted(patches), dtype=torch.int64), GRID)
    assert rows.tolist() == [0, 1, 2, 3, 4, *(number + 5 for number in sorted(patches))]
    assert rows.dtype == torch.int64


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.sampled_from([1, 2, 7, 8, 14, 16]), st.integers(1, 20), st.data())
def test_cells_are_those_of_torchs_pooling_bit_for_bit(height, width, patch, cell_px, data):
    """Stores of earlier versions were begun with it."""
    grid = TokenGrid(height, width, patch, prefix=1)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    pixels = torch.from_numpy(rng.integers(0, 256, (3, *grid.image_size), np.uint8))
    side = cells_per_side(patch, cell_px)
    pooled = functional.adaptive_avg_pool2d(pixels.float(), (height * side, width * side))
    expected = pooled.view(3, height, side, width, side).permute(1, 3, 0, 2, 4).reshape(grid.patches, -1)
    assert torch.equal(cell_means(pixels, grid, cell_px), expected)


@given(st.integers(1, 60), st.sampled_from([3, 12, 27]), st.sampled_from([0.0, 20.0, 200.0]), st.integers(0, 2**16))
def test_exposure_and_strength_are_those_of_torch_bit_for_bit(patches, cells, low, seed):
    """Also of black and white cells, of few, and of an even number; stores of earlier versions were begun with it."""
    generator = torch.Generator().manual_seed(seed)
    now, before = (torch.rand(patches, cells, generator=generator) * (255 - low) + low for _ in range(2))
    now[0, 0], before[-1, -1] = 0, 0
    usable = (torch.minimum(before, now) > 16) & (torch.maximum(before, now) < 240)
    expected = 0.7
    if usable.sum() >= max(3, now.numel() // 10):
        expected = min(max(float((now / before)[usable].median()), 0.25), 4)
    gain = exposure(now, Reference(before, 0.7))
    assert gain == expected
    apart = (now - (before * gain).clamp_max(255)).abs().amax(dim=1)
    strength = change_strength(now, Reference(before), gain)
    assert torch.equal(strength, apart)
    assert torch.equal(moved_patches(strength, 12.0), (apart > 12.0).nonzero()[:, 0])


def test_cells_of_a_large_white_picture_are_white():
    """Sums of one colour below the other are over what an int32 holds; their differences aren't."""
    grid = TokenGrid(120, 140, 14, prefix=0)
    assert (cell_means(torch.full((3, *grid.image_size), 255, dtype=torch.uint8), grid, CELL) == 255).all()
