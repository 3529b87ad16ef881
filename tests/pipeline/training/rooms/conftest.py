from pathlib import Path

import numpy as np
import pytest

from deltascene.pipeline.training.rooms.catalogue import Model
from deltascene.pipeline.training.rooms.labels import Label, class_id
from deltascene.pipeline.training.rooms.meshes import TOPS_CELLS, Mesh, MeshStore
from deltascene.pipeline.training.rooms.scene import Furniture
from deltascene.pipeline.training.rooms.soup import Material, box

SORTS = [
    ("door", "wall", "Doors and windows", (0.9, 2.0, 0.1), 0.0, False, ""),
    ("window", "wall", "Doors and windows", (1.0, 1.2, 0.1), 0.9, False, ""),
    ("lamp", "ceiling", "Lights", (0.4, 0.4, 0.4), 2.0, False, ""),
    ("lamp", "tabletop", "Lights", (0.2, 0.4, 0.2), None, False, ""),
    ("sofa", "floor", "Living room", (1.8, 0.8, 0.8), None, False, ""),
    ("table", "floor", "Living room", (1.2, 0.5, 0.7), None, False, ""),
    ("table", "floor", "Living room", (1.2, 0.75, 0.8), None, False, ""),
    ("cabinet", "floor", "Living room", (1.0, 1.0, 0.5), None, False, ""),
    ("chair", "floor", "Living room", (0.5, 0.9, 0.5), None, False, ""),
    ("shelf", "floor", "Living room", (0.9, 1.9, 0.4), None, False, ""),
    ("screen", "wall", "Living room", (1.0, 0.6, 0.1), 1.0, False, ""),
    ("plant", "floor", "Living room", (0.5, 1.0, 0.5), None, False, ""),
    ("small_object", "floor", "Miscellaneous", (0.3, 0.3, 0.3), None, True, ""),
    ("small_object", "tabletop", "Living room", (0.2, 0.2, 0.2), None, True, ""),
    ("person", "person", "Characters", (0.5, 1.8, 0.4), None, True, "standing"),
    ("animal", "floor", "Characters", (0.3, 0.4, 0.7), None, True, ""),
]


def box_mesh(size: tuple[float, float, float]) -> Mesh:
    soup = box(np.array(size), Material((0.5, 0.5, 0.5)), 0, 0)
    return Mesh(
        corners_F33=soup.corners_F33,
        normals_F33=soup.normals_F33,
        uvs_F32=soup.uvs_F32,
        material_F=soup.material_F,
        kd_M3=np.array([[0.6, 0.4, 0.3]], dtype=np.float32),
        clear_M=np.array([False]),
        texture_M=np.array([-1], dtype=np.int32),
        textures=(),
        box_3=np.array(size),
        tops_GG=np.full((TOPS_CELLS, TOPS_CELLS), size[1], dtype=np.float32),
    )


@pytest.fixture
def furniture(tmp_path: Path) -> Furniture:
    """A catalogue of boxes, one or two of each sort that a living room needs."""
    models, loaded = [], {}
    for number, (name, placement, category, size, elevation, moving, notes) in enumerate(SORTS):
        label = Label("Boxes", f"/box{number}.obj", name, class_id(name), placement, moving, "us", "CC0-1.0", notes)
        model = Model(label, tmp_path / "none.sh3f", category, size, elevation, (1, 0, 0, 0, 1, 0, 0, 0, 1))
        models.append(model)
        loaded[model.key] = box_mesh(size)
    return Furniture(tuple(models), MeshStore(tmp_path, loaded))


@pytest.fixture
def needs_embree() -> None:
    pytest.importorskip("embreex")
