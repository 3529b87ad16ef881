"""Where archived segments are kept: the contract of every store, and one in memory.

A segment is written frame by frame and sealed last. What isn't sealed doesn't exist; what is sealed doesn't change.
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
        """Appends a frame; nothing of the record is kept but a copy.

        Raises:
            WrongRecord: it isn't of the segment's form.
        """

    def seal(self, token: str, next_index: int | None = None) -> SegmentSeal:
        """Writes what is left, then the seal; the writer is spent.

        Args:
            token: of the run that writes.
            next_index: where in the source the frame after the segment lies; None is right after its last frame.

        Raises:
            LostWriter: the segment was begun again by another writer.
            AlreadySealed: another writer sealed it meanwhile.
            WrongRecord: it has no frame.
        """

    def discard(self) -> None:
        """Gives the segment up; nothing of it stays. A second time, or after sealing, it does nothing."""


class Store(Protocol):
    """Sealed segments of one video, by the number of their first frame."""

    def begin(self, start: int, info: SegmentInfo, key: Mapping[str, Any], *, replace: bool = False) -> SegmentWriter:
        """Starts a segment; an earlier try at the same place that was never sealed is given up.

        Args:
            start: number of its first frame among the processed frames.
            info: what its frames share.
            key: everything that its contents depend on, as flat plain values.
            replace: whether a sealed segment of the same key is written again. It stays until the new one is sealed.

        Raises:
            AlreadySealed: there is a sealed one, and `replace` wasn't asked for.
            WrongFingerprint: the sealed one to be replaced has another key; `drop` it first.
        """

    def starts(self) -> tuple[int, ...]:
        """Starts of the sealed segments, increasing."""

    def seal(self, start: int) -> SegmentSeal:
        """The seal of a segment; what it says of the files isn't checked here.

        Raises:
            NotArchived: there is no such segment.
            BrokenSeal: the seal can't be read.
        """

    def info(self, start: int) -> SegmentInfo:
        """What the frames of a segment share.

        Raises:
            NotArchived: there is no such segment.
            BrokenSeal: it isn't what was sealed.
        """

    def frames(self, start: int, blocks: Sequence[int] | None = None) -> Iterator[FrameRecord]:
        """The frames of a segment in order; memory stays bounded. Sizes and sums are checked before the first one.

        Args:
            start: of the segment.
            blocks: the archive points wanted; the files of the others are neither checked nor read. None is all.

        Raises:
            NotArchived: there is no such segment or archive point.
            BrokenSeal: what lies there isn't what was sealed; the text names the file.
        """

    def verify(self, start: int) -> SegmentSeal:
        """Checks every file of a segment.

        Raises:
            NotArchived: there is no such segment.
            BrokenSeal: what lies there isn't what was sealed; the text names the file.
        """

    def drop(self, start: int) -> None:
        """Removes a segment, broken or not.

        Raises:
            NotArchived: there is no such segment.
        """

    def read(self, start: int) -> SegmentRecords:
        """A whole segment in memory; as `frames`."""
        return SegmentRecords(start, self.info(start), tuple(self.frames(start)))


class MemoryStore(Store):
    """Segments in this process's memory: for tests, and where nothing has to outlive the run."""

    def __init__(self) -> None:
        self._sealed: dict[int, _Held] = {}
        self._begun: dict[int, _MemoryWriter] = {}

    def begin(self, start: int, info: SegmentInfo, key: Mapping[str, Any], *, replace: bool = False) -> "_MemoryWriter":
        """As `Store.begin`."""
        if start in self._sealed:
            refuse_overwriting(self._sealed[start].seal, key, replace)
        self._begun[start] = _MemoryWriter(self, start, info, plain(key), replace)
        return self._begun[start]

    def starts(self) -> tuple[int, ...]:
        """As `Store.starts`."""
        return tuple(sorted(self._sealed))

    def seal(self, start: int) -> SegmentSeal:
        """As `Store.seal`."""
        return self._held(start).seal

    def info(self, start: int) -> SegmentInfo:
        """As `Store.info`."""
        return self._held(start).info

    def frames(self, start: int, blocks: Sequence[int] | None = None) -> Iterator[FrameRecord]:
        """As `Store.frames`."""
        held = self._held(start)
        wanted = chosen_blocks(held.info, blocks)
        unread = {row_name(block) for block in held.info.blocks if block not in wanted}
        held.check(set(held.seal.files) - unread)

        def read(name: str, first: int, end: int) -> Array:
            return held.arrays[name][first:end].copy()

        return unpack(held.info, held.books, held.seal.frames, wanted, read)

    def verify(self, start: int) -> SegmentSeal:
        """As `Store.verify`."""
        held = self._held(start)
        held.check(set(held.seal.files))
        return held.seal

    def drop(self, start: int) -> None:
        """As `Store.drop`."""
        self._held(start)
        del self._sealed[start]

    def _held(self, start: int) -> "_Held":
        if start not in self._sealed:
            raise not_archived(start, self.starts())
        return self._sealed[start]


@dataclass(frozen=True, slots=True)
class _Held:
    """A sealed segment in memory: its arrays stand for files."""

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
        """As `SegmentWriter.add`."""
        for name, entries in self._packer.pack(record).items():
            self._entries[name].append(entries.copy())

    def seal(self, token: str, next_index: int | None = None) -> SegmentSeal:
        """As `SegmentWriter.seal`."""
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
        """As `SegmentWriter.discard`."""
        self._entries.clear()
        if self._store._begun.get(self._start) is self:
            del self._store._begun[self._start]


def _array_sum(array: Array) -> tuple[int, str]:
    return array.nbytes, sha256(np.ascontiguousarray(array).data).hexdigest()
