import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deltascene.stages.backbone import cut_patches
from deltascene.stages.errors import StageError
from deltascene.stages.input_plan import InputPlan, plan_input
from deltascene.stages.preprocess import normalise, normalise_patches, resize_frame


def plan(frame_size, patch=14, size=None, short_side=None, resize="stretch"):
    return plan_input(frame_size, patch, size=size, short_side=short_side, resize=resize)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("frame_size", "options", "model_size"),
    [
        ((480, 640), {"size": (224, 308)}, (224, 308)),
        ((480, 640), {"size": (230, 300)}, (224, 294)),  # to the nearest multiple of 14: 16.4 -> 16, 21.4 -> 21
        ((480, 640), {"size": (5, 5)}, (14, 14)),  # at least one patch
        ((480, 640), {"short_side": 224}, (224, 294)),  # 298.7 wide: 21.3 patches
        ((640, 480), {"short_side": 224}, (294, 224)),
        ((480, 640), {}, (476, 644)),  # the frame's own size: 34.3 and 45.7 patches
        ((14, 14), {}, (14, 14)),
    ],
)
def test_stretching_fills_the_input(frame_size, options, model_size):
    found = plan(frame_size, **options)
    assert found == InputPlan(frame_size, model_size, (0, 0, *model_size))


@pytest.mark.parametrize(
    ("frame_size", "content"),
    [
        ((100, 200), (56, 0, 112, 224)),  # twice as wide as high: half the height, centred
        ((200, 100), (0, 56, 224, 112)),
        ((300, 300), (0, 0, 224, 224)),
        ((100, 201), (56, 0, 111, 224)),  # 224 / 201 * 100 = 111.4; the odd pixel goes below
    ],
)
def test_letterbox_keeps_the_shape(frame_size, content):
    assert plan(frame_size, size=(224, 224), resize="letterbox") == InputPlan(frame_size, (224, 224), content)


@pytest.mark.parametrize(
    ("frame_size", "grid"),
    [
        ((480, 640), (16, 22)),  # 16.2 and 21.7: the size's own grid
        ((224, 308), (16, 22)),
        ((640, 480), (22, 16)),
        ((1080, 1920), (14, 25)),  # 14.1 and 25.02
        ((1920, 1080), (25, 14)),
        ((272, 640), (12, 29)),  # 12.2 and 28.8
        ((640, 272), (29, 12)),
        ((1000, 1000), (19, 19)),  # 18.8
        ((18, 2816), (2, 235)),  # 1.5 rows: half to even, upwards
        ((25, 1408), (2, 141)),  # 2.5 rows: half to even, downwards; 140.8
        ((100, 10_000), (2, 188)),
        ((14, 16_384), (1, 352)),  # 0.5 rows and 642 columns: one row of all patches
        ((16_384, 14), (352, 1)),
    ],
)
def test_aspect_gives_the_input_the_frames_shape_and_as_many_patches(frame_size, grid):
    model_size = (14 * grid[0], 14 * grid[1])
    assert plan(frame_size, size=(224, 308), resize="aspect") == InputPlan(frame_size, model_size, (0, 0, *model_size))


@given(st.integers(14, 3000), st.integers(14, 3000), st.integers(1, 30), st.integers(1, 30))
def test_aspect_keeps_the_number_of_patches_and_turns_with_the_frame(height, width, rows, columns):
    size, patches = (14 * rows, 14 * columns), rows * columns
    found = plan((height, width), size=size, resize="aspect").model_size
    assert found[0] * found[1] / 14**2 <= 1.5 * patches
    assert plan((width, height), size=size, resize="aspect").model_size == found[::-1]
    if height * columns == width * rows:
        assert found == size


def test_a_short_side_keeps_the_frames_shape_by_itself():
    for frame_size in ((480, 640), (640, 272)):
        assert plan(frame_size, short_side=224, resize="aspect") == plan(frame_size, short_side=224)


