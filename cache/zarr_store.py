"""A store with one file per segment, in a folder or an object store; plain zarr reads the files, too (docs/archive.md).

    <path>/segments/<start:08d>.zip      a sealed segment: a Zarr group of `rows_<block>`, `index`, `offsets`, `frames`,
                                         `pts_s`, `change`, `flow` (cache/columns.py), and `seal.json`
    <path>/unfinished/<start:08d>.<hex>/ a segment that is being written; sealing it creates the file as a whole

Every array is one shard, or several of at most `SHARD_BYTES` of raw values; a writer holds one shard per array.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.buffer.cpu import Buffer
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

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
from deltascene.cache.damage import reraise_damage
from deltascene.cache.errors import AlreadySealed, BrokenSeal
from deltascene.cache.places import Place, new_scratch, remove
from deltascene.cache.sealed_zip import SealedZip, write_sealed
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

SHARD_BYTES = 32 << 20  # of raw values, per array


class ZarrStore(Store):
    """Segments of one video, with one writer per segment and any number of readers.

    Attributes:
        path: path of the folder, which is created with the first segment.
    """

    def __init__(self, path: Place) -> None:
        self.path = path

    def begin(self, start: int, info: SegmentInfo, key: Mapping[str, Any], *, replace: bool = False) -> "_ZarrWriter":
        """Starts a segment."""
        assert start >= 0, start
        self.admit(start, key, replace)
        for earlier in (self.path / "unfinished").glob(f"{start:08d}.*") if isinstance(self.path, Path) else ():
            shutil.rmtree(earlier, ignore_errors=True)
        return _ZarrWriter(self, start, info, plain(key), replace)

    def starts(self) -> tuple[int, ...]:
        """Starts of the sealed segments, increasing."""
        names = (path.stem for path in self.path.glob("segments/*.zip"))
        return tuple(sorted(int(name) for name in names if name.isdecimal() and f"{int(name[:18]):08d}" == name))

    def seal(self, start: int) -> SegmentSeal:
        """Reads the seal of a segment; its files aren't checked."""
        with self._open(start) as sealed:
            return _seal_of(sealed, start)

    def info(self, start: int) -> SegmentInfo:
        """Reads what the frames of a segment share."""
        with self._open(start) as sealed:
            _seal_of(sealed, start)
            return _info_of(sealed)

    def frames(self, start: int, blocks: Sequence[int] | None = None) -> Iterator[FrameRecord]:
        """Reads the frames of a segment; the files read are held in memory, compressed as they are stored."""
        with self._open(start) as sealed:
            seal, info = _seal_of(sealed, start), _info_of(sealed)
            wanted = chosen_blocks(info, blocks)
            unread = {row_name(block) for block in info.blocks if block not in wanted}
            arrays = _arrays_of(sealed, seal, [name for name in columns_of(info) if name not in unread])
            books: Any = dict(arrays["frames"].attrs)

        def read(name: str, first: int, end: int) -> Array:
            with _readable(self.file(start)):
                return np.asarray(arrays[name][first:end])

        return unpack(info, books, seal.frames, wanted, read)

    def verify(self, start: int) -> SegmentSeal:
        """Checks every file of a segment."""
        with self._open(start) as sealed:
            seal = _seal_of(sealed, start)
            sealed.check()
            _arrays_of(sealed, seal, list(columns_of(_info_of(sealed))))
        return seal

    def drop(self, start: int) -> None:
        """Removes a segment, whether or not it is damaged."""
        if not self.file(start).is_file():
            raise not_archived(start, self.starts())
        remove(self.file(start))

    def file(self, start: int) -> Place:
        """Path of a sealed segment."""
        return self.path / "segments" / f"{start:08d}.zip"

    def admit(self, start: int, key: Mapping[str, Any], replace: bool) -> None:
        """Refuses to overwrite a sealed segment; a damaged one may be replaced like one of the same key.

        Raises:
            AlreadySealed: `replace` isn't set.
            WrongFingerprint: the sealed segment has another key.
        """
        if not self.file(start).is_file():
            return
        try:
            sealed = self.seal(start)
        except BrokenSeal as error:
            if not replace:
                raise AlreadySealed(f"segment {start}: is sealed already, but broken; ask to replace it") from error
            return
        refuse_overwriting(sealed, key, replace)

    def _open(self, start: int) -> SealedZip:
        try:
            return SealedZip(self.file(start))
        except FileNotFoundError:
            raise not_archived(start, self.starts()) from None


