"""A seal vouches for its files, or says what is wrong."""

import json

import pytest

from deltascene.cache.errors import BrokenSeal
from deltascene.cache.seal import read_seal, write_seal, write_whole

ABOUT = {"start": 0, "frames": 3, "next_index": 3, "fingerprint": "f", "token": "t"}


@pytest.fixture
def sealed(tmp_path):
    (tmp_path / "segments").mkdir()
    data = tmp_path / "array" / "0"
    data.parent.mkdir()
    data.write_bytes(b"12345")
    path = tmp_path / "segments" / "0.json"
    write_seal(path, tmp_path, ABOUT, [data])
    return path, tmp_path, data


def test_a_seal_reads_back_as_written(sealed):
    path, root, _ = sealed
    seal = read_seal(path, root)
    assert (seal.start, seal.frames, seal.next_index, seal.fingerprint, seal.token) == (0, 3, 3, "f", "t")
    assert list(seal.files) == ["array/0"]
    assert seal.files["array/0"][0] == 5


@pytest.mark.parametrize("harm", ["changed", "shorter", "gone"])
def test_a_harmed_file_breaks_the_seal(sealed, harm):
    path, root, data = sealed
    if harm == "gone":
        data.unlink()
    else:
        data.write_bytes(b"12346" if harm == "changed" else b"1234")
    with pytest.raises(BrokenSeal):
        read_seal(path, root)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"format": 1}', '{"format": 2}', '{"format": 1, "files": 3}', "\x00"]
)
def test_what_is_no_seal_is_said_to_be_none(sealed, text):
    path, root, _ = sealed
    path.write_text(text)
    with pytest.raises(BrokenSeal):
        read_seal(path, root)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "array/../../outside"])
def test_a_seal_never_reads_outside_its_folder(sealed, name):
    path, root, _ = sealed
    (root.parent / "outside").write_bytes(b"")
    data = json.loads(path.read_text())
    data["files"] = {name: [0, "0"]}
    path.write_text(json.dumps(data))
    with pytest.raises(BrokenSeal, match="outside"):
        read_seal(path, root)


@pytest.mark.parametrize(
    "fields", [{"frames": 0}, {"frames": -3}, {"frames": "3"}, {"start": -1}, {"next_index": None}]
)
def test_a_seal_of_no_frames_is_none(sealed, fields):
    """Whoever walks from seal to seal by their frames would never come to an end."""
    path, root, _ = sealed
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(BrokenSeal, match="expected a start and a number of frames"):
        read_seal(path, root)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "loop/x"])
def test_a_sealed_name_that_no_disk_takes_breaks_the_seal(sealed, name):
    path, root, _ = sealed
    (root / "loop").symlink_to(root / "loop")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": {name: [0, "0"]}}))
    with pytest.raises(BrokenSeal):
        read_seal(path, root)


def test_a_link_beside_a_file_is_not_written_through(tmp_path):
    (tmp_path / "other").write_text("not yours")
    (tmp_path / "a.json.part").symlink_to(tmp_path / "other")
    (tmp_path / "a.json").symlink_to(tmp_path / "other")
    write_whole(tmp_path / "a.json", "ours")
    assert (tmp_path / "a.json").read_text() == "ours"
    assert (tmp_path / "other").read_text() == "not yours"
