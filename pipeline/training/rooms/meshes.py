"""Furniture meshes in metres, parsed once and cached as npz files in a folder of the user's choice."""

import io
import os
import posixpath
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deltascene.pipeline.training.rooms.catalogue import Model
from deltascene.pipeline.training.rooms.errors import MeshUnusable
from deltascene.pipeline.training.rooms.obj import MtlEntry, ObjFile, parse_mtl, parse_obj
from deltascene.pipeline.training.rooms.rays import cast, make_tracer

TEXTURE_SIDE_PX = 256
TOPS_CELLS = 24
OPAQUE_FROM = 0.5


@dataclass(frozen=True)
class Mesh:
    """Triangles of one model: x right, y up, z to the front; base at y = 0, centred over the origin, in metres.

    Attributes:
        corners_F33: positions of each triangle's corners.
        normals_F33: unit normals at the corners.
        uvs_F32: texture coordinates at the corners, v downward.
        material_F: material of each triangle.
        kd_M3: diffuse colour of each material, sRGB 0..1.
        clear_M: whether the material is see-through glass.
        texture_M: texture of each material, -1 where it has none.
        textures: images [h, w, 3] uint8.
        box_3: width, height and depth of the bounding box in metres.
        tops_GG: height of the topmost surface in a grid over the footprint, z by x, NaN where there is none.
    """

    corners_F33: NDArray[np.float32]
    normals_F33: NDArray[np.float32]
    uvs_F32: NDArray[np.float32]
    material_F: NDArray[np.int32]
    kd_M3: NDArray[np.float32]
    clear_M: NDArray[np.bool_]
    texture_M: NDArray[np.int32]
    textures: tuple[NDArray[np.uint8], ...]
    box_3: NDArray[np.float64]
    tops_GG: NDArray[np.float32]


@dataclass
class MeshStore:
    """Loads meshes by model, from the cache folder if they are in it.

    Attributes:
        cache_dir: folder of parsed meshes; created when first written to.
        loaded: meshes by the key of their model.
    """

    cache_dir: Path
    loaded: dict[str, Mesh] = field(default_factory=dict)

    def load(self, model: Model) -> Mesh:
        """The model's mesh.

        Raises:
            MeshUnusable: the OBJ has no drawable face.
        """
        if model.key not in self.loaded:
            path = self.cache_dir / f"{model.key}.npz"
            if not path.exists():
                self.cache_dir.mkdir(parents=True, exist_ok=True)
                _save(path, build_mesh(model))
            self.loaded[model.key] = _read(path)
        return self.loaded[model.key]


def build_mesh(model: Model) -> Mesh:
    """Parses a model's OBJ, MTL and textures and repairs the faults that the label table notes.

    Raises:
        MeshUnusable: the OBJ has no drawable face.
    """
    notes = model.label.notes
    with zipfile.ZipFile(model.library) as archive:
        path = model.label.model.lstrip("/")
        obj = parse_obj(archive.read(path).decode("latin-1"), concave="concave faces" in notes)
        entries, images = _materials(archive, posixpath.dirname(path), obj)
    opacity_M = np.array([entry.opacity for entry in entries])
    keep_F = _drawn(model, opacity_M[obj.material_F])
    corners_F33 = _to_metres(model, obj.points_V3[obj.corners_F33[keep_F, :, 0]])
    sound_F = np.linalg.norm(_cross(corners_F33), axis=1) > 1e-12
    if not sound_F.any():
        raise MeshUnusable(f"{model.key}: no face with an area")
    index = np.flatnonzero(keep_F)[sound_F]
    corners_F33 = corners_F33[sound_F]
    textures = tuple(image for image in images if image is not None)
    slots = np.cumsum([image is not None for image in images]) - 1
    return Mesh(
        corners_F33=corners_F33.astype(np.float32),
        normals_F33=_corner_normals(model, obj, index, corners_F33).astype(np.float32),
        uvs_F32=_corner_uvs(obj, index).astype(np.float32),
        material_F=obj.material_F[index].astype(np.int32),
        kd_M3=np.array([entry.kd for entry in entries], dtype=np.float32),
        clear_M=opacity_M < OPAQUE_FROM,
        texture_M=np.array([s if i is not None else -1 for s, i in zip(slots, images, strict=True)], dtype=np.int32),
        textures=textures,
        box_3=np.ptp(corners_F33.reshape(-1, 3), axis=0),
        tops_GG=_tops(corners_F33),
    )


def _drawn(model: Model, opacity_F: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which faces are drawn: invisible ones never, glass ones only where they stand for the thing itself."""
    glass_is_the_thing = model.class_name in ("window", "door", "table") or "see-through all over" in model.label.notes
    keep_F = opacity_F > 0 if glass_is_the_thing else opacity_F >= OPAQUE_FROM
    return np.asarray(keep_F if keep_F.any() else opacity_F >= 0)


def _to_metres(model: Model, corners_F33: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotates and scales used vertices so that their bounding box is the catalogue's."""
    turned = corners_F33 @ model.rotation().T
    low, high = turned.reshape(-1, 3).min(axis=0), turned.reshape(-1, 3).max(axis=0)
    scale = np.array(model.size_m) / np.maximum(high - low, 1e-9)
    return np.asarray((turned - [(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2]) * scale)


def _cross(corners_F33: NDArray[np.float64]) -> NDArray[np.float64]:
    edge_a, edge_b = corners_F33[:, 1] - corners_F33[:, 0], corners_F33[:, 2] - corners_F33[:, 0]
    return np.asarray(np.cross(edge_a, edge_b))


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))


