"""Lights of a scene, and the radiance of surface points towards the camera."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.training.rooms.palette import GAMMA
from deltascene.pipeline.training.rooms.surfels import Posed, Surfels, dot, shadowed, take

LIFT_M = 0.004


@dataclass(frozen=True)
class Light:
    """A point light.

    Attributes:
        position_3: position in world metres; far away for the sun.
        rgb: its linear light at `reach_m`.
        reach_m: distance at which its light has fallen to half of its value nearby.
        shadow: whether it casts a hard shadow.
    """

    position_3: tuple[float, float, float]
    rgb: tuple[float, float, float]
    reach_m: float
    shadow: bool


@dataclass(frozen=True)
class Lighting:
    """All light of a scene.

    Attributes:
        lights: point lights.
        sky_rgb: linear light from above, on surfaces that look up.
        ground_rgb: linear light from below.
        exposure: mean luminance that auto exposure aims at, 0..1 linear.
        zenith_rgb: linear colour of the sky overhead.
        horizon_rgb: linear colour of the sky at the horizon.
    """

    lights: tuple[Light, ...]
    sky_rgb: tuple[float, float, float]
    ground_rgb: tuple[float, float, float]
    exposure: float
    zenith_rgb: tuple[float, float, float]
    horizon_rgb: tuple[float, float, float]


def visibility(lighting: Lighting, occluders: list[Posed], surfels: Surfels) -> NDArray[np.bool_]:
    """Whether each light reaches each point [L, R]; always true for lights without shadow and for misses."""
    out_LR = np.ones((len(lighting.lights), len(surfels.z_R)), dtype=bool)
    hit_K = np.flatnonzero(np.isfinite(surfels.z_R))
    hits = take(surfels, hit_K)
    for row, light in enumerate(lighting.lights):
        if light.shadow:
            out_LR[row, hit_K] = lit_by(light, occluders, hits)
    return out_LR


def lit_by(light: Light, occluders: list[Posed], surfels: Surfels) -> NDArray[np.bool_]:
    """Whether a light reaches each of R hit points past all occluders; true for points that face away from it."""
    points_R3 = surfels.position_R3 + surfels.normal_R3 * np.float32(LIFT_M)
    to_light_R3 = np.array(light.position_3, dtype=np.float32) - points_R3
    # Points that face away get no light anyway.
    facing = np.flatnonzero(dot(to_light_R3, surfels.normal_R3) > 0)
    dark_K = np.zeros(len(facing), dtype=bool)
    for posed in occluders:
        dark_K |= shadowed(posed, points_R3[facing], to_light_R3[facing])
    out_R = np.ones(len(points_R3), dtype=bool)
    out_R[facing] = ~dark_K
    return out_R


def radiance(lighting: Lighting, surfels: Surfels, visible_LR: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Linear radiance of each point towards the camera before exposure [R, 3]."""
    up_R1 = surfels.normal_R3[:, 1:2] * 0.5 + 0.5
    ground_3, sky_3 = np.array([lighting.ground_rgb, lighting.sky_rgb], dtype=np.float32)
    light_R3 = ground_3 * (1 - up_R1) + sky_3 * up_R1
    for light, visible_R in zip(lighting.lights, visible_LR, strict=True):
        to_light_R3 = np.array(light.position_3, dtype=np.float32) - surfels.position_R3
        distance2_R = np.maximum(dot(to_light_R3, to_light_R3), 1e-6)
        cosine_R = np.maximum(dot(to_light_R3, surfels.normal_R3), 0) / np.sqrt(distance2_R)
        strength_R = cosine_R * visible_R / (1 + distance2_R / np.float32(light.reach_m**2))
        light_R3 += strength_R[:, None] * np.array(light.rgb, dtype=np.float32) * 2
    out_R3 = np.asarray(surfels.albedo_R3 * (light_R3 + surfels.glow_R[:, None]), dtype=np.float32)
    missed = np.flatnonzero(np.isinf(surfels.z_R))
    if len(missed):
        out_R3[missed] = _sky(lighting, surfels.position_R3[missed])
    return out_R3


def _sky(lighting: Lighting, rays_R3: NDArray[np.float32]) -> NDArray[np.float32]:
    rise_R1 = np.clip(rays_R3[:, 1:2] / np.linalg.norm(rays_R3, axis=1, keepdims=True), 0, 1) ** np.float32(0.6)
    horizon_3, zenith_3 = np.array([lighting.horizon_rgb, lighting.zenith_rgb], dtype=np.float32)
    return np.asarray(horizon_3 * (1 - rise_R1) + zenith_3 * rise_R1, dtype=np.float32)


def auto_gain(lighting: Lighting, radiance_R3: NDArray[np.float32]) -> float:
    """Factor that brings the geometric mean luminance of a picture to the lighting's exposure."""
    luminance_R = radiance_R3 @ np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
    return float(lighting.exposure / max(float(np.exp(np.log(luminance_R + 1e-4).mean())), 1e-4))


def develop(radiance_R3: NDArray[np.float32], gain: float) -> NDArray[np.float32]:
    """Tone mapping of linear light to sRGB 0..1: gain, a soft shoulder over 0.5, gamma."""
    x = radiance_R3 * np.float32(gain)
    over = np.maximum(x - np.float32(0.5), 0)
    x = np.minimum(x, np.float32(0.5)) + np.float32(0.5) * (1 - np.exp(-2 * over))
    return np.asarray(np.clip(x, 0, 1) ** np.float32(1 / GAMMA), dtype=np.float32)
