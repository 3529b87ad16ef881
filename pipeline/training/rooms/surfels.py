"""Posed bodies, and the surface points (surfels) that R rays hit first."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.training.rooms.labels import class_id
from deltascene.pipeline.training.rooms.palette import Palette, albedo, make_palette, texture_density
from deltascene.pipeline.training.rooms.rays import Camera, blocked, cast, make_tracer
from deltascene.pipeline.training.rooms.soup import Soup, spread

HUGE_M = 3.0


@dataclass(frozen=True)
class Body:
    """A rigid body prepared for ray casting; moving it is free, as rays are transformed into its frame of reference.

    Attributes:
        soup: its triangles in its own frame.
        tracer: embree scene of them.
        palette: its materials.
        density_F: texture repeats per metre on each triangle.
        face_F3: unit normal of each triangle, either side.
        radius_m: radius of a ball around `centre_3` that holds it.
        centre_3: centre of its bounding box in its own frame.
    """

    soup: Soup
    tracer: Any
    palette: Palette
    density_F: NDArray[np.float32]
    face_F3: NDArray[np.float32]
    radius_m: float
    centre_3: NDArray[np.float64]


@dataclass(frozen=True)
class Posed:
    """A body with its pose: world = rotation · own + shift."""

    body: Body
    rotation_33: NDArray[np.float64]
    shift_3: NDArray[np.float64]


@dataclass(frozen=True)
class Surfels:
    """Surface points that R rays hit, in world axes.

    Attributes:
        z_R: depth along the optical axis in metres, infinite for a miss.
        position_R3: the points.
        normal_R3: unit normals turned toward the camera, interpolated over the triangle where that is possible.
        albedo_R3: linear colour.
        glow_R: emitted light, as a multiple of the colour.
        class_R: class id; sky for a miss.
        instance_R: instance of the scene, -1 for a miss.
    """

    z_R: NDArray[np.float32]
    position_R3: NDArray[np.float32]
    normal_R3: NDArray[np.float32]
    albedo_R3: NDArray[np.float32]
    glow_R: NDArray[np.float32]
    class_R: NDArray[np.uint8]
    instance_R: NDArray[np.int32]


def dot(first_R3: NDArray[np.float32], second_R3: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scalar products row by row [R]."""
    return np.asarray(np.einsum("ij,ij->i", first_R3, second_R3))


def make_body(soup: Soup) -> Body:
    """Builds the ray accelerator and the tables of a body."""
    # Column by column: numpy reduces long narrow arrays slowly.
    columns = [soup.corners_F33[..., axis] for axis in range(3)]
    low_3, high_3 = np.array([column.min() for column in columns]), np.array([column.max() for column in columns])
    return Body(
        soup=soup,
        tracer=make_tracer(soup.corners_F33),
        palette=make_palette(soup.materials),
        density_F=texture_density(soup),
        face_F3=_face_normals(soup.corners_F33),
        radius_m=float(np.linalg.norm(high_3 - low_3)) / 2,
        centre_3=(low_3 + high_3).astype(np.float64) / 2,
    )


def at_rest(soup: Soup) -> Posed:
    """A body whose frame of reference is the world."""
    return Posed(make_body(soup), np.eye(3), np.zeros(3))


def look(posed: Posed, camera: Camera, rays_R3: NDArray[np.float32], sample_rad: float) -> Surfels:
    """First hits of R rays of a camera on one body.

    Args:
        posed: the body.
        camera: the camera.
        rays_R3: rays in camera axes with z = 1.
        sample_rad: angle that one ray covers; selects the texture size.
    """
    soup, turn_33 = posed.body.soup, posed.rotation_33.astype(np.float32)
    world_R3 = rays_R3 @ camera.axes_33.astype(np.float32)
    origin_3 = ((camera.position_3 - posed.shift_3) @ posed.rotation_33).astype(np.float32)
    own_R3 = world_R3 @ turn_33
    hits = cast(posed.body.tracer, np.broadcast_to(origin_3, own_R3.shape), own_R3)
    out = _misses(world_R3)
    rows = np.flatnonzero(hits.triangle_R >= 0)
    triangle_K, bary_K2, z_K = hits.triangle_R[rows], hits.bary_R2[rows], hits.distance_R[rows]
    weight_K3 = np.stack([1 - bary_K2[:, 0] - bary_K2[:, 1], bary_K2[:, 0], bary_K2[:, 1]], axis=1)
    material_K = soup.material_F[triangle_K]
    uv_K2 = np.einsum("kcu,kc->ku", soup.uvs_F32[triangle_K], weight_K3)
    repeats_K = posed.body.density_F[triangle_K] * z_K * np.float32(sample_rad)
    smooth_K3 = np.einsum("kcn,kc->kn", soup.normals_F33[triangle_K], weight_K3)
    normal_K3 = _toward_camera(smooth_K3, posed.body.face_F3[triangle_K], own_R3[rows])
    out.z_R[rows] = z_K
    out.position_R3[rows] = camera.position_3.astype(np.float32) + world_R3[rows] * z_K[:, None]
    out.normal_R3[rows] = normal_K3 @ turn_33.T
    out.albedo_R3[rows] = albedo(posed.body.palette, material_K, uv_K2, repeats_K)
    out.glow_R[rows] = posed.body.palette.glow_M[material_K]
    out.class_R[rows] = soup.class_F[triangle_K]
    out.instance_R[rows] = soup.instance_F[triangle_K]
    return out


