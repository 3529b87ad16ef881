import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltascene.pipeline.training.rooms.truth import (
    Truth,
    assemble,
    changed_share,
    creases,
    depth_steps,
    edge_map,
    encode_depth,
    encode_normals,
)


def facing(height: int, width: int) -> np.ndarray:
    normals = np.zeros((height, width, 3), dtype=np.float32)
    normals[..., 2] = -1
    return normals


def test_depth_is_metres_and_zero_where_invalid() -> None:
    stored = encode_depth(np.array([[2.5, np.inf, -1.0, np.nan]], dtype=np.float32))
    assert stored.dtype == np.float16
    assert stored.tolist() == [[2.5, 0.0, 0.0, 0.0]]


def test_normals_are_rounded_to_127() -> None:
    stored = encode_normals(np.array([[[0.6, 0.0, -0.8], [0.0, 0.0, 0.0]]], dtype=np.float32))
    assert stored.dtype == np.int8
    assert stored.tolist() == [[[76, 0, -102], [0, 0, 0]]]


def test_step_is_marked_on_the_nearer_side_only() -> None:
    z = np.full((4, 6), 4.0, dtype=np.float32)
    z[:, 3:] = 2.0
    edges = edge_map(z, facing(4, 6), np.zeros((4, 6), dtype=np.uint8))
    assert edges.dtype == np.uint8
    assert np.array_equal(edges, np.tile([0, 0, 0, 255, 0, 0], (4, 1)))


def test_small_step_is_no_edge() -> None:
    z = np.full((3, 6), 4.0, dtype=np.float32)
    z[:, 3:] = 3.9
    assert not edge_map(z, facing(3, 6), np.zeros((3, 6), dtype=np.uint8)).any()


def test_one_pixel_wide_thing_is_an_edge_once() -> None:
    z = np.full((3, 7), 4.0, dtype=np.float32)
    z[:, 3] = 2.0
    edges = edge_map(z, facing(3, 7), np.zeros((3, 7), dtype=np.uint8))
    assert np.array_equal(edges[1], [0, 0, 0, 255, 0, 0, 0])


def test_sky_counts_as_farther_than_anything() -> None:
    z = np.full((2, 4), np.inf, dtype=np.float32)
    z[:, 2:] = 30.0
    edges = edge_map(z, facing(2, 4), np.zeros((2, 4), dtype=np.uint8))
    assert np.array_equal(edges[0], [0, 0, 255, 0])


@given(slope=st.floats(-0.9, 0.9), distance=st.floats(0.5, 9.0))
def test_a_slanted_plane_has_no_step(slope: float, distance: float) -> None:
    x = (np.arange(12) + 0.5) / 12 * 2 - 1
    inverse = np.tile((1 + slope * x) / distance, (3, 1))
    assert not depth_steps(inverse).any()


def test_class_boundary_between_equal_depths_is_left_of_it() -> None:
    seg = np.array([[1, 1, 2, 2]] * 3, dtype=np.uint8)
    edges = edge_map(np.ones((3, 4), dtype=np.float32), facing(3, 4), seg)
    assert np.array_equal(edges[0], [0, 255, 0, 0])


def test_class_boundary_down_the_picture_is_above_it() -> None:
    seg = np.array([[1] * 3, [1] * 3, [2] * 3, [2] * 3], dtype=np.uint8)
    edges = edge_map(np.ones((4, 3), dtype=np.float32), facing(4, 3), seg)
    assert np.array_equal(edges[:, 1], [0, 255, 0, 0])


@pytest.mark.parametrize(("angle_deg", "expected"), [(90, 1), (40, 1), (31, 1), (29, 0), (10, 0)])
def test_crease_over_30_degrees_is_one_pair(angle_deg: float, expected: int) -> None:
    normals = facing(5, 10)
    angle = np.radians(angle_deg)
    normals[:, 5:] = [np.sin(angle), 0, -np.cos(angle)]
    found = creases(normals)
    assert np.array_equal(np.flatnonzero(found[2]), [4] * expected)


def test_a_gentle_curve_has_no_crease() -> None:
    angle = np.radians(np.arange(20) * 8.0)
    row = np.stack([np.sin(angle), np.zeros(20), -np.cos(angle)], axis=1).astype(np.float32)
    assert not creases(np.tile(row, (4, 1, 1))).any()


def test_pixels_without_a_normal_make_no_crease() -> None:
    normals = facing(3, 8)
    normals[:, 4:] = 0
    assert not creases(normals).any()


def test_assemble_gives_the_stored_types() -> None:
    truth = assemble(np.ones((3, 4), dtype=np.float32), facing(3, 4), np.zeros((3, 4), dtype=np.uint8))
    kinds = [truth.seg_HW.dtype, truth.depth_HW.dtype, truth.normals_HW3.dtype, truth.edges_HW.dtype]
    assert kinds == [np.uint8, np.float16, np.int8, np.uint8]


def still(seg: np.ndarray, depth: float) -> Truth:
    return assemble(np.full(seg.shape, depth, dtype=np.float32), facing(*seg.shape), seg)


def test_changed_share_looks_back_over_the_window() -> None:
    base = np.zeros((2, 5), dtype=np.uint8)
    other = base.copy()
    other[0, 0] = 7
    frames = [still(base, 2.0)] * 3 + [still(other, 2.0)] + [still(base, 2.0)] * 4
    assert changed_share(frames, window=2).tolist() == pytest.approx([0.0, 0.1, 0.1, 0.1, 0.0, 0.0])


def test_changed_share_sees_a_change_of_depth_alone() -> None:
    base = np.zeros((2, 5), dtype=np.uint8)
    assert changed_share([still(base, 2.0), still(base, 2.2)], window=1).tolist() == [1.0]
