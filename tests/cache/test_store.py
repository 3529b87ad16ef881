"""What every store promises: what was sealed reads back byte for byte, and nothing else exists."""

import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltascene.cache.columns import GROUP_FRAMES
from deltascene.cache.errors import (
    AlreadySealed,
    BrokenSeal,
    LostWriter,
    NotArchived,
    WrongFingerprint,
    WrongRecord,
)
from deltascene.cache.segment import FrameRecord
from deltascene.cache.store import MemoryStore, Store
from deltascene.cache.zarr_store import ZarrStore

KEY = {"input": "a1", "weights.base": "b2", "config.tasks": ["one", "two"], "numerics.threads": 2}
EVERY = ["dense", "rows", "warped", "held", "skipped", "rows", "warped", "dense"]


@pytest.fixture(params=["memory", "zarr"])
def store(request, tmp_path) -> Store:
    return MemoryStore() if request.param == "memory" else ZarrStore(tmp_path / "archive")


def fill(store: Store, start: int, info, records, key=KEY, **options):
    writer = store.begin(start, info, key, **options)
    for record in records:
        writer.add(record)
    return writer.seal("token")


def assert_same(found: FrameRecord, expected: FrameRecord, blocks) -> None:
    for name in ("index", "pts_s", "valid", "cause", "policy", "reason"):
        assert getattr(found, name) == getattr(expected, name), name
    pairs = [(found.rows, expected.rows), (found.change, expected.change)]
    pairs += [(found.activations[block], expected.activations[block]) for block in blocks]
    assert set(found.activations) == set(blocks)
    assert (found.flow is None) == (expected.flow is None)
    if found.flow is not None:
        pairs.append((found.flow, expected.flow))
    for ours, theirs in pairs:
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()
        assert ours.flags.writeable


