"""Labelled folders, and truth that isn't what its task stores."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.training.data import check_truth, open_labelled
from deltascene.stages.kinds import Classes, Heatmaps, Scalar, Stored, Vector

SIZE = (4, 6)
IDS = Classes(("sky", "road", "car"))
GREY = Heatmaps(("edge",), stored=Stored("uint8", 255, 0))


def test_stems_come_by_part_and_groups_by_room(labelled):
    assert labelled.stems("val") == ["a16", "a17"]
    assert len(labelled.stems("train")) == 16
    assert labelled.group["a16"] == labelled.group["a17"] == "r8"
    assert labelled.image("a00").shape == (48, 64, 3)
    assert labelled.truth("hands", "a00").shape == (48, 64, 2)
    assert labelled.image_file("a00").name == "a00.png"
    assert labelled.truth_file("height", "a00").name == "a00.npy"


def test_without_rooms_every_image_is_its_own_group(tmp_path):
    (tmp_path / "split.csv").write_text("\ufeffstem,split,author\nx,train,me\ny,test,you\n", encoding="utf-8")
    assert open_labelled(tmp_path).group == {"x": "x", "y": "y"}


def test_missing_things_are_named(labelled, tmp_path):
    with pytest.raises(UsageError, match=r"split\.csv"):
        open_labelled(tmp_path)
    (tmp_path / "split.csv").write_text("name\nx\n")
    with pytest.raises(UsageError, match="expected columns stem and split; found \\['name'\\]"):
        open_labelled(tmp_path)
    (tmp_path / "split.csv").write_text("stem,split\nx,train\ny,test\n")
    with pytest.raises(UsageError, match="part 'val'; found \\['test', 'train'\\]"):
        open_labelled(tmp_path).stems("val")
    with pytest.raises(UsageError, match=r"smell: no truth a00\.npy or \.png"):
        labelled.truth("smell", "a00")
    with pytest.raises(UsageError, match=r"images: no image zz\.png or \.jpg or \.jpeg"):
        labelled.image("zz")


def test_damaged_files_are_named(labelled, tmp_path):
    root = Path(shutil.copytree(labelled.root, tmp_path / "data"))
    picture = root / "images" / "a00.png"
    picture.write_bytes(picture.read_bytes()[:60])
    (root / "parts" / "a00.png").write_bytes(b"no picture")
    (root / "height" / "a00.npy").write_bytes(b"\x93NUMPY\x01")
    np.save(root / "flow" / "a00.npy", np.array([{"code": 1}]), allow_pickle=True)
    data = open_labelled(root)
    for read in (
        lambda: data.image("a00"),
        lambda: data.truth("parts", "a00"),
        lambda: data.truth("height", "a00"),
        lambda: data.truth("flow", "a00"),
    ):
        with pytest.raises(UsageError, match=r"a00\.\w+: can't be read: \w+") as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "truth", "said"),
    [
        (IDS, np.zeros((4, 5), np.uint8), "expected truth of the input's size, (4, 6); found (4, 5)"),
        (IDS, np.zeros((4, 6, 3), np.uint8), "expected classes of shape (4, 6); found (4, 6, 3)"),
        (IDS, np.full(SIZE, 3, np.uint8), "expected ids 0 to 2, or 255 where there is none; found 3"),
        (IDS, np.full(SIZE, -1), "expected ids 0 to 2, or 255 where there is none; found -1"),
        (IDS, np.zeros(SIZE, bool), "expected whole numbers as stored (uint8); found bool"),
        (Scalar(), np.zeros((4, 6, 1)), "expected scalar of shape (4, 6); found (4, 6, 1)"),
        (Vector(), np.zeros((4, 6, 2), np.int8), "expected vector of shape (4, 6, 3); found (4, 6, 2)"),
        (
            Vector(),
            np.ones((4, 6, 3), np.float32),
            "expected whole numbers as stored (int8, 127 times the value); found float32",
        ),
        (GREY, np.zeros(SIZE), "expected whole numbers as stored (uint8, 255 times the value); found float64"),
        (
            Heatmaps(("edge",)),
            np.full(SIZE, 255, np.uint8),
            "expected heatmaps from 0 to 1; found 255; for pictures from 0 to 255 the task needs "
            "`stored: {dtype: uint8, scale: 255}` in bundle.yaml",
        ),
    ],
)
def test_truth_that_is_not_what_its_task_stores_is_named(kind, truth, said):
    with pytest.raises(UsageError, match=re.escape(f"parts/a00: {said}")):
        check_truth(truth, kind, SIZE, "parts/a00")


@pytest.mark.parametrize(
    ("kind", "truth"),
    [
        (IDS, np.array([[0, 1, 2, 255, 0, 0]] * 4, np.uint8)),
        (Scalar(), np.full(SIZE, np.nan)),
        (Scalar(), np.full(SIZE, 3000, np.uint16)),
        (Vector(), np.zeros((*SIZE, 3), np.int16)),
        (GREY, np.full(SIZE, 255, np.uint8)),
        (Heatmaps(("a", "b")), np.full((*SIZE, 2), np.nan, np.float16)),
        (Heatmaps(("a",)), np.ones(SIZE, bool)),
    ],
)
def test_truth_as_it_is_stored_passes_unchanged(kind, truth):
    np.testing.assert_array_equal(check_truth(truth, kind, SIZE, "x"), truth)


def test_ids_of_a_wider_type_are_the_same_ids(tmp_path):
    """What 16-bit PNGs and int64 arrays hold: 255 must still mean that there is no label."""
    wide = np.array([[0, 1, 2, 255, 0, 0]] * 4)
    narrow = check_truth(wide, IDS, SIZE, "x")
    assert narrow.dtype == np.uint8
    np.testing.assert_array_equal(narrow, wide)
    Image.fromarray(wide.astype(np.uint16)).save(tmp_path / "x.png")
    assert check_truth(np.asarray(Image.open(tmp_path / "x.png")), IDS, SIZE, "x").dtype == np.uint8
