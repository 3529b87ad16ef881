"""A few boxes, no furniture: exact depth, normals and classes in the conventions."""

import numpy as np
import pytest

from deltascene.pipeline.training.rooms.backdrop import light_backdrop, light_over, make_backdrop, overlay
from deltascene.pipeline.training.rooms.labels import class_id
from deltascene.pipeline.training.rooms.lighting import Light, Lighting
from deltascene.pipeline.training.rooms.rays import Camera, look_at
from deltascene.pipeline.training.rooms.render import World, expose, paint_view, see, shade, to_bytes, truth_of
from deltascene.pipeline.training.rooms.soup import Material, Soup, box, join, move, quad, yaw_matrix
from deltascene.pipeline.training.rooms.surfels import Posed, at_rest, make_body

pytestmark = pytest.mark.usefixtures("needs_embree")

GREY = Material((0.5, 0.5, 0.5))
MOOD = Lighting(
    lights=(Light((1.0, 3.0, 2.0), (0.8, 0.8, 0.8), 3.0, True), Light((-2.0, 2.0, 1.0), (0.3, 0.3, 0.3), 3.0, False)),
    sky_rgb=(0.3, 0.3, 0.3),
    ground_rgb=(0.2, 0.2, 0.2),
    exposure=0.2,
    zenith_rgb=(0.3, 0.5, 0.9),
    horizon_rgb=(0.8, 0.9, 1.0),
)


def floor_and_box() -> Soup:
    """A floor at y = 0 and a box of 1 m whose front is at z = -2.5."""
    corners = np.array([[-5, 0, -5], [5, 0, -5], [5, 0, 5], [-5, 0, 5]], dtype=float)
    floor = quad(corners, GREY, class_id("floor"), 0, 1.0)
    table = box(np.array([1.0, 1.0, 1.0]), Material((0.8, 0.2, 0.2)), class_id("table"), 1)
    return join([floor, move(table, np.eye(3), np.array([0.0, 0.0, -3.0]))])


def straight_camera() -> Camera:
    """Half a metre above the floor, looking along -z with 90 degrees of view both ways."""
    eye = np.array([0.0, 0.5, 0.0])
    return Camera(eye, look_at(eye, np.array([0.0, 0.5, -1.0])), (1.0, 1.0))


def test_camera_axes_are_right_down_ahead() -> None:
    assert np.allclose(straight_camera().axes_33, [[1, 0, 0], [0, -1, 0], [0, 0, -1]])


def test_depth_is_along_the_axis_and_exact() -> None:
    camera = straight_camera()
    picture = paint_view(World((at_rest(floor_and_box()),), MOOD), camera, 40, 40)
    truth = truth_of(picture.surfels, camera, 40, 40)
    # The box front fills |x|, |y| < 0.5 at z = 2.5: a fifth of the view to each side, columns and rows 16 to 23.
    assert np.array_equal(np.unique(truth.depth_HW[16:24, 16:24]), [np.float16(2.5)])
    row = 38
    down = (row + 0.5) / 40 * 2 - 1
    assert np.allclose(truth.depth_HW[row].astype(float), 0.5 / down, atol=1e-3)


def test_classes_and_invalid_sky() -> None:
    camera = straight_camera()
    picture = paint_view(World((at_rest(floor_and_box()),), MOOD), camera, 40, 40)
    truth = truth_of(picture.surfels, camera, 40, 40)
    assert set(np.unique(truth.seg_HW[16:24, 16:24])) == {class_id("table")}
    assert set(np.unique(truth.seg_HW[30:])) == {class_id("floor")}
    sky = truth.seg_HW == class_id("sky")
    assert sky[:10].all()
    assert (truth.depth_HW[sky] == 0).all()
    assert (truth.normals_HW3[sky] == 0).all()