def harm(store: Store, start: int, array: str, how: str) -> None:
    """Damages what a store holds of an array: one byte changed, the end missing, or all of it."""
    if isinstance(store, MemoryStore):
        arrays = store._sealed[start].arrays
        if how == "gone":
            del arrays[array]
        elif how == "shorter":
            arrays[array] = arrays[array][:-1]
        else:
            arrays[array].view(np.uint8).reshape(-1)[-1] ^= 1
        return
    path = store.file(start)
    with zipfile.ZipFile(path) as sealed:
        contents = {name: bytearray(sealed.read(name)) for name in sealed.namelist()}
    name = max(name for name in contents if name.startswith(f"{array}/c/"))
    content = contents.pop(name)
    content[len(content) // 2] ^= 1
    with zipfile.ZipFile(path, "w") as sealed:
        for other, data in contents.items():
            sealed.writestr(other, data)
        if how != "gone":
            sealed.writestr(name, content[:-1] if how == "shorter" else content)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_was_sealed_reads_back_byte_for_byte(store, info, make_records, dtype):
    info = replace(info, dtype=dtype)
    records = make_records(info, EVERY)
    seal = fill(store, 256, info, records)
    segment = store.read(256)
    assert (segment.start, segment.info, len(segment.records)) == (256, info, len(records))
    for found, expected in zip(segment.records, records, strict=True):
        assert_same(found, expected, info.blocks)
    assert (seal.start, seal.frames, seal.next_index) == (256, 8, records[-1].index + 1)
    assert (seal.token, seal.key) == ("token", KEY)
    assert store.seal(256) == seal == store.verify(256)
    assert seal.bytes == sum(size for size, _ in seal.files.values())
    assert store.info(256) == info
    assert store.starts() == (256,)


@settings(max_examples=20)
@given(
    st.sampled_from([MemoryStore, ZarrStore]),
    st.lists(st.sampled_from(EVERY), min_size=1, max_size=2 * GROUP_FRAMES + 3),
    st.integers(0, 2**32 - 1),
)
def test_any_run_of_frames_reads_back(info, make_records, kind: Callable[..., Store], policies, seed):
    records = make_records(info, policies, seed)
    with tempfile.TemporaryDirectory() as folder:
        store = kind() if kind is MemoryStore else kind(Path(folder))
        fill(store, 0, info, records)
        for found, expected in zip(store.frames(0), records, strict=True):
            assert_same(found, expected, info.blocks)


def test_one_archive_point_is_read_alone(store, info, make_records):
    records = make_records(info, EVERY)
    fill(store, 0, info, records)
    harm(store, 0, "rows_4", "changed")
    for found, expected in zip(store.frames(0, [3]), records, strict=True):
        assert_same(found, expected, [3])
    with pytest.raises(BrokenSeal, match="rows_4"):
        store.frames(0, [4])
    with pytest.raises(NotArchived, match="archive point 5: expected one of 3, 4"):
        store.frames(0, [3, 5])


def test_a_record_may_be_used_again_by_its_maker(store, info, make_records):
    record = make_records(info, ["dense"])[0]
    values = record.activations[3].copy()
    writer = store.begin(0, info, KEY)
    writer.add(record)
    record.activations[3][:] = 0
    writer.seal("token")
    np.testing.assert_array_equal(next(store.frames(0)).activations[3], values)


def test_what_is_not_sealed_does_not_exist(store, info, make_records):
    assert store.starts() == ()
    writer = store.begin(0, info, KEY)
    writer.add(make_records(info, ["dense"])[0])
    assert store.starts() == ()
    for ask in (store.seal, store.info, store.frames, store.read, store.verify, store.drop):
        with pytest.raises(NotArchived, match="segment 0: isn't archived"):
            ask(0)
    writer.discard()
    writer.discard()
    assert store.starts() == ()


def test_an_unfinished_try_is_replaced(store, info, make_records):
    old, new = make_records(info, ["dense"] * 3, 1), make_records(info, ["dense", "held"], 2)
    abandoned = store.begin(0, info, KEY)
    for record in old:
        abandoned.add(record)
    seal = fill(store, 0, info, new)
    assert seal.frames == 2
    with pytest.raises(LostWriter, match="segment 0: another writer"):
        abandoned.seal("late")
    assert store.verify(0).token == "token"
    assert_same(next(store.frames(0)), new[0], info.blocks)


def test_a_sealed_segment_is_replaced_only_by_itself_and_when_asked(store, info, make_records):
    first, second = make_records(info, ["dense"], 1), make_records(info, ["dense", "held"], 2)
    fill(store, 0, info, first)
    with pytest.raises(AlreadySealed, match="segment 0: is sealed already"):
        store.begin(0, info, KEY)
    with pytest.raises(WrongFingerprint, match=r"expected weights\.base = b3; it was made with b2"):
        store.begin(0, info, {**KEY, "weights.base": "b3"}, replace=True)
    writer = store.begin(0, info, KEY, replace=True)
    for record in second:
        writer.add(record)
    assert_same(next(store.frames(0)), first[0], info.blocks)
    assert writer.seal("again", next_index=99).next_index == 99
    assert store.seal(0).token == "again"
    assert store.starts() == (0,)
    for found, expected in zip(store.frames(0), second, strict=True):
        assert_same(found, expected, info.blocks)


def test_the_first_key_that_differs_is_named(store, info, make_records):
    seal = fill(store, 0, info, make_records(info, ["dense"]), {**KEY, "config.tasks": ("one", "two")})
    store.seal(0).require(KEY)
    assert seal.fingerprint == store.seal(0).fingerprint
    with pytest.raises(WrongFingerprint, match=r"segment 0: expected numerics\.threads = 4; it was made with 2"):
        seal.require({**KEY, "numerics.threads": 4, "weights.base": "other"})
    with pytest.raises(WrongFingerprint, match="expected split = 6; it was made with None"):
        seal.require({**KEY, "split": 6})


@pytest.mark.parametrize(
    ("array", "how"),
    [(array, "changed") for array in ("rows_3", "index", "offsets", "frames", "pts_s", "change", "flow")]
    + [(array, how) for array in ("rows_4", "frames", "flow") for how in ("shorter", "gone")],
)
def test_harm_is_found_and_named(store, info, make_records, array, how):
    records = make_records(info, EVERY)
    fill(store, 0, info, records)
    fill(store, 8, info, records)
    harm(store, 0, array, how)
    for ask in (store.verify, store.frames, store.read):
        with pytest.raises(BrokenSeal, match=array):
            ask(0)
    assert store.starts() == (0, 8)
    store.verify(8)
    fill(store, 0, info, records, replace=True)
    store.verify(0)


def test_dropping_leaves_the_others(store, info, make_records):
    records = make_records(info, ["dense"])
    for start in (0, 256, 512):
        fill(store, start, info, records)
    store.drop(256)
    assert store.starts() == (0, 512)
    with pytest.raises(NotArchived, match="segment 256: isn't archived; starts are 0, 512"):
        store.drop(256)
    fill(store, 256, info, records)
    assert store.starts() == (0, 256, 512)


def test_an_empty_segment_is_not_sealed(store, info):
    writer = store.begin(0, info, KEY)
    with pytest.raises(WrongRecord, match="expected at least one frame"):
        writer.seal("token")
    assert store.starts() == ()


def test_a_frame_of_another_form_is_refused(store, info, make_records):
    writer = store.begin(0, info, KEY)
    wrong = replace(make_records(info, ["dense"])[0], change=np.zeros(3, np.uint8))
    with pytest.raises(WrongRecord, match="change"):
        writer.add(wrong)
    writer.add(make_records(info, ["dense"])[0])
    assert writer.seal("token").frames == 1


def test_frames_come_one_group_at_a_time(store, info, make_records):
    """A reader that stops early has read no more than it asked for, give or take a group."""
    records = make_records(info, ["dense", "rows"] * 20)
    fill(store, 0, info, records)
    for found, expected in zip(islice(store.frames(0), 3), records, strict=False):
        assert_same(found, expected, info.blocks)
