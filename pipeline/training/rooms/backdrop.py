"""A still camera's view of a room at rest, computed once, and frames with moving bodies over it.

The room's own surface points, shadows and light are reused. The result equals tracing all bodies anew, sample by
sample.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.training.rooms.lighting import lit_by, radiance, visibility
from deltascene.pipeline.training.rooms.rays import Camera
from deltascene.pipeline.training.rooms.render import World, sample_angle
from deltascene.pipeline.training.rooms.surfels import Posed, Surfels, dot, look, take


@dataclass(frozen=True)
class Backdrop:
    """View of the room at rest by a still camera.

    Attributes:
        camera: the camera.
        sample_rad: angle of one ray.
        rays_R3: its rays.
        surfels: surface points of the room.
    """

    camera: Camera
    sample_rad: float
    rays_R3: NDArray[np.float32]
    surfels: Surfels


@dataclass(frozen=True)
class LitBackdrop:
    """A backdrop with its light.

    Attributes:
        backdrop: the surface points.
        visible_LR: whether each light reaches each point of the room at rest.
        radiance_R3: linear light of each point of the room at rest.
    """

    backdrop: Backdrop
    visible_LR: NDArray[np.bool_]
    radiance_R3: NDArray[np.float32]


def make_backdrop(room: Posed, camera: Camera, height: int, width: int) -> Backdrop:
    """Traces the room at rest at a given size."""
    rays_R3, angle = camera.rays(height, width), sample_angle(camera, height)
    return Backdrop(camera, angle, rays_R3, look(room, camera, rays_R3, angle))


def light_backdrop(backdrop: Backdrop, world: World) -> LitBackdrop:
    """Lights the room at rest; only the world's first body casts shadows."""
    visible_LR = visibility(world.lighting, [world.bodies[0]], backdrop.surfels)
    return LitBackdrop(backdrop, visible_LR, radiance(world.lighting, backdrop.surfels, visible_LR))


def overlay(backdrop: Backdrop, movers: tuple[Posed, ...]) -> tuple[Surfels, NDArray[np.bool_]]:
    """Surface points with moving bodies in front, and whether a ray hits a moving body [R]."""
    arrays = {name: getattr(backdrop.surfels, name).copy() for name in Surfels.__dataclass_fields__}
    covered_R = np.zeros(len(backdrop.rays_R3), dtype=bool)
    for posed in movers:
        near = _near(posed, backdrop)
        seen = look(posed, backdrop.camera, backdrop.rays_R3[near], backdrop.sample_rad)
        wins = seen.z_R < arrays["z_R"][near]
        rows = near[wins]
        covered_R[rows] = True
        for name in arrays:
            arrays[name][rows] = getattr(seen, name)[wins]
    return Surfels(**arrays), covered_R


def _near(posed: Posed, backdrop: Backdrop) -> NDArray[np.int64]:
    """Indices of the rays that meet the body's bounding ball."""
    centre = posed.rotation_33 @ posed.body.centre_3 + posed.shift_3 - backdrop.camera.position_3
    own_3 = (backdrop.camera.axes_33 @ centre).astype(np.float32)
    along_R = backdrop.rays_R3 @ own_3
    squared_R = np.float32(np.dot(own_3, own_3)) - along_R**2 / dot(backdrop.rays_R3, backdrop.rays_R3)
    return np.flatnonzero((squared_R <= np.float32(posed.body.radius_m * 1.001) ** 2) & (along_R > 0))


def light_over(lit: LitBackdrop, world: World) -> NDArray[np.float32]:
    """Linear light of a frame [R, 3]; only points covered or shaded by moving bodies are computed anew."""
    movers = world.bodies[1:]
    surfels, covered_R = overlay(lit.backdrop, movers)
    visible_LR = lit.visible_LR.copy()
    rows = np.flatnonzero(covered_R)
    visible_LR[:, rows] = visibility(world.lighting, list(world.bodies), take(surfels, rows))
    changed_R = covered_R.copy()
    for row, light in enumerate(world.lighting.lights):
        if light.shadow:
            open_K = np.flatnonzero(visible_LR[row] & ~covered_R & np.isfinite(surfels.z_R))
            dark = open_K[~lit_by(light, list(movers), take(surfels, open_K))]
            visible_LR[row, dark] = False
            changed_R[dark] = True
    out_R3, dirty = lit.radiance_R3.copy(), np.flatnonzero(changed_R)
    out_R3[dirty] = radiance(world.lighting, take(surfels, dirty), visible_LR[:, dirty])
    return out_R3
