"""What is particular to segments on disk: seals that lie, shards, bytes, files, and a reader that knows only zarr."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from deltascene.cache import zarr_store
from deltascene.cache.errors import AlreadySealed, BrokenSeal, LostWriter, NotArchived
from deltascene.cache.segment import FrameRecord, SegmentInfo, decoded, encoded, raw_bytes
from deltascene.cache.zarr_store import ZarrStore

ROOT = Path(__file__).resolve().parents[2]
KEY = {"input": "a1"}
MIXED = ["dense", "rows", "warped", "held", "rows", "skipped", "dense", "rows", "rows"]


@pytest.fixture
def store(tmp_path) -> ZarrStore:
    return ZarrStore(tmp_path / "archive")


def fill(store, info, records, start=0, **options):
    writer = store.begin(start, info, KEY, **options)
    for record in records:
        writer.add(record)
    return writer.seal("token")


def members(path):
    with zipfile.ZipFile(path) as sealed:
        return {name: sealed.read(name) for name in sealed.namelist()}


def replace(path, **changed):
    """Writes a segment's file anew with other members; None leaves one out."""
    content = {**members(path), **changed}
    with zipfile.ZipFile(path, "w") as sealed:
        for name, data in content.items():
            if data is not None:
                sealed.writestr(name, data)


def rewrite(store, **fields):
    seal = json.loads(members(store.file(0))["seal.json"])
    replace(store.file(0), **{"seal.json": json.dumps({**seal, **fields})})


NO_SEALS = ["", "{}", "[]", "null", "\x00", "[" * 100_000, '{"format": 1}', '{"format": 2, "files": {}}']


@pytest.mark.parametrize("text", [*NO_SEALS, '{"format": 1, "files": {"a": 3}}'])
def test_what_is_no_seal_is_said_to_be_none(store, info, make_records, text):
    records = make_records(info, ["dense"])
    fill(store, info, records)
    replace(store.file(0), **{"seal.json": text})
    for ask in (store.seal, store.info, store.frames, store.verify):
        with pytest.raises(BrokenSeal, match="not a sealed segment"):
            ask(0)
    with pytest.raises(AlreadySealed, match="broken"):
        store.begin(0, info, KEY)
    fill(store, info, records, replace=True)
    store.verify(0)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "index/../../outside"])
def test_a_seal_never_reads_outside_its_segment(store, info, make_records, name):
    fill(store, info, make_records(info, ["dense"]))
    (store.path / "segments" / "outside").write_bytes(b"")
    rewrite(store, files={**json.loads(members(store.file(0))["seal.json"])["files"], name: [0, "0"]})
    with pytest.raises(BrokenSeal, match="sealed, but missing"):
        store.verify(0)


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all" * 99])
def test_what_is_no_segment_is_said_to_be_none(store, info, make_records, content):
    fill(store, info, make_records(info, ["dense"]))
    store.file(0).write_bytes(content)
    for ask in (store.seal, store.info, store.frames, store.verify):
        with pytest.raises(BrokenSeal, match="not a sealed segment"):
            ask(0)


def test_packed_members_are_refused_before_they_are_unpacked(store, info, make_records):
    fill(store, info, make_records(info, ["dense"]))
    content = members(store.file(0))
    with zipfile.ZipFile(store.file(0), "w", zipfile.ZIP_DEFLATED) as bomb:
        for name, data in content.items():
            bomb.writestr(name, data, zipfile.ZIP_STORED if name == "seal.json" else zipfile.ZIP_DEFLATED)
    with pytest.raises(BrokenSeal, match="as sealed"):
        store.verify(0)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"frames": 3}, "expected 1 frames, as stored; found 3"),
        ({"frames": "1"}, "expected a start, a number of frames and the next frame"),
        ({"frames": 0}, "expected a start, a number of frames and the next frame"),
        ({"next_index": 1 << 63}, "expected a start, a number of frames and the next frame"),
        ({"key": None}, "expected a number of bytes and a key"),
        ({"bytes": -1}, "expected a number of bytes and a key"),
        ({"sealed_s": "now"}, "expected a time; found now"),
        ({"start": 256}, "expected the seal of segment 0; found that of 256"),
        ({"files": {}}, r"expected zarr\.json among the sealed files"),
        ({"more": 1}, "not a seal"),
    ],
)
def test_a_seal_that_does_not_fit_is_refused(store, info, make_records, fields, text):
    fill(store, info, make_records(info, ["dense"]))
    rewrite(store, **fields)
    with pytest.raises(BrokenSeal, match=text):
        store.verify(0)


@pytest.mark.parametrize("name", ["zarr.json", "rows_3/zarr.json", "flow/zarr.json"])
def test_harmed_descriptions_are_found_too(store, info, make_records, name):
    fill(store, info, make_records(info, ["dense"]))
    replace(store.file(0), **{name: "{}"})
    with pytest.raises(BrokenSeal, match=re.escape(name)):
        store.verify(0)
    with pytest.raises(BrokenSeal, match=re.escape(name)):
        store.frames(0)


def test_every_sealed_file_is_there_and_no_other(store, info, make_records):
    seal = fill(store, info, make_records(info, MIXED))
    assert [*members(store.file(0))] == [*seal.files, "seal.json"]  # the seal comes last
    assert len(seal.files) == 1 + 2 * 8  # the group; a description and one shard for each array
    assert [path for path in store.path.rglob("*") if path.is_file()] == [store.file(0)]


def test_the_same_frames_give_the_same_bytes(info, make_records, tmp_path):
    contents = []
    for name in ("one", "two"):
        store = ZarrStore(tmp_path / name)
        fill(store, info, make_records(info, MIXED))
        contents.append({each: data for each, data in members(store.file(0)).items() if each != "seal.json"})
    assert contents[0] == contents[1]


