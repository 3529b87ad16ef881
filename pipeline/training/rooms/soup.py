"""Triangle soups: the triangles of rigid bodies with all data for shading and truth, and functions that make them."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.training.rooms.meshes import Mesh


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    Attributes:
        rgb: sRGB colour 0..1, multiplied with the texture where there is one.
        texture: image [h, w, 3] uint8, None for a plain colour.
        glow: emitted light, as a multiple of its colour.
    """

    rgb: tuple[float, float, float]
    texture: NDArray[np.uint8] | None = None
    glow: float = 0.0


@dataclass(frozen=True)
class Soup:
    """F triangles in one frame of reference, metres, y up.

    Attributes:
        corners_F33: positions of the corners.
        normals_F33: unit normals at the corners.
        uvs_F32: texture coordinates at the corners, v downward.
        material_F: index into `materials`.
        class_F: class id.
        instance_F: which thing of the scene it belongs to.
        materials: the materials.
    """

    corners_F33: NDArray[np.float32]
    normals_F33: NDArray[np.float32]
    uvs_F32: NDArray[np.float32]
    material_F: NDArray[np.int32]
    class_F: NDArray[np.uint8]
    instance_F: NDArray[np.int32]
    materials: tuple[Material, ...]


def spread(corners_F33: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cross product of two sides of each triangle [F, 3]; its length is twice the area."""
    a, b = corners_F33[:, 1] - corners_F33[:, 0], corners_F33[:, 2] - corners_F33[:, 0]
    x = a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1]
    y = a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2]
    z = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return np.stack([x, y, z], axis=1)


def yaw_matrix(yaw_rad: float) -> NDArray[np.float64]:
    """Rotation about the y axis; yaw 0 leaves a model's front toward +z, a quarter turn brings it toward +x."""
    cos, sin = float(np.cos(yaw_rad)), float(np.sin(yaw_rad))
    return np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])


def move(soup: Soup, rotation_33: NDArray[np.float64], shift_3: NDArray[np.float64]) -> Soup:
    """The same body turned about the origin, then shifted."""
    turn = rotation_33.T.astype(np.float32)
    return replace(soup, corners_F33=soup.corners_F33 @ turn + np.float32(shift_3), normals_F33=soup.normals_F33 @ turn)


def join(parts: list[Soup]) -> Soup:
    """One body of several."""
    starts = np.cumsum([0] + [len(part.materials) for part in parts])
    return Soup(
        corners_F33=np.concatenate([part.corners_F33 for part in parts]),
        normals_F33=np.concatenate([part.normals_F33 for part in parts]),
        uvs_F32=np.concatenate([part.uvs_F32 for part in parts]),
        material_F=np.concatenate([p.material_F + np.int32(s) for p, s in zip(parts, starts[:-1], strict=True)]),
        class_F=np.concatenate([part.class_F for part in parts]),
        instance_F=np.concatenate([part.instance_F for part in parts]),
        materials=tuple(material for part in parts for material in part.materials),
    )


def quad(
    corners_43: NDArray[np.float64], material: Material, class_id: int, instance: int, tile_m: float | None
) -> Soup:
    """A flat rectangle.

    Args:
        corners_43: its corners in order, the first one at the texture's upper left, the second at its upper right.
        material: material of the surface.
        class_id: class of its triangles.
        instance: thing it belongs to.
        tile_m: side of one repeat of the texture; None stretches the texture once over the rectangle.
    """
    across, down = corners_43[1] - corners_43[0], corners_43[3] - corners_43[0]
    reach = np.array([1.0, 1.0])
    if tile_m is not None:
        reach = np.array([np.linalg.norm(across), np.linalg.norm(down)]) / tile_m
    uv_42 = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * reach
    order = np.array([[0, 1, 2], [0, 2, 3]])
    normal = np.cross(across, down)
    return Soup(
        corners_F33=corners_43[order].astype(np.float32),
        normals_F33=np.tile((normal / np.linalg.norm(normal)).astype(np.float32), (2, 3, 1)),
        uvs_F32=uv_42[order].astype(np.float32),
        material_F=np.zeros(2, dtype=np.int32),
        class_F=np.full(2, class_id, dtype=np.uint8),
        instance_F=np.full(2, instance, dtype=np.int32),
        materials=(material,),
    )


def box(size_3: NDArray[np.float64], material: Material, class_id: int, instance: int) -> Soup:
    """A box centred over the origin with its base at y = 0; every side shows the whole texture."""
    half = np.array(size_3) / 2
    faces = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            right, up = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
            out = np.eye(3)[axis] * sign
            signs = [(-1, 1), (1, 1), (1, -1), (-1, -1)]
            corners = np.array([(out + right * a + up * b) * half for a, b in signs]) + np.array([0.0, half[1], 0.0])
            faces.append(quad(corners, material, class_id, instance, tile_m=None))
    return replace(join(faces), material_F=np.zeros(12, dtype=np.int32), materials=(material,))


def from_mesh(mesh: Mesh, class_id: int, instance: int, tint_33: NDArray[np.float64], glass: Material) -> Soup:
    """A furniture mesh as a body.

    Args:
        mesh: the mesh.
        class_id: class of its triangles.
        instance: thing it is.
        tint_33: matrix applied to its colours; textures are multiplied by its effect on white.
        glass: material of transparent parts; its texture is stretched over the front of the whole mesh.
    """
    materials = []
    for kd, clear, slot in zip(mesh.kd_M3, mesh.clear_M, mesh.texture_M, strict=True):
        texture = mesh.textures[slot] if slot >= 0 else None
        base = np.ones(3) if texture is not None else np.asarray(kd, dtype=np.float64)
        red, green, blue = np.clip(tint_33 @ base, 0.0, 1.0)
        materials.append(glass if clear else Material((float(red), float(green), float(blue)), texture))
    count = len(mesh.corners_F33)
    uvs_F32 = mesh.uvs_F32
    clear_F = np.flatnonzero(mesh.clear_M[mesh.material_F])
    if len(clear_F):
        width, height, _ = mesh.box_3
        uvs_F32 = uvs_F32.copy()
        uvs_F32[clear_F] = mesh.corners_F33[clear_F, :, :2] / np.array([width, -height]) + np.array([0.5, 1.0])
    return Soup(
        corners_F33=mesh.corners_F33,
        normals_F33=mesh.normals_F33,
        uvs_F32=uvs_F32,
        material_F=mesh.material_F,
        class_F=np.full(count, class_id, dtype=np.uint8),
        instance_F=np.full(count, instance, dtype=np.int32),
        materials=tuple(materials),
    )


def squash_depth(soup: Soup, factor: float) -> Soup:
    """The same body with its depth (z) scaled."""
    scale = np.array([1.0, 1.0, factor], dtype=np.float32)
    normals = soup.normals_F33 / scale
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return replace(soup, corners_F33=soup.corners_F33 * scale, normals_F33=normals.astype(np.float32))
