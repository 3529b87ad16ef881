import numpy as np
import pytest

from deltascene.stages.input_plan import plan_input
from deltascene.stages.kinds import Classes, Heatmaps, Scalar, Stored, Vector
from deltascene.stages.preprocess import resize_frame
from deltascene.stages.resample import resize_map, to_frame_size


def stretched(frame_size, model_size):
    return plan_input(frame_size, 2, size=model_size, short_side=None, resize="stretch")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_ids_are_never_mixed(dtype):
    kind = Classes(tuple(map(str, range(200))), stored=Stored(dtype, fill=255))
    ids = np.array([[0, 199], [7, 3]], dtype)
    large = to_frame_size(ids, kind, stretched((6, 4), (2, 2)))
    assert large.dtype == dtype
    np.testing.assert_array_equal(large, ids.repeat(3, 0).repeat(2, 1))


def test_numbers_are_blended():
    # centres at pixels 0.5 and 2.5 of 4; the outer pixels lie beyond them
    found = to_frame_size(np.array([[0, 1], [0, 1]], np.float32), Scalar(), stretched((2, 4), (2, 2)))
    np.testing.assert_allclose(found, [[0, 0.25, 0.75, 1]] * 2)
    assert found.dtype == np.float32


def test_unit_vectors_stay_of_unit_length():
    turned = np.zeros((2, 2, 3), np.float32)
    turned[:, 0, 0] = turned[:, 1, 1] = 1
    found = to_frame_size(turned, Vector(), stretched((2, 4), (2, 2)))
    assert found.shape == (2, 4, 3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)
    free = to_frame_size(turned, Vector(unit_length=False), stretched((2, 4), (2, 2)))
    np.testing.assert_allclose(free[0, 1], [0.75, 0.25, 0])


KINDS = (
    Classes(tuple(map(str, range(250)))),
    Scalar(),
    Vector(unit_length=False),
    Heatmaps(("x", "y")),
)


@pytest.mark.parametrize("frame_size", [(90, 160), (160, 90), (102, 240), (240, 102), (75, 100), (16, 240)])
@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_what_is_seen_at_a_place_is_predicted_at_that_place_to_a_pixel(kind, frame_size):
    """The frame says where its pixels are, so that the input, taken for a prediction, says it of the prediction's."""
    y_HW, x_HW = np.mgrid[: frame_size[0], : frame_size[1]]
    places = np.stack([x_HW, y_HW, np.zeros_like(x_HW)], axis=-1)
    plan = plan_input(frame_size, 14, size=(224, 308), short_side=None, resize="aspect")
    seen = resize_frame(places.astype(np.uint8), plan).permute(1, 2, 0).numpy()
    for axis, place_HW in enumerate((x_HW, y_HW)):
        value = {
            "classes": seen[..., axis],
            "scalar": seen[..., axis].astype(np.float32),
            "vector": seen.astype(np.float32),
            "heatmaps": seen[..., :2].astype(np.float32),
        }[kind.name]
        found = to_frame_size(value, kind, plan)
        found = found[..., axis] if found.ndim == 3 else found
        assert found.shape == frame_size
        assert np.abs(found.astype(np.float32) - place_HW).max() <= 1


def test_letterbox_margins_are_cut_off():
    plan = plan_input((4, 8), 2, size=(8, 8), short_side=None, resize="letterbox")
    value = np.full((8, 8), np.nan, np.float32)
    value[2:6] = np.arange(32, dtype=np.float32).reshape(4, 8)
    np.testing.assert_array_equal(to_frame_size(value, Heatmaps(), plan), value[2:6])


def test_maps_of_the_right_size_pass_and_read_only_ones_are_taken():
    value = np.random.default_rng(0).random((4, 6), np.float32)
    np.testing.assert_array_equal(resize_map(value, stretched((4, 6), (4, 6)), "linear"), value)
    value.flags.writeable = False
    assert resize_map(value, stretched((8, 12), (4, 6)), "linear").shape == (8, 12)