def test_shards_are_written_as_they_fill(store, info, make_records, monkeypatch):
    monkeypatch.setattr(zarr_store, "SHARD_BYTES", 3 * 13 * 8 * 4)  # three dense frames
    records = make_records(info, ["dense", "rows"] * 7)
    writer = store.begin(0, info, KEY)
    for record in records:
        writer.add(record)
    assert len(list((store.path / "unfinished").glob("00000000.*/rows_3/c/*/0"))) >= 2
    seal = writer.seal("token")
    shards = -(-sum(len(record.rows) for record in records) // (3 * 13))
    assert sum(name.startswith("rows_3/c/") for name in seal.files) == shards
    for found, expected in zip(store.read(0).records, records, strict=True):
        np.testing.assert_array_equal(found.activations[3], expected.activations[3])
        np.testing.assert_array_equal(found.rows, expected.rows)


def test_zeros_are_written_as_well(store, info, make_records):
    """zarr would leave out a chunk of zeros, and a missing file would look like one."""
    (record,) = make_records(info, ["dense"])
    for values in (*record.activations.values(), record.change):
        values[:] = 0
    seal = fill(store, info, [record])
    assert {"rows_3/c/0/0", "rows_4/c/0/0", "change/c/0/0"} <= set(seal.files)


def test_a_writer_that_was_swept_away_leaves_nothing(store, info, make_records):
    records = make_records(info, MIXED)
    lost = store.begin(0, info, KEY)
    lost.add(records[0])
    shutil.rmtree(next((store.path / "unfinished").glob("00000000.*")))
    with pytest.raises(LostWriter):
        lost.seal("late")
    assert store.starts() == ()
    assert not list((store.path / "unfinished").glob("00000000.*"))


def test_a_segment_without_its_seal_is_done_again(store, info, make_records):
    records = make_records(info, MIXED)
    fill(store, info, records)
    replace(store.file(0), **{"seal.json": None})
    with pytest.raises(BrokenSeal, match="not a sealed segment"):
        store.read(0)
    store.drop(0)
    assert store.starts() == ()
    with pytest.raises(NotArchived):
        store.read(0)
    fill(store, info, records)
    store.verify(0)


def test_reading_makes_nothing(tmp_path):
    assert ZarrStore(tmp_path / "none").starts() == ()
    with pytest.raises(NotArchived, match="none is"):
        ZarrStore(tmp_path / "none").read(0)
    assert not (tmp_path / "none").exists()


def like_a_network(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Values whose mantissas are as good as random: the worst that a compressor meets in activations."""
    return rng.standard_normal(shape, np.float32) * np.float32(2.5)


def test_bytes_on_disk_keep_to_the_formula(store):
    info = SegmentInfo((6, 8, 9), "float32", 353, 1, 384, (16, 22), 14, (480, 640), (224, 308), (0, 0, 224, 308))
    rng, counts = np.random.default_rng(0), []
    writer = store.begin(0, info, KEY)
    for number in range(24):
        dense, warped = number % 12 == 0, number % 2 == 1
        rows = np.arange(353 if dense else 0 if warped else 60, dtype=np.int32)
        counts.append(len(rows))
        writer.add(
            FrameRecord(
                index=number,
                pts_s=number / 25,
                valid=True,
                cause="",
                policy="dense" if dense else "warped" if warped else "rows",
                reason="",
                rows=rows,
                activations={block: like_a_network(rng, (len(rows), 384)) for block in info.blocks},
                change=rng.integers(0, 256, 352).astype(np.uint8),
                flow=rng.integers(-999, 999, info.flow_shape).astype(np.int16) if warped else None,
            )
        )
    writer.seal("token")
    disk = store.file(0).stat().st_size
    formula = raw_bytes(info, counts, sum(number % 2 for number in range(24)))
    assert 0.7 * formula < disk < 1.1 * formula


def whole_frame(records, block, place):
    """The last dense frame's rows up to a place, and all rows computed since laid over them; some frame is dense."""
    dense = max(number for number in range(place + 1) if records[number].policy == "dense")
    whole_ND = np.array(records[dense].activations[block])
    for record in records[dense + 1 : place + 1]:
        whole_ND[record.rows] = record.activations[block]
    return whole_ND


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_documented_reader_reads_whole_frames(store, info, make_records, dtype):
    """The very code of docs/archive.md, which knows zarr and numpy alone."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "archive.md").read_text(encoding="utf-8"), re.DOTALL)
    (code,) = (block for block in blocks if "open_group" in block)
    assert sum(bool(line) for line in code.splitlines()) <= 10
    described = SegmentInfo(**{name: getattr(info, name) for name in info.__dataclass_fields__} | {"dtype": dtype})
    records = make_records(described, MIXED)
    fill(store, described, records)
    for place in range(len(records)):
        names = {"path": str(store.file(0)), "block": 4, "place": place}
        exec(code, names)
        np.testing.assert_array_equal(names["whole"], decoded(whole_frame(records, 4, place), dtype))


def test_codes_are_explained_beside_them(store, info, make_records):
    records = make_records(info, MIXED)
    fill(store, info, records)
    with zarr.storage.ZipStore(store.file(0), mode="r") as sealed:
        frames = zarr.open_group(sealed, mode="r")["frames"]
        books, rows = dict(frames.attrs), frames[:].tolist()
    assert books["columns"] == ["index", "policy", "reason", "cause", "valid", "flow"]
    for row, record in zip(rows, records, strict=True):
        named = dict(zip(books["columns"], row, strict=True))
        assert [books[name][named[name]] for name in ("policy", "reason", "cause")] == [
            record.policy,
            record.reason,
            record.cause,
        ]
    assert encoded(np.zeros(1, np.float32), "bfloat16").dtype == np.uint16
