"""Stores of archived segments: the interface of every store, and a store in memory.

A segment is written frame by frame and sealed at the end. Readers see only sealed segments, which never change.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

import numpy as np

from deltascene.cache.columns import Books, Packer, chosen_blocks, columns_of, row_name, unpack
from deltascene.cache.errors import BrokenSeal
from deltascene.cache.segment import Array, FrameRecord, SegmentInfo, SegmentRecords
from deltascene.cache.segment_seal import (
    SegmentSeal,
    lost_writer,
    make_seal,
    not_archived,
    plain,
    refuse_empty,
    refuse_overwriting,
)


class SegmentWriter(Protocol):
    """An unfinished segment."""

    def add(self, record: FrameRecord) -> None:
        """Appends a copy of a frame.

        Raises:
            WrongRecord: the record doesn't have the segment's form.
        """

    def seal(self, token: str, next_index: int | None = None) -> SegmentSeal:
        """Writes the rest of the segment and its seal; the writer can't be used any more.

        Args:
            token: token of the run that writes.
            next_index: number in the source of the frame after the segment; None is the one after its last frame.

        Raises:
            LostWriter: another writer began the segment again.
            AlreadySealed: another writer sealed it in the meantime.
            WrongRecord: it has no frame.
        """

    def discard(self) -> None:
        """Removes the unfinished segment; does nothing if it is removed or sealed already."""


class Store(Protocol):
    """Sealed segments of one video, by the number of their first frame."""

    def begin(self, start: int, info: SegmentInfo, key: Mapping[str, Any], *, replace: bool = False) -> SegmentWriter:
        """Starts a segment; an unfinished one of the same start is given up.

        Args:
            start: number of its first frame among the processed frames.
            info: what its frames share.
            key: everything that its contents depend on, as flat plain values.
            replace: whether a sealed segment of the same key is written again. It stays until the new one is sealed.

        Raises:
            AlreadySealed: there is a sealed one, and `replace` isn't set.
            WrongFingerprint: the sealed one to be replaced has another key; `drop` it first.
        """

    def starts(self) -> tuple[int, ...]:
        """Starts of the sealed segments, increasing."""

    def seal(self, start: int) -> SegmentSeal:
        """Reads the seal of a segment; its files aren't checked.

        Raises:
            NotArchived: there is no such segment.
            BrokenSeal: the seal can't be read.
        """

    def info(self, start: int) -> SegmentInfo:
        """Reads what the frames of a segment share.

        Raises:
            NotArchived: there is no such segment.
            BrokenSeal: its description isn't what was sealed.
        """

    def frames(self, start: int, blocks: Sequence[int] | None = None) -> Iterator[FrameRecord]:
        """Reads the frames of a segment in order; memory stays bounded. Files are checked before the first frame.

        Args:
            start: start of the segment.
            blocks: archive points to read; files of the others are neither checked nor read. None is all of them.

        Raises:
            NotArchived: there is no such segment or archive point.
            BrokenSeal: a file isn't what was sealed; the message names it.
        """

    def verify(self, start: int) -> SegmentSeal:
        """Checks every file of a segment.

        Raises:
            NotArchived: there is no such segment.
            BrokenSeal: a file isn't what was sealed; the message names it.
        """

    def drop(self, start: int) -> None:
        """Removes a segment, whether or not it is damaged.

        Raises:
            NotArchived: there is no such segment.
        """

    def read(self, start: int) -> SegmentRecords:
        """Reads a whole segment into memory; raises the errors of `frames`."""
        return SegmentRecords(start, self.info(start), tuple(self.frames(start)))


class MemoryStore(Store):
    """Segments in the memory of this process, for tests and for runs that keep no archive."""

    def __init__(self) -> None:
        self._sealed: dict[int, _Held] = {}
        self._begun: dict[int, _MemoryWriter] = {}

    def begin(self, start: int, info: SegmentInfo, key: Mapping[str, Any], *, replace: bool = False) -> "_MemoryWriter":
        """Starts a segment."""
        if start in self._sealed:
            refuse_overwriting(self._sealed[start].seal, key, replace)
        self._begun[start] = _MemoryWriter(self, start, info, plain(key), replace)
        return self._begun[start]

    def starts(self) -> tuple[int, ...]:
        """Starts of the sealed segments, increasing."""
        return tuple(sorted(self._sealed))

    def seal(self, start: int) -> SegmentSeal:
        """Reads the seal of a segment; its files aren't checked."""
        return self._held(start).seal

    def info(self, start: int) -> SegmentInfo:
        """Reads what the frames of a segment share."""
        return self._held(start).info

    def frames(self, start: int, blocks: Sequence[int] | None = None) -> Iterator[FrameRecord]:
        """Reads the frames of a segment in order."""
        held = self._held(start)
        wanted = chosen_blocks(held.info, blocks)
        unread = {row_name(block) for block in held.info.blocks if block not in wanted}
        held.check(set(held.seal.files) - unread)

        def read(name: str, first: int, end: int) -> Array:
            return held.arrays[name][first:end].copy()

        return unpack(held.info, held.books, held.seal.frames, wanted, read)

    def verify(self, start: int) -> SegmentSeal:
        """Checks every file of a segment."""
        held = self._held(start)
        held.check(set(held.seal.files))
        return held.seal

    def drop(self, start: int) -> None:
        """Removes a segment, whether or not it is damaged."""
        self._held(start)
        del self._sealed[start]

    def _held(self, start: int) -> "_Held":
        if start not in self._sealed:
            raise not_archived(start, self.starts())
        return self._sealed[start]