class _ZarrWriter:
    """An unfinished segment."""

    def __init__(self, store: ZarrStore, start: int, info: SegmentInfo, key: Mapping[str, Any], replace: bool) -> None:
        self._store, self._start, self._key, self._replace = store, start, key, replace
        self._packer, self._folder = Packer(info), new_scratch(store.path, f"{start:08d}")
        group = zarr.open_group(
            self._folder, mode="w", zarr_format=3, attributes={"start": start, "info": info_record(info)}
        )
        self._arrays = {name: _Growing(group, name, column) for name, column in columns_of(info).items()}

    def add(self, record: FrameRecord) -> None:
        for name, entries in self._packer.pack(record).items():
            self._arrays[name].append(entries)

    def seal(self, token: str, next_index: int | None = None) -> SegmentSeal:
        refuse_empty(self._start, self._packer)
        try:
            return self._seal(token, next_index)
        except FileNotFoundError as error:  # another writer removed its folder
            raise lost_writer(self._start) from error
        finally:
            self.discard()

    def _seal(self, token: str, next_index: int | None) -> SegmentSeal:
        if not (self._folder / "zarr.json").is_file():
            raise lost_writer(self._start)
        for name, array in self._arrays.items():
            array.finish({"columns": list(TABLE), **self._packer.books()} if name == "frames" else {})
        self._store.admit(self._start, self._key, self._replace)
        fields = write_sealed(
            self._folder,
            self._store.file(self._start),
            lambda sums: make_seal(self._start, self._packer, self._key, token, next_index, sums),
            replace=self._replace,
        )
        if fields is None:
            raise AlreadySealed(f"segment {self._start}: another writer sealed it in the meantime; read that one")
        return SegmentSeal(**fields)

    def discard(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


class _Growing:
    """An array that grows entry by entry; a shard is written when it is full."""

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
        """Creates the array with its first shard; one that isn't full is the only one and as long as its entries."""
        chunk = max(1, min(self._column.chunk, count))
        shard = max(chunk, -(-count // chunk) * chunk)
        return self._group.create_array(
            self._name,
            shape=(count, *self._column.shape),
            chunks=(chunk, *self._column.shape),
            shards=(shard, *self._column.shape),
            dtype=self._column.dtype,
            fill_value=0,
            # docs/archive.md: of the codecs measured, this one saves most bytes of float32 and takes 1 ms per frame.
            compressors=BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=self._column.dtype.itemsize),
            config={"write_empty_chunks": True},  # every shard is a file, so that a missing one is noticed
        )


def _seal_of(sealed: SealedZip, start: int) -> SegmentSeal:
    """The seal of a segment, with its values checked."""
    seal = SegmentSeal.of(sealed)
    if seal.start != start:
        raise BrokenSeal(f"{sealed.path}: expected the seal of segment {start}; found that of {seal.start}")
    return seal


def _info_of(sealed: SealedZip) -> SegmentInfo:
    with _readable(sealed.path):
        record: Any = _group_of(sealed, ["zarr.json"]).attrs["info"]
        return read_info(record)


def _arrays_of(sealed: SealedZip, seal: SegmentSeal, names: Sequence[str]) -> "dict[str, zarr.Array[Any]]":
    """Some arrays of a segment, with their files checked."""
    needed = ["zarr.json", *(f"{name}/zarr.json" for name in names)]
    others = [file for file in sealed.files if file.split("/")[0] in names and file not in needed]
    with _readable(sealed.path):
        group = _group_of(sealed, [*needed, *others])
        arrays = {name: _array(group, name) for name in names}
    stored, columns = arrays["frames"].shape[0], columns_of(_info_of(sealed))
    if seal.frames != stored:
        raise BrokenSeal(f"{sealed.path}: expected {stored} frames, as stored; found {seal.frames}")
    for name, array in arrays.items():
        found, wanted = (array.dtype, array.shape[1:]), (columns[name].dtype, columns[name].shape)
        if found != wanted:
            raise BrokenSeal(f"{sealed.path}: {name}: expected entries of {wanted}; found {found}")
    return arrays


def _readable(path: Place) -> AbstractContextManager[None]:
    return reraise_damage(BrokenSeal, str(path), "archive the video again")


def _group_of(sealed: SealedZip, names: Sequence[str]) -> zarr.Group:
    """A Zarr group in memory of some files of a segment."""
    return zarr.open_group(MemoryStore({name: Buffer.from_bytes(sealed.read(name)) for name in names}), mode="r")


def _array(group: zarr.Group, name: str) -> "zarr.Array[Any]":
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise BrokenSeal(f"{name}: expected an array; found a group")
    return array