def _misses(world_R3: NDArray[np.float32]) -> Surfels:
    count = len(world_R3)
    return Surfels(
        z_R=np.full(count, np.inf, dtype=np.float32),
        position_R3=world_R3.copy(),
        normal_R3=np.zeros((count, 3), dtype=np.float32),
        albedo_R3=np.zeros((count, 3), dtype=np.float32),
        glow_R=np.zeros(count, dtype=np.float32),
        class_R=np.full(count, class_id("sky"), dtype=np.uint8),
        instance_R=np.full(count, -1, dtype=np.int32),
    )


def _face_normals(corners_F33: NDArray[np.float32]) -> NDArray[np.float32]:
    out_F3 = spread(corners_F33)
    return np.asarray(out_F3 / np.maximum(np.sqrt(dot(out_F3, out_F3)), 1e-20)[:, None], dtype=np.float32)


def _toward_camera(
    smooth_K3: NDArray[np.float32], face_K3: NDArray[np.float32], rays_K3: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Unit normals with n · ray < 0: the interpolated one where it faces the camera with its face, else the face's."""
    face_K3 = face_K3 * -np.sign(dot(face_K3, rays_K3))[:, None]
    smooth_K3 = smooth_K3 * np.sign(dot(smooth_K3, face_K3))[:, None]
    length_K1 = np.sqrt(dot(smooth_K3, smooth_K3))[:, None]
    fits_K1 = (dot(smooth_K3, rays_K3)[:, None] < -1e-3) & (length_K1 > 1e-3)
    return np.where(fits_K1, smooth_K3 / np.maximum(length_K1, 1e-6), face_K3).astype(np.float32)


def nearest(front: Surfels, back: Surfels) -> Surfels:
    """The nearer of two hits of each ray."""
    wins_R = front.z_R < back.z_R
    if not wins_R.any():
        return back
    names = Surfels.__dataclass_fields__
    pairs = {name: (getattr(front, name), getattr(back, name)) for name in names}
    return Surfels(**{n: np.where(wins_R if f.ndim == 1 else wins_R[:, None], f, b) for n, (f, b) in pairs.items()})


def take(surfels: Surfels, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Surfels:
    """A subset of the points."""
    return Surfels(**{name: getattr(surfels, name)[rows] for name in Surfels.__dataclass_fields__})


def shadowed(posed: Posed, points_R3: NDArray[np.float32], to_light_R3: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether a body is between points and the ends of their vectors to a light.

    Points whose line to the light misses the body's bounding ball are not traced.
    """
    if posed.body.radius_m > HUGE_M:
        return _traced(posed, points_R3, to_light_R3)
    centre_3 = posed.rotation_33 @ posed.body.centre_3 + posed.shift_3
    to_centre_R3 = np.array(centre_3, dtype=np.float32) - points_R3
    share_R = dot(to_centre_R3, to_light_R3) / np.maximum(dot(to_light_R3, to_light_R3), 1e-9)
    nearest_R1 = np.clip(share_R, 0, 1).astype(np.float32)[:, None]
    miss_R3 = np.asarray(to_centre_R3 - to_light_R3 * nearest_R1, dtype=np.float32)
    rows = np.flatnonzero(dot(miss_R3, miss_R3) <= np.float32(posed.body.radius_m) ** 2)
    out_R = np.zeros(len(points_R3), dtype=bool)
    out_R[rows] = _traced(posed, points_R3[rows], to_light_R3[rows])
    return out_R


def _traced(posed: Posed, points_R3: NDArray[np.float32], to_light_R3: NDArray[np.float32]) -> NDArray[np.bool_]:
    turn_33 = posed.rotation_33.astype(np.float32)
    own_R3 = (points_R3 - posed.shift_3.astype(np.float32)) @ turn_33
    return blocked(posed.body.tracer, own_R3, to_light_R3 @ turn_33)
