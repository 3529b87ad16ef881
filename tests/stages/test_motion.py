"""Flow and warping: content is found where it came from, everything else stays where it is."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltascene.stages.kinds import Classes, Heatmaps, Scalar, Vector, unit_vectors
from deltascene.stages.motion import (
    STEPS_PER_PIXEL,
    Lookup,
    Part,
    estimate_flow,
    find_corners,
    flow_residual,
    flow_size,
    no_flow,
    plan_lookup,
    standing_share,
    to_grey,
    warp,
    warp_age,
)
from deltascene.stages.types import TokenGrid

GRID = TokenGrid(height=16, width=22, patch=14, prefix=1)


def texture(height, width, seed=0):
    noise = np.random.default_rng(seed).random((height, width), np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 10, 245, cv2.NORM_MINMAX).astype(np.uint8)


def shifted(dx, dy, seed=0):
    """Two views of one texture: content lies (dx, dy) further right and down in the second."""
    whole, (height, width) = texture(300, 400, seed), GRID.image_size
    return (whole[30 : 30 + height, 30 : 30 + width], whole[30 - dy :, 30 - dx :][:height, :width])


@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (0, -4), (-5, 2), (8, 6), (0, 0)])
def test_a_shifted_picture_flows_by_its_shift(dx, dy):
    computed, now = shifted(dx, dy)
    flow = estimate_flow(now, computed, np.ones((16, 22), bool), GRID)
    assert (flow.shape, flow.dtype) == ((2, 56, 77), np.int16)
    inner = flow[:, 4:-4, 4:-4] / STEPS_PER_PIXEL  # at the edge, content comes from outside
    assert np.abs(inner - np.array([-dx, -dy])[:, None, None]).max() < 0.5


def test_an_object_flows_and_its_surroundings_do_not():
    still = texture(*GRID.image_size, seed=1)
    thing = texture(42, 42, seed=2)
    computed, now = still.copy(), still.copy()
    computed[84:126, 84:126] = thing
    now[84 + 2 : 126 + 2, 84 + 5 : 126 + 5] = thing
    changed = (computed != now).reshape(16, 14, 22, 14).any((1, 3))
    flow = estimate_flow(now, computed, changed, GRID) / STEPS_PER_PIXEL
    inside = flow[:, (84 + 10) // 4 : 118 // 4, (84 + 13) // 4 : 118 // 4]
    assert np.abs(inside - np.array([-5, -2])[:, None, None]).max() < 1
    near = cv2.dilate(changed.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    far = ~cv2.resize(near.astype(np.uint8), (77, 56), interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)
    assert far.mean() > 0.7
    assert not flow[:, far].any()
    # and where nothing flows, outputs stand byte for byte, but for the pixels between two flow vectors
    value = np.random.default_rng(3).random(GRID.image_size, np.float32)
    warped = warp(value, Scalar("m"), plan_lookup((flow * STEPS_PER_PIXEL).astype(np.int16), GRID.image_size))
    away = cv2.erode((~near).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool).repeat(14, 0).repeat(14, 1)
    np.testing.assert_array_equal(warped[away], value[away])


def test_nothing_moved_is_no_flow():
    computed, now = shifted(4, 4)
    assert not estimate_flow(now, computed, np.zeros((16, 22), bool), GRID).any()


@settings(max_examples=60)
@given(st.integers(1, 9), st.integers(1, 24), st.sampled_from([4, 7, 8, 14, 16]), st.integers(0, 2**16), st.data())
def test_any_grid_has_a_flow(height, width, patch, seed, data):
    """Thin and tiny pictures too, on which OpenCV's search fails or crashes as it is."""
    grid = TokenGrid(height, width, patch, 0)
    if data.draw(st.booleans()):
        grid = TokenGrid(width, height, patch, 0)
    rng = np.random.default_rng(seed)
    now, computed = rng.integers(0, 256, (2, *grid.image_size), np.uint8)
    moved = rng.random((grid.height, grid.width)) < data.draw(st.sampled_from([0.05, 0.5, 1.0]))
    search = data.draw(st.sampled_from([None, no_flow(grid.image_size)]))
    flow = estimate_flow(now, computed, moved, grid, search)
    assert flow.shape == (2, *flow_size(grid.image_size))
    assert flow.shape[1:] == (-(-grid.height * patch // 4), -(-grid.width * patch // 4))
    np.testing.assert_array_equal(flow, estimate_flow(now, computed, moved, grid, search))
    where = plan_lookup(flow, grid.image_size)
    for at, length in zip(positions(where, grid.image_size), grid.image_size, strict=True):
        assert at.min() >= 0
        assert at.max() <= length - 1
    if not moved.any():
        assert not flow.any()


def at_positions(x, y):
    """A lookup of the whole picture."""
    return Lookup([Part((slice(0, x.shape[0]), slice(0, x.shape[1])), x, y)])


def positions(where, size):
    """Row and column at which every pixel is looked up."""
    y, x = (axis.astype(np.float32) for axis in np.indices(size))
    for part in where.parts:
        y[part.box], x[part.box] = part.y, part.x
    return y, x


def by(dx, dy, height=9, width=11):
    """Every pixel is looked up (dx, dy) away."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32) + np.float32(dx), np.arange(height, dtype=np.float32) + dy)
    return at_positions(np.clip(x, 0, width - 1).astype(np.float32), np.clip(y, 0, height - 1).astype(np.float32))


def test_labels_are_taken_from_the_nearest_pixel():
    for dtype in (np.uint8, np.uint16):
        labels = np.random.default_rng(1).integers(0, 250, (9, 11)).astype(dtype)
        kind = Classes(tuple(map(str, range(250))))
        found = warp(labels, kind, by(2.3, -1.2))
        assert found.dtype == dtype
        np.testing.assert_array_equal(found[1:, :-3], labels[:-1, 2:-1])
        np.testing.assert_array_equal(found[0], np.concatenate([labels[0, 2:], labels[0, [-1, -1]]]))


def test_numbers_are_blended_and_vectors_keep_their_length():
    depth = np.add.outer(np.arange(9), 2 * np.arange(11)).astype(np.float32)
    np.testing.assert_allclose(warp(depth, Scalar("m"), by(0.5, 0.25))[:-1, :-1], (depth + 1.25)[:-1, :-1], atol=1e-5)
    raw = np.random.default_rng(2).normal(size=(9, 11, 3)).astype(np.float32)
    vectors = raw / np.linalg.norm(raw, axis=-1, keepdims=True)
    found = warp(vectors, Vector(3), by(0.5, 0))
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-5)
    middle = vectors[:, :-1] + vectors[:, 1:]
    np.testing.assert_allclose(found[:, :-1], middle / np.linalg.norm(middle, axis=-1, keepdims=True), atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9])
def test_any_number_of_maps_is_warped_alike(count):
    """OpenCV takes four at a time."""
    kind = Heatmaps(tuple(f"map {number}" for number in range(count)))
    maps = np.random.default_rng(count).random((9, 11, count), np.float32)
    value = maps[..., 0] if count == 1 else maps
    expected = [warp(maps[..., number].copy(), Heatmaps(), by(-1.5, 0.5)) for number in range(count)]
    found = warp(value, kind, by(-1.5, 0.5))
    assert found.shape == value.shape
    np.testing.assert_allclose(found.reshape(9, 11, -1), np.stack(expected, -1), atol=1e-6)


def test_a_kind_may_ask_for_the_nearest_pixel():
    value = np.random.default_rng(3).random((9, 11), np.float32)
    found = warp(value, Scalar("m", resample="nearest"), by(0.4, 0.4))
    np.testing.assert_array_equal(found, value)


def test_ages_travel_with_the_outputs():
    age = np.random.default_rng(4).integers(0, 256, (9, 11), np.uint8)
    found = warp_age(age, by(3, 0))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[:, :-3], age[:, 3:])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(-5 * 32, 5 * 32), st.integers(-5 * 32, 5 * 32))
def test_a_flow_of_one_vector_moves_every_pixel_by_it(height, width, x, y):
    flow = np.empty((2, *flow_size((height, width))), np.int16)
    flow[0], flow[1] = x, y
    where = plan_lookup(flow, (height, width))
    expected = positions(by(x / 32, np.float32(y / 32), height, width), (height, width))
    np.testing.assert_allclose(positions(where, (height, width)), expected, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 90), st.integers(3, 90), st.sampled_from([0.0, 0.003, 0.03, 1.0]), st.integers(0, 2**16))
def test_only_what_flows_is_looked_up_and_that_is_the_same_as_looking_all_up(height, width, share, seed):
    rng, size = np.random.default_rng(seed), (height, width)
    flow = rng.integers(-300, 300, (2, *flow_size(size)), np.int16)
    flow *= rng.random(flow.shape[1:]) < share
    where, (down, right) = plan_lookup(flow, size), (vector_of(side) for side in size)
    y, x = (plane[down][:, right] / np.float32(32) for plane in flow[::-1])
    y, x = np.clip(y + np.arange(height)[:, None], 0, height - 1), np.clip(x + np.arange(width), 0, width - 1)
    y, x = y.astype(np.float32), x.astype(np.float32)
    np.testing.assert_array_equal(positions(where, size), (y, x))
    everywhere = at_positions(x, y)
    labels, numbers = rng.integers(0, 255, size).astype(np.uint8), rng.random((*size, 7), np.float32)
    vectors = rng.normal(size=(*size, 3)).astype(np.float32)
    for kind, value in ((Classes(("a", "b")), labels), (Heatmaps(tuple("abcdefg")), numbers)):
        np.testing.assert_array_equal(warp(value, kind, where), warp(value, kind, everywhere))
    taken = [cv2.remap(part.copy(), x, y, cv2.INTER_LINEAR) for part in np.moveaxis(vectors, -1, 0)]
    np.testing.assert_array_equal(warp(vectors, Vector(3), where), unit_vectors(np.dstack(taken)))


def vector_of(side):
    """The flow vector of every pixel along a side, as OpenCV enlarges to the nearest."""
    vectors = np.arange(-(-side // 4), dtype=np.float32)[None]
    return cv2.resize(vectors, (side, 1), interpolation=cv2.INTER_NEAREST)[0].astype(int)


def test_a_search_in_boxes_finds_the_same_motion():
    """Two objects, one small and one of half the picture; what is far from both is neither searched nor moved."""
    still, near = texture(*GRID.image_size, seed=1), texture(42, 42, seed=2)
    computed, now = still.copy(), still.copy()
    computed[10:52, 240:282], now[12:54, 235:277] = near, near
    large = texture(200, 160, seed=3)
    computed[20:220, 4:164], now[16:216, 10:170] = large, large
    changed = (computed != now).reshape(16, 14, 22, 14).any((1, 3))
    flow = estimate_flow(now, computed, changed, GRID, no_flow(now.shape)) / STEPS_PER_PIXEL
    for box, moved in (((slice(20, 50), slice(243, 270)), (5, -2)), ((slice(30, 200), slice(20, 150)), (-6, 4))):
        found = flow[(slice(None), *(slice(part.start // 4, part.stop // 4) for part in box))]
        assert (np.abs(found - np.array(moved)[:, None, None]).max(0) < 1).mean() > 0.9
    grown = cv2.dilate(changed.astype(np.uint8), np.ones((3, 3), np.uint8))
    far = cv2.resize(grown, (77, 56), interpolation=cv2.INTER_NEAREST_EXACT) == 0
    assert far.any()
    assert not flow[:, far].any()


def test_grey_is_what_the_eye_sees():
    pixels = np.zeros((3, 2, 3), np.uint8)
    pixels[:, 0] = np.eye(3) * 255
    assert to_grey(pixels)[0].tolist() == [76, 150, 29]


def speckled(seed, size=(112, 168)):
    """Squares of many greys: corners everywhere."""
    squares = np.random.default_rng(seed).integers(40, 220, (size[0] // 7, size[1] // 7), np.uint8)
    return squares.repeat(7, 0).repeat(7, 1)


def test_corners_stand_before_a_still_camera_whatever_walks_by():
    room, walkers = speckled(0), speckled(1)
    assert standing_share(room, room, find_corners(room)) == 1
    crowd = room.copy()
    crowd[:, 20:130] = np.roll(walkers, 5, axis=1)[:, 20:130]
    before = room.copy()
    before[:, 20:130] = walkers[:, 20:130]
    assert 0.2 < standing_share(crowd, before, find_corners(before)) < 0.6


@pytest.mark.parametrize("step", [(0, 3), (2, 0), (-2, 4)])
def test_no_corner_stands_before_a_moving_camera(step):
    wide = speckled(0, (140, 196))
    before, after = wide[10:122, 10:178], wide[10 + step[0] : 122 + step[0], 10 + step[1] : 178 + step[1]]
    assert standing_share(np.ascontiguousarray(after), before, find_corners(before)) < 0.05


def share_of_all(now, computed, untold):
    """Every corner followed there and back at once."""
    corners = cv2.goodFeaturesToTrack(computed, 100, 0.02, 8)
    found, is_found, _ = cv2.calcOpticalFlowPyrLK(computed, now, corners, np.empty_like(corners), winSize=(11, 11))
    back, is_back, _ = cv2.calcOpticalFlowPyrLK(now, computed, found, np.empty_like(corners), winSize=(11, 11))
    back_there, still = (np.abs(points - corners).max((1, 2)) < 0.75 for points in (back, found))
    again = (is_found & is_back)[:, 0].astype(bool) & back_there
    return untold if again.sum() < 12 else float(still[again].mean())


@settings(max_examples=30)
@given(st.integers(0, 168), st.integers(-6, 6), st.integers(0, 50), st.sampled_from([0.0, 1.0]), st.integers(0, 2**16))
def test_as_many_corners_are_followed_as_decide(width, step, noise, untold, seed):
    """A part of the picture goes on by some pixels, and it may be too noisy to find anything again."""
    computed, rng = speckled(seed), np.random.default_rng(seed)
    now = computed.copy()
    now[:, :width] = np.roll(computed, step, 1)[:, :width]
    now = np.clip(now + rng.normal(0, noise, now.shape), 0, 255).astype(np.uint8)
    share = share_of_all(now, computed, untold)
    assert standing_share(now, computed, find_corners(computed), untold) == share
    for enough in (0.05, 0.2, 0.6):
        found = standing_share(now, computed, find_corners(computed), untold, enough)
        assert enough <= found <= share if share >= enough else found == share


def test_without_corners_nothing_is_known_to_stand():
    flat = np.full((112, 168), 90, np.uint8)
    assert standing_share(flat, flat, find_corners(flat)) == 0


def test_a_search_that_goes_on_follows_what_one_from_nothing_loses():
    """Fine texture that glides by 4 pixels a frame: after six of them its coarse levels fit wherever."""
    texture = cv2.GaussianBlur(np.random.default_rng(3).integers(0, 255, (260, 400), np.uint8), (0, 0), 1.2)
    film = [np.ascontiguousarray(texture[20:244, 20 + 4 * step : 328 + 4 * step]) for step in range(7)]
    moved, flow = np.ones((16, 22), bool), np.zeros((2, 56, 77), np.int16)
    for image in film[1:]:
        flow = estimate_flow(image, film[0], moved, GRID, flow)
    inner = (slice(8, -8), slice(16, -16))
    afresh = estimate_flow(film[-1], film[0], moved, GRID)
    wrong, wrong_afresh = (np.mean(np.abs(found[0][inner] / STEPS_PER_PIXEL - 24) > 1) for found in (flow, afresh))
    assert wrong < 0.02
    assert wrong_afresh > 2 * wrong


@pytest.mark.parametrize("contrast", [1, 40])
def test_what_no_flow_explains_is_a_share_of_the_texture_unless_there_is_next_to_none(contrast):
    """The same noise says little in a picture without texture, where it would be most of it."""
    squares = np.random.default_rng(0).integers(0, 2, (28, 42)).repeat(4, 0).repeat(4, 1) * contrast + 100
    before = squares.astype(np.uint8)
    now = (before + 3).astype(np.uint8)
    texture = sum(np.abs(np.diff(squares[::4, ::4], axis=axis)).mean() for axis in (0, 1))
    residual = flow_residual(no_flow(before.shape), now, before, 1.0, GRID)
    assert residual == pytest.approx(3 / max(texture, 12), rel=0.01)
