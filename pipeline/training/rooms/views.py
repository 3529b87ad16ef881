"""Choice of camera positions in a room by what they see."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from deltascene.pipeline.training.rooms.errors import RoomImpossible
from deltascene.pipeline.training.rooms.labels import CLASSES, class_id
from deltascene.pipeline.training.rooms.rays import Camera, cast, look_at
from deltascene.pipeline.training.rooms.scene import Scene
from deltascene.pipeline.training.rooms.space import Extent
from deltascene.pipeline.training.rooms.surfels import Posed

PROBE_HW = (24, 32)
CLEAR_M = 0.3


@dataclass(frozen=True)
class ViewConfig:
    """Criteria of a good view.

    Attributes:
        aspect: width over height of the image plane.
        field_deg: minimum and maximum horizontal field of view.
        eye_m: minimum and maximum height of the camera.
        near_m: at most a twentieth of the view may be nearer than this.
        far_m: minimum of the median depth.
        most_of_one: maximum share of one thing other than wall, floor, ceiling, door, window or sky.
        most_wall: maximum share of walls.
        least_things: minimum share of furniture, people and other things.
        least_classes: minimum number of classes that cover half a percent of the view each.
        tries: number of views that are tried; at least half of the requested number must be good.
    """

    aspect: float = 308 / 224
    field_deg: tuple[float, float] = (56.0, 82.0)
    eye_m: tuple[float, float] = (0.9, 1.8)
    near_m: float = 0.6
    far_m: float = 1.4
    most_of_one: float = 0.42
    most_wall: float = 0.7
    least_things: float = 0.16
    least_classes: int = 5
    tries: int = 250


def choose_views(rng: Generator, scene: Scene, posed: Posed, count: int, config: ViewConfig) -> list[Camera]:
    """Draws views until `count` of them are good; half as many are enough when all tries are used up.

    Raises:
        RoomImpossible: fewer than half of them are good.
    """
    found: list[Camera] = []
    for _ in range(config.tries):
        camera = _draw(rng, scene, config)
        if camera is not None and _is_good(camera, posed, config):
            found.append(camera)
        if len(found) == count:
            break
    if len(found) * 2 >= count:
        return found
    raise RoomImpossible(f"{len(found)} of {count} views of a {scene.kind} are good after {config.tries} tries")


def _draw(rng: Generator, scene: Scene, config: ViewConfig) -> Camera | None:
    """A random camera that looks towards a thing; None where it would stand in furniture."""
    space = scene.space
    margin = np.array([space.width_m, space.depth_m]) / 2 - 0.2
    x, z = rng.uniform(-1, 1, 2) * margin
    eye = np.array([x, rng.uniform(*config.eye_m), z])
    if any(stands_in(extent, eye) for extent in space.taken):
        return None
    target = _goal(rng, space.taken) + rng.normal(0, 0.25, 3)
    away = target - eye
    level = float(np.hypot(away[0], away[2]))
    if level < 0.8:
        return None
    pitch = np.clip(np.arctan2(away[1], level), -0.45, 0.18) + rng.normal(0, 0.05)
    target = eye + np.array([away[0] / level, np.tan(pitch), away[2] / level])
    half = np.tan(np.radians(rng.uniform(*config.field_deg)) / 2)
    return Camera(eye, look_at(eye, target, float(rng.normal(0, 0.015))), (float(half), float(half / config.aspect)))


def _goal(rng: Generator, taken: list[Extent]) -> NDArray[np.float64]:
    """Centre of a thing, drawn with the root of its volume as weight; above the origin where there is none."""
    if not taken:
        return np.array([0.0, 1.0, 0.0])
    low, high = np.array([extent.low for extent in taken]), np.array([extent.high for extent in taken])
    weight = np.sqrt(np.maximum(high - low, 0.02).prod(axis=1))
    pick = int(rng.choice(len(taken), p=weight / weight.sum()))
    return np.asarray((low[pick] + high[pick]) / 2)


def stands_in(extent: Extent, eye_3: NDArray[np.float64]) -> bool:
    """Whether a camera on a tripod would collide with a box: one nearby that reaches up to the camera's height."""
    grown = extent.grown(CLEAR_M)
    beside = grown.low[0] < eye_3[0] < grown.high[0] and grown.low[2] < eye_3[2] < grown.high[2]
    return bool(beside and extent.low[1] < eye_3[1] + 0.2 and extent.high[1] > eye_3[1] - 0.5)


def _is_good(camera: Camera, posed: Posed, config: ViewConfig) -> bool:
    rays_R3 = camera.rays(*PROBE_HW) @ camera.axes_33.astype(np.float32)
    origins_R3 = np.broadcast_to(camera.position_3.astype(np.float32), rays_R3.shape)
    hits = cast(posed.body.tracer, origins_R3, rays_R3)
    depth_R = np.minimum(hits.distance_R, 1e3)
    soup, hit = posed.body.soup, hits.triangle_R >= 0
    classes = np.where(hit, soup.class_F[hits.triangle_R], class_id("sky"))
    things = np.where(hit, soup.instance_F[hits.triangle_R], -1)
    backdrop = np.isin(classes, [class_id(name) for name in ("wall", "floor", "ceiling", "sky", "door", "window")])
    share = np.bincount(classes, minlength=len(CLASSES)) / len(classes)
    biggest = np.bincount(things[~backdrop]).max() / len(things) if (~backdrop).any() else 0.0
    return bool(
        float(np.quantile(depth_R, 0.05)) > config.near_m
        and float(np.median(depth_R)) > config.far_m
        and float(biggest) < config.most_of_one
        and 1 - float(backdrop.mean()) > config.least_things
        and float(share[class_id("wall")]) < config.most_wall
        and int((share > 0.005).sum()) >= config.least_classes
    )
