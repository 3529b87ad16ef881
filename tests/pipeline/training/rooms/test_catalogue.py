import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from deltascene.pipeline.training.rooms.__main__ import main, rooms_of, size_of
from deltascene.pipeline.training.rooms.catalogue import load_catalogue
from deltascene.pipeline.training.rooms.errors import LabelsWrong, MeshesMissing
from deltascene.pipeline.training.rooms.labels import CLASSES, class_id, read_labels
from deltascene.pipeline.training.rooms.meshes import MeshStore
from deltascene.pipeline.training.rooms.scene import Furniture
from deltascene.pipeline.training.rooms.write import SetConfig, make_set, room_frames


def test_there_are_24_classes_and_820_labels() -> None:
    labels = read_labels()
    assert len(CLASSES) == 24
    assert len(labels) == 820
    assert Counter(label.placement for label in labels)["person"] == 29
    assert {label.licence for label in labels} == {"CC0-1.0", "CC-BY-3.0", "CC-BY-3.0-US"}


def test_unknown_class_is_refused() -> None:
    with pytest.raises(LabelsWrong, match="'roof' is none of wall"):
        class_id("roof")


def test_missing_meshes_name_the_folder_and_the_way_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(MeshesMissing, match="apt-get download sweethome3d-furniture") as caught:
        load_catalogue(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "Scopia.sh3f" in str(caught.value)


def test_command_line_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["make", "--meshes", str(tmp_path), "--out", str(tmp_path / "rooms")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_options_are_read() -> None:
    assert rooms_of("train:3,test:1") == {"train": 3, "test": 1}
    assert size_of("224x308") == (224, 308)


@pytest.fixture
def meshes_dir() -> Path:
    folder = os.environ.get("DELTASCENE_MESHES", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("DELTASCENE_MESHES names no folder")
    pytest.importorskip("embreex")
    return Path(folder)


def test_real_meshes_have_catalogue_size(meshes_dir: Path, tmp_path: Path) -> None:
    models = load_catalogue(meshes_dir)
    store = MeshStore(tmp_path)
    wanted = [m for m in models if m.label.name in ("Large fridge", "Oak chair", "Female")][:3]
    for model in wanted:
        mesh = store.load(model)
        assert np.allclose(mesh.box_3, model.size_m, atol=0.02)
        assert np.allclose(np.linalg.norm(mesh.normals_F33, axis=-1), 1, atol=1e-4)
        assert mesh.corners_F33[..., 1].min() == pytest.approx(0, abs=1e-4)


def test_real_room_repeats_and_resumes(meshes_dir: Path, tmp_path: Path) -> None:
    config = SetConfig(meshes_dir, tmp_path / "meshes", tmp_path / "out", {"train": 1}, views=2, height=56, width=76)
    make_set(config, workers=1)
    written = {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "out").rglob("*.png"))}
    make_set(config, workers=1)
    assert written == {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "out").rglob("*.png"))}
    rows = (tmp_path / "out" / "split.csv").read_text().splitlines()
    assert rows[0] == "stem,split,room"
    assert len(rows) == 3
    frames = room_frames(0, config, Furniture(load_catalogue(meshes_dir), MeshStore(tmp_path / "meshes")))
    stored = np.load(tmp_path / "out" / "depth" / "000000_0.npy")
    assert stored.tobytes() == frames[0].truth.depth_HW.tobytes()