def _corner_normals(
    model: Model, obj: ObjFile, index_K: NDArray[np.int64], corners_F33: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Vertex normals where they fit the face within 60 degrees, else the face's own."""
    face_F13 = _unit(_cross(corners_F33))[:, None, :]
    slots_F3 = obj.corners_F33[index_K, :, 2]
    if len(obj.normals_N3) == 0:
        return np.repeat(face_F13, 3, axis=1)
    spread = np.linalg.norm(np.ptp(obj.points_V3[obj.corners_F33[index_K, :, 0]].reshape(-1, 3), axis=0))
    stretch = np.array(model.size_m) / max(float(spread), 1e-9)
    smooth_F33 = _unit((obj.normals_N3[slots_F3] @ model.rotation().T) / np.maximum(stretch, 1e-9))
    fit_F3 = (smooth_F33 * face_F13).sum(axis=-1)
    smooth_F33 = np.where(fit_F3[..., None] < 0, -smooth_F33, smooth_F33)
    use_F3 = (np.abs(fit_F3) > 0.5) & (slots_F3 >= 0)
    return np.where(use_F3[..., None], smooth_F33, face_F13)


def _corner_uvs(obj: ObjFile, index_K: NDArray[np.int64]) -> NDArray[np.float64]:
    slots_F3 = obj.corners_F33[index_K, :, 1]
    if len(obj.uvs_T2) == 0:
        return np.zeros((len(index_K), 3, 2))
    uvs_F32 = np.where(slots_F3[..., None] >= 0, obj.uvs_T2[slots_F3], 0.0)
    uvs_F32[..., 1] = -uvs_F32[..., 1]
    return np.asarray(uvs_F32 - np.floor(uvs_F32.min(axis=1, keepdims=True)))


def _materials(
    archive: zipfile.ZipFile, folder: str, obj: ObjFile
) -> tuple[list[MtlEntry], list[NDArray[np.uint8] | None]]:
    """Material and texture of each material name; plain grey or plain colour where a file is missing."""
    members = {name.lower(): name for name in archive.namelist()}
    mtl = members.get(posixpath.join(folder, obj.mtllib).lower()) if obj.mtllib else None
    table = parse_mtl(archive.read(mtl).decode("latin-1")) if mtl else {}
    entries = [table.get(name, MtlEntry()) for name in obj.names]
    images: list[NDArray[np.uint8] | None] = []
    for entry in entries:
        found = (
            members.get(posixpath.normpath(posixpath.join(folder, entry.texture)).lower()) if entry.texture else None
        )
        images.append(_read_texture(archive.read(found)) if found else None)
    return entries, images


def _read_texture(data: bytes) -> NDArray[np.uint8]:
    """An image of at most TEXTURE_SIDE_PX a side; see-through pixels get the mean colour of the others."""
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    image.thumbnail((TEXTURE_SIDE_PX, TEXTURE_SIDE_PX), Image.Resampling.BOX)
    pixels = np.asarray(image)
    solid = pixels[..., 3] > 127
    mean = pixels[solid][:, :3].mean(axis=0) if solid.any() else np.full(3, 128.0)
    return np.where(solid[..., None], pixels[..., :3], mean).astype(np.uint8)


def _tops(corners_F33: NDArray[np.float64]) -> NDArray[np.float32]:
    """Height of the topmost surface over a grid of the footprint [z, x], NaN where there is none."""
    low, high = corners_F33.reshape(-1, 3).min(axis=0), corners_F33.reshape(-1, 3).max(axis=0)
    share = (np.arange(TOPS_CELLS) + 0.5) / TOPS_CELLS
    z_G, x_G = low[2] + share * (high[2] - low[2]), low[0] + share * (high[0] - low[0])
    z_GG, x_GG = np.meshgrid(z_G, x_G, indexing="ij")
    above = high[1] + 1.0
    origins = np.stack([x_GG, np.full_like(x_GG, above), z_GG], axis=-1).reshape(-1, 3).astype(np.float32)
    hits = cast(
        make_tracer(corners_F33.astype(np.float32)),
        origins,
        np.tile(np.array([0, -1, 0], dtype=np.float32), (len(origins), 1)),
    )
    height = np.where(hits.triangle_R >= 0, above - hits.distance_R, np.nan)
    return height.reshape(TOPS_CELLS, TOPS_CELLS).astype(np.float32)


def _save(path: Path, mesh: Mesh) -> None:
    """Writes a mesh under a temporary name first, so that other processes never read a partial file."""
    arrays = {name: getattr(mesh, name) for name in Mesh.__dataclass_fields__ if name != "textures"}
    arrays["normals_F33"] = np.round(mesh.normals_F33 * 127).astype(np.int8)
    for number, texture in enumerate(mesh.textures):
        arrays[f"image_{number}"] = texture
    partial = path.with_name(f"{path.stem}.{os.getpid()}.part")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    partial.replace(path)


def _read(path: Path) -> Mesh:
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    images = tuple(arrays.pop(f"image_{number}") for number in range(sum(name.startswith("image_") for name in arrays)))
    normals = arrays.pop("normals_F33").astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return Mesh(normals_F33=normals, textures=images, **arrays)