@dataclass(frozen=True, slots=True)
class _Held:
    """A sealed segment in memory; arrays take the place of files."""

    seal: SegmentSeal
    info: SegmentInfo
    books: Books
    arrays: dict[str, Array]

    def check(self, names: set[str]) -> None:
        for name in sorted(names):
            if name not in self.arrays:
                raise BrokenSeal(f"segment {self.seal.start}: {name}: sealed, but missing")
            if _array_sum(self.arrays[name]) != self.seal.files[name]:
                raise BrokenSeal(f"segment {self.seal.start}: {name}: its bytes aren't those that were sealed")


class _MemoryWriter:
    """An unfinished segment in memory."""

    def __init__(
        self, store: MemoryStore, start: int, info: SegmentInfo, key: Mapping[str, Any], replace: bool
    ) -> None:
        self._store, self._start, self._info, self._key, self._replace = store, start, info, key, replace
        self._packer = Packer(info)
        self._entries: dict[str, list[Array]] = {name: [] for name in columns_of(info)}

    def add(self, record: FrameRecord) -> None:
        for name, entries in self._packer.pack(record).items():
            self._entries[name].append(entries.copy())

    def seal(self, token: str, next_index: int | None = None) -> SegmentSeal:
        refuse_empty(self._start, self._packer)
        if self._store._begun.get(self._start) is not self:
            raise lost_writer(self._start)
        if self._start in self._store._sealed:
            refuse_overwriting(self._store._sealed[self._start].seal, self._key, self._replace)
        arrays = {
            name: np.concatenate([np.empty((0, *column.shape), column.dtype), *self._entries[name]])
            for name, column in columns_of(self._info).items()
        }
        sums = {name: _array_sum(array) for name, array in arrays.items()}
        seal = SegmentSeal(**make_seal(self._start, self._packer, self._key, token, next_index, sums), files=sums)
        self._store._sealed[self._start] = _Held(seal, self._info, self._packer.books(), arrays)
        self.discard()
        return seal

    def discard(self) -> None:
        self._entries.clear()
        if self._store._begun.get(self._start) is self:
            del self._store._begun[self._start]


def _array_sum(array: Array) -> tuple[int, str]:
    return array.nbytes, sha256(np.ascontiguousarray(array).data).hexdigest()