def test_normals_are_in_camera_axes_toward_the_camera() -> None:
    camera = straight_camera()
    truth = truth_of(paint_view(World((at_rest(floor_and_box()),), MOOD), camera, 40, 40).surfels, camera, 40, 40)
    assert (truth.normals_HW3[16:24, 16:24] == [0, 0, -127]).all()
    assert (truth.normals_HW3[36:] == [0, -127, 0]).all()


def test_every_normal_faces_its_ray() -> None:
    eye = np.array([2.0, 1.7, 0.5])
    camera = Camera(eye, look_at(eye, np.array([0.0, 0.4, -3.0])), (0.8, 0.6))
    turned = move(floor_and_box(), yaw_matrix(0.7), np.zeros(3))
    truth = truth_of(see(World((at_rest(turned),), MOOD), camera, camera.rays(30, 40), 0.02), camera, 30, 40)
    along = (truth.normals_HW3.astype(float).reshape(-1, 3) * camera.rays(30, 40)).sum(axis=1)
    assert (along[truth.depth_HW.ravel() > 0] < 0).all()


def test_box_outline_is_an_edge_on_the_box() -> None:
    camera = straight_camera()
    truth = truth_of(paint_view(World((at_rest(floor_and_box()),), MOOD), camera, 40, 40).surfels, camera, 40, 40)
    assert (truth.edges_HW[17:22, 16] == 255).all()
    assert (truth.edges_HW[17:22, 15] == 0).all()
    assert (truth.edges_HW[18:22, 18:22] == 0).all()


def test_any_size_sees_the_same_field_of_view() -> None:
    camera = straight_camera()
    world = World((at_rest(floor_and_box()),), MOOD)
    small = truth_of(see(world, camera, camera.rays(20, 20), 0.1), camera, 20, 20)
    large = truth_of(see(world, camera, camera.rays(60, 60), 0.1), camera, 60, 60)
    assert np.array_equal(small.seg_HW, large.seg_HW[1::3, 1::3])
    assert np.array_equal(small.depth_HW, large.depth_HW[1::3, 1::3])


def test_the_box_throws_a_shadow() -> None:
    camera = straight_camera()
    world = World((at_rest(floor_and_box()),), MOOD)
    free = World(world.bodies, Lighting(**{**MOOD.__dict__, "lights": tuple(
        Light(light.position_3, light.rgb, light.reach_m, False) for light in MOOD.lights)}))  # fmt: skip
    surfels = see(world, camera, camera.rays(40, 40), 0.05)
    dark, light = shade(world, surfels).sum(axis=1), shade(free, surfels).sum(axis=1)
    assert (dark <= light + 1e-6).all()
    assert (dark < light * 0.9).any()


def test_picture_is_not_black_and_repeats_byte_for_byte() -> None:
    camera = straight_camera()
    pictures = []
    for _ in range(2):
        picture = paint_view(World((at_rest(floor_and_box()),), MOOD), camera, 40, 40)
        pictures.append(to_bytes(picture.radiance_HW3, expose(MOOD, picture)))
    assert 40 < pictures[0].mean() < 220
    assert np.array_equal(pictures[0], pictures[1])


@pytest.mark.parametrize("yaw", [0.0, 0.8])
def test_overlay_equals_tracing_everything(yaw: float) -> None:
    camera = straight_camera()
    room = at_rest(floor_and_box())
    ball = make_body(box(np.array([0.4, 0.8, 0.4]), Material((0.1, 0.6, 0.2)), class_id("person"), 9))
    moved = Posed(ball, yaw_matrix(yaw), np.array([0.6, 0.0, -1.8]))
    world = World((room, moved), MOOD)
    back = make_backdrop(room, camera, 32, 32)
    lit = light_backdrop(back, World((room,), MOOD))
    direct = see(world, camera, camera.rays(32, 32), back.sample_rad)
    over, covered = overlay(back, (moved,))
    assert covered.any()
    for name in ("z_R", "class_R", "normal_R3", "albedo_R3"):
        assert np.array_equal(getattr(over, name), getattr(direct, name)), name
    assert np.allclose(light_over(lit, world), shade(world, direct), atol=1e-6)
