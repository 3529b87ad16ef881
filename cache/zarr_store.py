"""Segments on disk, one Zarr group each, that plain zarr reads without us (docs/archive.md).

    <path>/zarr.json                     a group; attributes say what it is
    <path>/segments/<start:08d>/         a sealed segment: `rows_<block>`, `index`, `offsets`, `frames`, `pts_s`,
                                         `change`, `flow` (cache/columns.py), and `seal.json`
    <path>/unfinished/<start:08d>.<hex>/ one being written; sealing it moves it as a whole

Every array is one shard, or several of at most `SHARD_BYTES` of raw values, which is what a writer holds per array.
"""

import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from errno import EEXIST, ENOENT, ENOTEMPTY
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from deltascene.cache.columns import (
    TABLE,
    Column,
    Packer,
    chosen_blocks,
    columns_of,
    info_record,
    read_info,
    row_name,
    unpack,
)
from deltascene.cache.damage import told_as
from deltascene.cache.errors import AlreadySealed, BrokenSeal
from deltascene.cache.seal import check_files, file_sums, read_seal_file, write_seal_file
from deltascene.cache.segment import Array, FrameRecord, SegmentInfo
from deltascene.cache.segment_seal import (
    SegmentSeal,
    lost_writer,
    make_seal,
    not_archived,
    plain,
    refuse_empty,
    refuse_overwriting,
)
from deltascene.cache.store import Store

FORMAT = 1
SHARD_BYTES = 32 << 20  # of raw values, per array
SEAL = "seal.json"


