"""A seal vouches for its files, or says what is wrong."""

import json
import zipfile

import pytest

from deltascene.cache.errors import BrokenSeal
from deltascene.cache.places import new_scratch, write_whole
from deltascene.cache.seal import read_seal, write_part

ABOUT = {"start": 0, "frames": 3, "next_index": 3, "fingerprint": "f", "token": "t"}


def seal(path, about=ABOUT, content=b"12345"):
    folder = new_scratch(path.parent)
    (folder / "array").mkdir()
    (folder / "array" / "0").write_bytes(content)
    return write_part(folder, path, about)


@pytest.fixture
def path(tmp_path):
    seal(tmp_path / "00000000.zip")
    return tmp_path / "00000000.zip"


def test_a_seal_reads_back_as_written(path):
    found = read_seal(path)
    assert (found.start, found.frames, found.next_index, found.fingerprint, found.token) == (0, 3, 3, "f", "t")
    assert list(found.files) == ["array/0"]
    assert found.files["array/0"][0] == 5


def test_the_first_of_two_writers_stays(path):
    """The other one's segment is the same by its fingerprint, so both are told of the one that is there."""
    assert seal(path, ABOUT | {"token": "late"}, b"54321").token == "t"
    with zipfile.ZipFile(path) as there:
        assert there.read("array/0") == b"12345"
    with pytest.raises(BrokenSeal, match="another writer sealed something else"):
        seal(path, ABOUT | {"fingerprint": "g"})


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_harmed_file_breaks_the_seal(path, place):
    content = bytearray(path.read_bytes())
    content[content.index(b"12345") + 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BrokenSeal, match="array/0"):
        read_seal(path)
    path.write_bytes(content[: round(len(content) * place)])
    with pytest.raises(BrokenSeal, match="not a sealed segment"):
        read_seal(path)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"format": 1}', '{"format": 2}', '{"format": 1, "files": 3}', "\x00", "[" * 100_000]
    + [
        json.dumps({"format": 1, **ABOUT, "files": {}} | wrong)
        for wrong in ({"start": -1}, {"frames": "3"}, {"frames": 0}, {"x": 1}, {"fingerprint": 3}, {"input_full": None})
    ]
    + [json.dumps({"format": 1, **ABOUT, "files": {"/etc/hostname": [0, "0"]}})],
)
def test_what_is_no_seal_is_said_to_be_none(path, text):
    with zipfile.ZipFile(path, "w") as sealed:
        sealed.writestr("seal.json", text)
    with pytest.raises(BrokenSeal):
        read_seal(path)


def test_a_link_beside_a_file_is_not_written_through(tmp_path):
    (tmp_path / "other").write_text("not yours")
    (tmp_path / "a.json.part").symlink_to(tmp_path / "other")
    (tmp_path / "a.json").symlink_to(tmp_path / "other")
    write_whole(tmp_path / "a.json", "ours")
    assert (tmp_path / "a.json").read_text() == "ours"
    assert (tmp_path / "other").read_text() == "not yours"