@given(
    st.tuples(st.integers(16, 3000), st.integers(16, 3000)),
    st.sampled_from([8, 14, 16]),
    st.one_of(st.none(), st.tuples(st.integers(16, 800), st.integers(16, 800))),
    st.one_of(st.none(), st.integers(16, 800)),
    st.sampled_from(["stretch", "letterbox", "aspect"]),
)
def test_the_picture_always_lies_inside_whole_patches(frame_size, patch, size, short_side, resize):
    found = plan(frame_size, patch, size, short_side, resize)
    top, left, height, width = found.content
    assert min(found.model_size) >= patch
    assert found.model_size[0] % patch == found.model_size[1] % patch == 0
    assert min(top, left) >= 0
    assert min(height, width) >= 1
    assert top + height <= found.model_size[0]
    assert left + width <= found.model_size[1]
    assert height == found.model_size[0] or width == found.model_size[1]


@pytest.mark.parametrize("frame_size", [(13, 640), (640, 13), (1, 1)])
def test_a_frame_smaller_than_a_patch_is_refused(frame_size):
    with pytest.raises(StageError, match=f"at least one patch, 14x14 pixels; found {frame_size[0]}x{frame_size[1]}"):
        plan(frame_size, size=(224, 308))


def test_a_frame_of_the_right_size_is_copied_byte_for_byte():
    image = picture(28, 42)
    pixels = resize_frame(image, plan((28, 42)))
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous()
    np.testing.assert_array_equal(pixels.permute(1, 2, 0).numpy(), image)
    pixels.zero_()
    assert image.any()


def test_shrinking_averages():
    image = np.zeros((56, 56, 3), np.uint8)
    image[::2] = 200  # stripes finer than the result can show
    pixels = resize_frame(image, plan((56, 56), size=(28, 28)))
    assert pixels.shape == (3, 28, 28)
    assert (pixels[:, 2:-2, 2:-2].float() - 100).abs().max() <= 26  # a triangle of 4 rows, 50 +- 12.5 %
    flat = resize_frame(np.full((56, 70, 3), 37, np.uint8), plan((56, 70), size=(28, 28)))
    assert (flat == 37).all()


def test_letterbox_margins_are_zero_and_the_picture_is_whole():
    image = np.full((28, 56, 3), 255, np.uint8)
    pixels = resize_frame(image, plan((28, 56), size=(56, 56), resize="letterbox"))
    assert (pixels[:, 14:42] == 255).all()
    assert (pixels[:, :14] == 0).all()
    assert (pixels[:, 42:] == 0).all()


def test_colours_keep_their_channels_and_rows_their_places():
    image = np.zeros((28, 28, 3), np.uint8)
    image[:14, :, 0], image[14:, :, 2] = 255, 255
    pixels = resize_frame(image, plan((28, 28), size=(56, 56)))
    assert (pixels[0, :26] == 255).all()
    assert (pixels[0, 30:] == 0).all()
    assert (pixels[2, 30:] == 255).all()
    assert (pixels[1] == 0).all()


def test_read_only_and_flipped_frames_are_taken():
    image = picture(28, 28)
    locked = image.copy()
    locked.flags.writeable = False
    own_size = plan((28, 28))
    assert torch.equal(resize_frame(locked, own_size), resize_frame(image, own_size))
    swapped = resize_frame(image[..., ::-1], own_size)
    assert torch.equal(swapped, resize_frame(image, own_size).flip(0))


def test_normalising_by_hand():
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).view(3, 1, 1)
    found = normalise(pixels, (0.5, 0.25, 0.2), (0.5, 0.25, 0.1))
    torch.testing.assert_close(found.flatten(), torch.tensor([-1.0, 3.0, 0.0]))


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 8), st.sets(st.integers(0, 7)), st.integers(0, 2**16))
def test_normalising_patches_is_normalising_the_picture(height, width, patch, chosen, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (3, height * patch, width * patch), generator=generator).byte()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    which = torch.tensor(sorted({number % (height * width) for number in chosen | {8}}))
    expected = cut_patches(normalise(pixels, mean, std), patch)[which]
    assert torch.equal(normalise_patches(cut_patches(pixels, patch, which), mean, std), expected)
