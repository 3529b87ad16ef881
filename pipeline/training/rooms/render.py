"""Rendering of a view: its picture with sensor noise, and its truth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.training.rooms.lighting import Lighting, auto_gain, develop, radiance, visibility
from deltascene.pipeline.training.rooms.rays import Camera
from deltascene.pipeline.training.rooms.surfels import Posed, Surfels, look, nearest
from deltascene.pipeline.training.rooms.truth import Truth, assemble

NORMAL_COSINE = 0.95
TONE_STEP = 0.12


@dataclass(frozen=True)
class World:
    """Posed bodies and their light at one moment.

    Attributes:
        bodies: all bodies; the first is the room at rest.
        lighting: the light.
    """

    bodies: tuple[Posed, ...]
    lighting: Lighting


@dataclass(frozen=True)
class Picture:
    """Linear light of a view at its pixel centres and the surface points there.

    Attributes:
        surfels: surface points, row by row.
        radiance_HW3: linear light, antialiased.
    """

    surfels: Surfels
    radiance_HW3: NDArray[np.float32]


def see(world: World, camera: Camera, rays_R3: NDArray[np.float32], sample_rad: float) -> Surfels:
    """First hits of rays among all bodies."""
    found = look(world.bodies[0], camera, rays_R3, sample_rad)
    for posed in world.bodies[1:]:
        found = nearest(look(posed, camera, rays_R3, sample_rad), found)
    return found


def shade(world: World, surfels: Surfels) -> NDArray[np.float32]:
    """Linear light of surface points [R, 3]."""
    return radiance(world.lighting, surfels, visibility(world.lighting, list(world.bodies), surfels))


def sample_angle(camera: Camera, height: int) -> float:
    """Angle of a pixel in radians, near the middle of the view."""
    return 2 * camera.tan_half_wh[1] / height


def highlight_cap(light_R3: NDArray[np.float32]) -> float:
    """Light at which samples are clipped before averaging, so that one bright sample doesn't bleach an outline."""
    return float(np.quantile(light_R3, 0.98))


def paint_view(world: World, camera: Camera, height: int, width: int, cap: float | None = None) -> Picture:
    """Renders a view; pixels at outlines, creases, shadows and steps of tone are averaged over four samples.

    All others keep their centre sample, whose texture is read at pixel size.

    Args:
        world: bodies and light.
        camera: the camera.
        height: rows.
        width: columns.
        cap: light at which samples are clipped before averaging; None computes it from the view.
    """
    angle = sample_angle(camera, height)
    surfels = see(world, camera, camera.rays(height, width), angle)
    light_HW3 = shade(world, surfels).reshape(height, width, 3)
    rows = np.flatnonzero(_uneven(surfels, light_HW3))
    fine_P4 = _fine_rows(rows, width)
    fine_rays = camera.rays(height * 2, width * 2)[fine_P4.ravel()]
    fine = shade(world, see(world, camera, fine_rays, angle / 2)).reshape(-1, 4, 3)
    cap = highlight_cap(light_HW3) if cap is None else cap
    light_HW3.reshape(-1, 3)[rows] = np.minimum(fine, np.float32(cap)).mean(axis=1)
    return Picture(surfels, light_HW3)


def _fine_rows(rows_P: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """The four half-size pixels of each pixel, as row-major indices at double size [P, 4]."""
    y_P, x_P = rows_P // width, rows_P % width
    upper_P = 4 * width * y_P + 2 * x_P
    return np.stack([upper_P, upper_P + 1, upper_P + 2 * width, upper_P + 2 * width + 1], axis=1)


def _uneven(surfels: Surfels, light_HW3: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels that differ from a neighbour in thing, normal or tone [H, W]."""
    height, width = light_HW3.shape[:2]
    thing = surfels.instance_R.reshape(height, width)
    normal = surfels.normal_R3.reshape(height, width, 3)
    tone = light_HW3.sum(axis=2)
    tone = (tone / max(float(np.quantile(tone, 0.9)), 1e-6)) ** 0.5
    out = np.zeros((height, width), dtype=bool)
    for axis in (0, 1):
        first, second = (slice(None, -1), slice(None)), (slice(1, None), slice(None))
        if axis == 1:
            first, second = (first[1], first[0]), (second[1], second[0])
        differs = (thing[first] != thing[second]) | (np.abs(tone[first] - tone[second]) > TONE_STEP)
        differs |= (normal[first] * normal[second]).sum(axis=-1) < NORMAL_COSINE
        out[first] |= differs
        out[second] |= differs
    return out


def truth_of(surfels: Surfels, camera: Camera, height: int, width: int) -> Truth:
    """Truth of a view from the surface points at its pixel centres."""
    normals = surfels.normal_R3 @ camera.axes_33.T.astype(np.float32)
    return assemble(
        surfels.z_R.reshape(height, width), normals.reshape(height, width, 3), surfels.class_R.reshape(height, width)
    )


def to_bytes(radiance_HW3: NDArray[np.float32], gain: float) -> NDArray[np.uint8]:
    """The developed picture, sRGB bytes."""
    return np.round(develop(radiance_HW3, gain) * 255).astype(np.uint8)


def add_noise(rng: np.random.Generator, image_HW3: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Gaussian sensor noise of `sigma` steps of 255."""
    if sigma <= 0:
        return image_HW3
    noise = rng.standard_normal(image_HW3.shape, dtype=np.float32) * np.float32(sigma)
    return np.round(np.clip(image_HW3 + noise, 0, 255)).astype(np.uint8)


def expose(lighting: Lighting, picture: Picture) -> float:
    """Gain of auto exposure for a picture."""
    return auto_gain(lighting, picture.radiance_HW3.reshape(-1, 3))
