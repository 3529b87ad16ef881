"""Reading Wavefront OBJ and MTL files into flat arrays of triangles."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.training.rooms.errors import MeshUnusable


@dataclass
class MtlEntry:
    """A material of an MTL file.

    Attributes:
        kd: diffuse colour, sRGB 0..1.
        opacity: 1 opaque, 0 invisible.
        texture: path of the diffuse texture beside the MTL, empty where there is none.
    """

    kd: tuple[float, float, float] = (0.7, 0.7, 0.7)
    opacity: float = 1.0
    texture: str = ""


@dataclass
class ObjFile:
    """The drawable content of an OBJ file.

    Attributes:
        points_V3: vertices.
        uvs_T2: texture coordinates, v upward.
        normals_N3: vertex normals.
        corners_F33: per triangle and corner the index of vertex, texture coordinate and normal; -1 is absent.
        material_F: material of each triangle, an index into `names`.
        names: material names in order of first use.
        mtllib: name of the MTL file, empty where there is none.
    """

    points_V3: NDArray[np.float64]
    uvs_T2: NDArray[np.float64]
    normals_N3: NDArray[np.float64]
    corners_F33: NDArray[np.int64]
    material_F: NDArray[np.int64]
    names: list[str]
    mtllib: str


@dataclass
class _Lines:
    """Raw statements of an OBJ while it is read."""

    points: list[list[str]] = field(default_factory=list)
    uvs: list[list[str]] = field(default_factory=list)
    normals: list[list[str]] = field(default_factory=list)
    faces: list[list[str]] = field(default_factory=list)
    material: list[int] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    counts: list[tuple[int, int, int]] = field(default_factory=list)
    mtllib: str = ""


def parse_obj(text: str, concave: bool = False) -> ObjFile:
    """Reads an OBJ file and cuts its polygons into triangles.

    Args:
        text: content of the file.
        concave: whether polygons may be concave; they are then cut by ear clipping instead of into fans.

    Raises:
        MeshUnusable: the file has no face of three or more corners.
    """
    lines = _collect(text)
    points_V3 = np.array([row[:3] for row in lines.points], dtype=np.float64).reshape(-1, 3)
    by_size: dict[int, list[int]] = {}
    for index, face in enumerate(lines.faces):
        by_size.setdefault(len(face), []).append(index)
    corners: list[NDArray[np.int64]] = []
    material: list[NDArray[np.int64]] = []
    material_of_face = np.array(lines.material, dtype=np.int64)
    for size in sorted(size for size in by_size if size >= 3):
        rows = by_size[size]
        polygons_GK3 = np.array([_corners(lines.faces[i], lines.counts[i]) for i in rows], dtype=np.int64)
        triples = [_triangulate(points_V3, ring, concave) for ring in polygons_GK3]
        corners += [polygons_GK3[g][triple] for g, triple in enumerate(triples)]
        material.append(np.repeat(material_of_face[rows], [len(triple) for triple in triples]))
    if not corners:
        raise MeshUnusable("the OBJ has no face of three or more corners")
    return ObjFile(
        points_V3=points_V3,
        uvs_T2=np.array([row[:2] for row in lines.uvs], dtype=np.float64).reshape(-1, 2),
        normals_N3=np.array([row[:3] for row in lines.normals], dtype=np.float64).reshape(-1, 3),
        corners_F33=np.concatenate(corners),
        material_F=np.concatenate(material),
        names=list(lines.names),
        mtllib=lines.mtllib,
    )


def _collect(text: str) -> _Lines:
    out = _Lines(names={"": 0})
    current = 0
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "f":
            out.faces.append(rest.split())
            out.material.append(current)
            out.counts.append((len(out.points), len(out.uvs), len(out.normals)))
        elif word == "v":
            out.points.append(rest.split())
        elif word == "vt":
            out.uvs.append(rest.split())
        elif word == "vn":
            out.normals.append(rest.split())
        elif word == "usemtl":
            current = out.names.setdefault(rest.strip(), len(out.names))
        elif word == "mtllib":
            out.mtllib = rest.strip()
    return out


def _corners(face: list[str], counts: tuple[int, int, int]) -> list[list[int]]:
    """Zero-based indices of a face's corners [corners, 3]; -1 where an index is absent."""
    rows = []
    for corner in face:
        row = [-1, -1, -1]
        for slot, part in enumerate(corner.split("/")[:3]):
            if part:
                number = int(part)
                row[slot] = number - 1 if number > 0 else counts[slot] + number
        rows.append(row)
    return rows


def _triangulate(points_V3: NDArray[np.float64], polygon_K3: NDArray[np.int64], concave: bool) -> NDArray[np.int64]:
    """Triangles of a polygon as triples of positions in it [K-2, 3]."""
    steps = np.arange(1, len(polygon_K3) - 1)
    fan = np.stack([np.zeros_like(steps), steps, steps + 1], axis=1)
    if len(polygon_K3) == 3 or not concave:
        return fan
    ring_K3 = points_V3[polygon_K3[:, 0]]
    return fan if _is_convex(ring_K3) else _clip_ears(ring_K3, fan)


def _is_convex(ring_K3: NDArray[np.float64]) -> bool:
    ahead = np.roll(ring_K3, -1, axis=0) - ring_K3
    turn_K3 = np.cross(ahead, np.roll(ahead, -1, axis=0))
    newell = np.cross(ring_K3, np.roll(ring_K3, -1, axis=0)).sum(axis=0)
    side_K = turn_K3 @ newell
    return bool(np.all(side_K >= -1e-6 * np.abs(side_K).max()))


def _clip_ears(ring_K3: NDArray[np.float64], fallback: NDArray[np.int64]) -> NDArray[np.int64]:
    import mapbox_earcut

    newell = np.cross(ring_K3, np.roll(ring_K3, -1, axis=0)).sum(axis=0)
    flat = np.ascontiguousarray(np.delete(ring_K3, int(np.abs(newell).argmax()), axis=1))
    found = np.asarray(mapbox_earcut.triangulate_float64(flat, np.array([len(flat)], dtype=np.uint32)))
    return found.reshape(-1, 3).astype(np.int64) if len(found) else fallback


def parse_mtl(text: str) -> dict[str, MtlEntry]:
    """Materials of an MTL file by name."""
    found: dict[str, MtlEntry] = {}
    entry = MtlEntry()
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "newmtl":
            entry = found.setdefault(rest.strip(), MtlEntry())
        elif word == "Kd":
            red, green, blue = (float(part) for part in rest.split()[:3])
            entry.kd = (red, green, blue)
        elif word == "d":
            entry.opacity = float(rest.split()[-1])
        elif word == "map_Kd":
            entry.texture = rest.strip().replace("\\", "/").split(" ")[-1]
    return found
