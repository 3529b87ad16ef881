"""Cameras and ray casting with embree."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Camera:
    """A pinhole camera; its axes are x right, y down, z into the scene.

    Attributes:
        position_3: where it stands, in world metres.
        axes_33: rows are the camera's x, y and z axes in world coordinates.
        tan_half_wh: tangents of half the horizontal and half the vertical field of view.
    """

    position_3: NDArray[np.float64]
    axes_33: NDArray[np.float64]
    tan_half_wh: tuple[float, float]

    def rays(self, height: int, width: int) -> NDArray[np.float32]:
        """Rays through the pixel centres in camera axes [H*W, 3], with z = 1.

        The image plane is the same for every size, so frames of different sizes see the same field of view.
        """
        x_W = ((np.arange(width) + 0.5) / width * 2 - 1) * self.tan_half_wh[0]
        y_H = ((np.arange(height) + 0.5) / height * 2 - 1) * self.tan_half_wh[1]
        y_HW, x_HW = np.meshgrid(y_H, x_W, indexing="ij")
        return np.stack([x_HW, y_HW, np.ones_like(x_HW)], axis=-1).reshape(-1, 3).astype(np.float32)


@dataclass(frozen=True)
class Hits:
    """First hits of R rays.

    Attributes:
        triangle_R: index of the triangle, -1 for a miss.
        distance_R: in lengths of the ray's direction; infinite for a miss.
        bary_R2: barycentric weights of the triangle's second and third corner.
    """

    triangle_R: NDArray[np.int32]
    distance_R: NDArray[np.float32]
    bary_R2: NDArray[np.float32]


def look_at(
    position_3: NDArray[np.float64], target_3: NDArray[np.float64], roll_rad: float = 0.0
) -> NDArray[np.float64]:
    """Axes of a camera that looks from one point at another, world y upward [3, 3]."""
    z_3 = (target_3 - position_3) / np.linalg.norm(target_3 - position_3)
    x_3 = np.cross(z_3, [0.0, 1.0, 0.0])
    x_3 /= np.linalg.norm(x_3)
    y_3 = np.cross(z_3, x_3)
    cos, sin = np.cos(roll_rad), np.sin(roll_rad)
    return np.stack([cos * x_3 + sin * y_3, cos * y_3 - sin * x_3, z_3])


def make_tracer(corners_F33: NDArray[np.float32]) -> Any:
    """An embree scene of triangles."""
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(corners_F33, dtype=np.float32))
    return scene


def cast(tracer: Any, origins_R3: NDArray[np.float32], directions_R3: NDArray[np.float32]) -> Hits:
    """First hit of each ray."""
    found = tracer.run(np.ascontiguousarray(origins_R3), np.ascontiguousarray(directions_R3), output=1)
    missed_R = found["geomID"] < 0
    return Hits(
        triangle_R=np.where(missed_R, -1, found["primID"]).astype(np.int32),
        distance_R=np.where(missed_R, np.inf, found["tfar"]).astype(np.float32),
        bary_R2=np.stack([found["u"], found["v"]], axis=-1),
    )


def blocked(tracer: Any, origins_R3: NDArray[np.float32], directions_R3: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether something lies between each origin and the end of its direction vector."""
    reach_R = np.full(len(origins_R3), 1.0, dtype=np.float32)
    found = tracer.run(
        np.ascontiguousarray(origins_R3), np.ascontiguousarray(directions_R3), dists=reach_R, query="OCCLUDED"
    )
    return np.asarray(found >= 0)
