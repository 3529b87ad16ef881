import numpy as np
import pytest

from deltascene.pipeline.training.rooms.errors import MeshUnusable
from deltascene.pipeline.training.rooms.obj import ObjFile, parse_mtl, parse_obj

ARROW = """
v 0 0 0
v 2 0 0
v 2 2 0
v 1 0.5 0
v 0 2 0
usemtl red
f 1 2 3 4 5
"""


def area(obj: ObjFile) -> float:
    corners = obj.points_V3[obj.corners_F33[:, :, 0]]
    return float(
        np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2
    )


def test_concave_polygon_is_clipped_to_its_own_area() -> None:
    pytest.importorskip("mapbox_earcut")
    assert area(parse_obj(ARROW, concave=True)) == pytest.approx(2.5)


def test_a_square_becomes_two_triangles_either_way() -> None:
    text = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4\n"
    for concave in (False, True):
        obj = parse_obj(text, concave)
        assert len(obj.corners_F33) == 2
        assert area(obj) == pytest.approx(1.0)


def test_negative_and_partial_indices() -> None:
    obj = parse_obj("v 0 0 0\nv 1 0 0\nv 0 1 0\nvn 0 0 1\nf -3//-1 -2//-1 -1//-1\n")
    assert obj.corners_F33.tolist() == [[[0, -1, 0], [1, -1, 0], [2, -1, 0]]]


def test_materials_keep_their_faces() -> None:
    obj = parse_obj("v 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl a\nf 1 2 3\nusemtl b\nf 1 2 3\nusemtl a\nf 3 2 1\n")
    assert [obj.names[index] for index in obj.material_F] == ["a", "b", "a"]


def test_an_obj_without_faces_is_refused() -> None:
    with pytest.raises(MeshUnusable, match="no face"):
        parse_obj("v 0 0 0\n")


def test_mtl_colour_opacity_and_texture() -> None:
    found = parse_mtl("newmtl glass\nKd 0.1 0.2 0.3\nd 0.25\nnewmtl wood\nmap_Kd maps\\oak.jpg\n")
    assert found["glass"].kd == (0.1, 0.2, 0.3)
    assert found["glass"].opacity == 0.25
    assert found["wood"].texture == "maps/oak.jpg"