class ZarrStore(Store):
    """Segments of one video in a folder; one writer per segment, any number of readers.

    Attributes:
        path: of the folder; `create` or the first `begin` makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, start: int, info: SegmentInfo, key: Mapping[str, Any], *, replace: bool = False) -> "_ZarrWriter":
        """As `Store.begin`."""
        assert start >= 0, start
        if not self._unfinished.is_dir():
            self.create()
        self.admit(start, key, replace)
        for earlier in self._unfinished.glob(f"{start:08d}.*"):
            self.sweep(earlier, start)
        return _ZarrWriter(self, start, info, plain(key), replace)

    def create(self) -> None:
        """Makes the folder; comes first where several will write."""
        with told_as(BrokenSeal, self.path, "remove it, and archive the video again"):
            root = zarr.open_group(self.path, mode="a", zarr_format=3)
            if "deltascene_archive" not in root.attrs:
                root.attrs["deltascene_archive"] = FORMAT
            for name in ("segments", "unfinished"):
                root.require_group(name)

    def starts(self) -> tuple[int, ...]:
        """As `Store.starts`."""
        names = (seal.parent.name for seal in self.path.glob(f"segments/[0-9]*/{SEAL}"))
        return tuple(sorted(int(name) for name in names if name.isdecimal() and f"{int(name[:18]):08d}" == name))

    def seal(self, start: int) -> SegmentSeal:
        """As `Store.seal`."""
        path = self.folder(start) / SEAL
        if not path.is_file():
            raise not_archived(start, self.starts())
        fields = read_seal_file(path, FORMAT)
        try:
            seal = SegmentSeal(**fields)
        except TypeError as error:
            raise BrokenSeal(f"{path}: not a seal: {error}") from error
        numbers = (seal.start, seal.frames, seal.next_index, seal.bytes)
        whole = all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
        if not whole or not isinstance(seal.key, dict):
            raise BrokenSeal(f"{path}: not a seal: expected whole numbers and a key")
        if not _is_time(seal.sealed_s):
            raise BrokenSeal(f"{path}: not a seal: expected a time; found {str(seal.sealed_s)[:80]}")
        if seal.start != start:
            raise BrokenSeal(f"{path}: expected the seal of segment {start}; found that of {seal.start}")
        return seal

    def info(self, start: int) -> SegmentInfo:
        """As `Store.info`."""
        return self._info(self.seal(start))

    def frames(self, start: int, blocks: Sequence[int] | None = None) -> Iterator[FrameRecord]:
        """As `Store.frames`."""
        seal = self.seal(start)
        info = self._info(seal)
        wanted = chosen_blocks(info, blocks)
        unread = {row_name(block) for block in info.blocks if block not in wanted}
        arrays = self._arrays(seal, [name for name in columns_of(info) if name not in unread])
        with self._readable(start):
            books: Any = dict(arrays["frames"].attrs)

        def read(name: str, first: int, end: int) -> Array:
            with self._readable(start):
                return np.asarray(arrays[name][first:end])

        return unpack(info, books, seal.frames, wanted, read)

    def verify(self, start: int) -> SegmentSeal:
        """As `Store.verify`."""
        seal = self.seal(start)
        check_files(self.folder(start), seal.files)
        self._arrays(seal, list(columns_of(self._info(seal))))
        return seal

    def drop(self, start: int) -> None:
        """As `Store.drop`."""
        if not (self.folder(start) / SEAL).is_file():
            raise not_archived(start, self.starts())
        self.sweep(self.folder(start), start)

    def folder(self, start: int) -> Path:
        """Where a sealed segment lies."""
        return self.path / "segments" / f"{start:08d}"

    def new_try(self, start: int) -> Path:
        """A path that no other writer has, for a segment that isn't sealed."""
        return self._unfinished / f"{start:08d}.{secrets.token_hex(4)}"

    def admit(self, start: int, key: Mapping[str, Any], replace: bool) -> None:
        """Refuses to write over a sealed segment; a broken seal may be replaced like one of the same key."""
        if not (self.folder(start) / SEAL).is_file():
            return
        try:
            sealed = self.seal(start)
        except BrokenSeal as error:
            if not replace:
                raise AlreadySealed(f"segment {start}: is sealed already, but broken; ask to replace it") from error
            return
        refuse_overwriting(sealed, key, replace)

    def sweep(self, folder: Path, start: int) -> None:
        """Removes a segment's folder: first at once under another name, so that no one sees half of it."""
        gone = self.new_try(start)
        with suppress(FileNotFoundError):  # another writer was faster
            os.replace(folder, gone)
        shutil.rmtree(gone, ignore_errors=True)

    @property
    def _unfinished(self) -> Path:
        return self.path / "unfinished"

    def _info(self, seal: SegmentSeal) -> SegmentInfo:
        self._check(seal, {"zarr.json"})
        with self._readable(seal.start):
            record: Any = zarr.open_group(self.folder(seal.start), mode="r").attrs["info"]
            return read_info(record)

    def _arrays(self, seal: SegmentSeal, names: Sequence[str]) -> "dict[str, zarr.Array[Any]]":
        """Some arrays of a segment, once their files are what was sealed."""
        self._check(seal, {f"{name}/zarr.json" for name in names})
        with self._readable(seal.start):
            group = zarr.open_group(self.folder(seal.start), mode="r")
            arrays = {name: _array(group, name) for name in names}
        stored, columns = arrays["frames"].shape[0], columns_of(self._info(seal))
        if seal.frames != stored:
            path = self.folder(seal.start) / SEAL
            raise BrokenSeal(f"{path}: expected {stored} frames, as stored; found {seal.frames}")
        for name, array in arrays.items():
            found, wanted = (array.dtype, array.shape[1:]), (columns[name].dtype, columns[name].shape)
            if found != wanted:
                raise BrokenSeal(f"{self.folder(seal.start) / name}: expected entries of {wanted}; found {found}")
        return arrays

    def _readable(self, start: int) -> AbstractContextManager[None]:
        return told_as(BrokenSeal, self.folder(start), "archive the video again")

    def _check(self, seal: SegmentSeal, needed: Collection[str]) -> None:
        """Files that must be there, and all others of their arrays."""
        folder = self.folder(seal.start)
        for name in sorted(needed):
            if name not in seal.files:
                raise BrokenSeal(f"{folder / SEAL}: expected {name} among the sealed files; it isn't")
        arrays = {name.split("/")[0] for name in needed}
        check_files(folder, {name: sum_ for name, sum_ in seal.files.items() if name.split("/")[0] in arrays})


class _ZarrWriter:
    """An unfinished segment on disk."""

    def __init__(self, store: ZarrStore, start: int, info: SegmentInfo, key: Mapping[str, Any], replace: bool) -> None:
        self._store, self._start, self._key, self._replace = store, start, key, replace
        self._packer, self._folder = Packer(info), store.new_try(start)
        group = zarr.open_group(
            self._folder, mode="w-", zarr_format=3, attributes={"start": start, "info": info_record(info)}
        )
        self._arrays = {name: _Growing(group, name, column) for name, column in columns_of(info).items()}

    def add(self, record: FrameRecord) -> None:
        """As `SegmentWriter.add`."""
        for name, entries in self._packer.pack(record).items():
            self._arrays[name].append(entries)

    def seal(self, token: str, next_index: int | None = None) -> SegmentSeal:
        """As `SegmentWriter.seal`."""
        refuse_empty(self._start, self._packer)
        for name, array in self._arrays.items():
            array.finish({"columns": list(TABLE), **self._packer.books()} if name == "frames" else {})
        if not self._is_ours():
            self.discard()
            raise lost_writer(self._start)
        self._store.admit(self._start, self._key, self._replace)
        try:
            return self._publish(token, next_index)
        except OSError as error:
            if error.errno not in (ENOENT, EEXIST, ENOTEMPTY):
                raise
            raise lost_writer(self._start) from error

    def _publish(self, token: str, next_index: int | None) -> SegmentSeal:
        """Writes the seal and moves the whole segment to its place."""
        sums = file_sums(self._folder, (path for path in self._folder.rglob("*") if path.is_file()))
        seal = make_seal(self._start, self._packer, self._key, token, next_index, sums)
        write_seal_file(self._folder / SEAL, asdict(seal), FORMAT)
        place = self._store.folder(self._start)
        if place.exists():
            self._store.sweep(place, self._start)
        os.rename(self._folder, place)
        return seal

    def _is_ours(self) -> bool:
        """Whether nobody swept the folder away; what is written after that comes without the group's attributes."""
        try:
            return "info" in zarr.open_group(self._folder, mode="r").attrs
        except FileNotFoundError:
            return False

    def discard(self) -> None:
        """As `SegmentWriter.discard`."""
        shutil.rmtree(self._folder, ignore_errors=True)


class _Growing:
    """An array that grows entry by entry; whole shards go to disk."""

    def __init__(self, group: zarr.Group, name: str, column: Column) -> None:
        self._group, self._name, self._column = group, name, column
        chunk_bytes = column.chunk * int(np.prod(column.shape)) * column.dtype.itemsize
        self._shard = column.chunk * max(1, SHARD_BYTES // chunk_bytes)
        self._buffer = np.empty((self._shard, *column.shape), column.dtype)
        self._filled = self._written = 0
        self._array: zarr.Array[Any] | None = None

    def append(self, entries: Array) -> None:
        while len(entries):
            taken = entries[: self._shard - self._filled]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled, entries = self._filled + len(taken), entries[len(taken) :]
            if self._filled == self._shard:
                self._flush()

    def finish(self, attributes: Mapping[str, Any]) -> None:
        if self._filled or self._array is None:
            self._flush()
        if attributes:
            assert self._array is not None
            self._array.attrs.update(attributes)

    def _flush(self) -> None:
        count = self._written + self._filled
        if self._array is None:
            self._array = self._create(count)
        else:
            self._array.resize((count, *self._column.shape))
        if count:
            self._array[self._written : count] = self._buffer[: self._filled]
        self._written, self._filled = count, 0

    def _create(self, count: int) -> "zarr.Array[Any]":
        """The array: of full shards if this one is full, else the only shard, no longer than its entries need."""
        chunk = max(1, min(self._column.chunk, count))
        shard = max(chunk, -(-count // chunk) * chunk)
        return self._group.create_array(
            self._name,
            shape=(count, *self._column.shape),
            chunks=(chunk, *self._column.shape),
            shards=(shard, *self._column.shape),
            dtype=self._column.dtype,
            fill_value=0,
            # Of those measured in docs/archive.md this one saves most float32 bytes, for 1 ms a frame over plain bytes.
            compressors=BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=self._column.dtype.itemsize),
            config={"write_empty_chunks": True},  # every shard is a file, so that a missing one is seen
        )


def _is_time(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e12  # type: ignore[operator]


def _array(group: zarr.Group, name: str) -> "zarr.Array[Any]":
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise BrokenSeal(f"{name}: expected an array; found a group")
    return array
