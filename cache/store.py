"""Where archived segments are kept: the contract of every store, and one in memory.

A segment is written frame by frame and sealed last. What isn't sealed doesn't exist; what is sealed doesn't change.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Protocol

import numpy as np

from deltascene.cache.columns import Books, Packer, chosen_blocks, columns_of, row_name, unpack
from deltascene.cache.errors import (
    AlreadySealed,
    BrokenSeal,
    CacheError,
    LostWriter,
    NotArchived,
    WrongFingerprint,
    WrongRecord,
)
from deltascene.cache.keys import first_difference, fingerprint
from deltascene.cache.segment import Array, FrameRecord, Segment, SegmentInfo


@dataclass(frozen=True, slots=True)
class SegmentSeal:
    """What a sealed segment is and what it was made from.

    Attributes:
        start: number of its first frame among the processed frames.
        frames: how many it holds.
        next_index: where in the source the frame after it lies.
        key: everything that its contents depend on, as flat plain values.
        token: of the run that wrote it.
        bytes: of its files together, the seal itself left out.
        sealed_s: when, in seconds since 1970.
        files: size in bytes and SHA-256 of every file, by path below the segment.
    """

    start: int
    frames: int
    next_index: int
    key: Mapping[str, Any]
    token: str
    bytes: int
    sealed_s: float
    files: Mapping[str, tuple[int, str]]

    @property
    def fingerprint(self) -> str:
        """Hash of the key."""
        return fingerprint(self.key)

    def require(self, key: Mapping[str, Any]) -> None:
        """Refuses a segment that was made from something else.

        Raises:
            WrongFingerprint: names the first key that differs, with both values.
        """
        if difference := first_difference(plain(key), self.key):
            name, expected, found = difference
            raise WrongFingerprint(
                f"segment {self.start}: expected {name} = {_short(expected)}; it was made with {_short(found)};"
                " give the same input and model, or archive the video again"
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
            LostWriter: the segment was begun again, or sealed, by another writer.
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

    def read(self, start: int) -> Segment:
        """A whole segment in memory; as `frames`."""
        return Segment(start, self.info(start), tuple(self.frames(start)))

    def size_bytes(self, start: int) -> int:
        """Bytes of a sealed segment."""
        return self.seal(start).bytes


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
        held.check({name for name in held.arrays if name not in unread})

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
        seal = make_seal(self._start, self._packer, self._key, token, next_index, sums)
        self._store._sealed[self._start] = _Held(seal, self._info, self._packer.books(), arrays)
        self.discard()
        return seal

    def discard(self) -> None:
        """As `SegmentWriter.discard`."""
        self._entries.clear()
        if self._store._begun.get(self._start) is self:
            del self._store._begun[self._start]


def make_seal(
    start: int,
    packer: Packer,
    key: Mapping[str, Any],
    token: str,
    next_index: int | None,
    sums: Mapping[str, tuple[int, str]],
) -> SegmentSeal:
    """The seal of a segment whose files are all written.

    Args:
        start: of the segment.
        packer: that its frames went through.
        key: what it was made from, plain.
        token: of the run that wrote it.
        next_index: as `SegmentWriter.seal`.
        sums: size in bytes and SHA-256 of its files.
    """
    return SegmentSeal(
        start=start,
        frames=packer.frames,
        next_index=packer.next_index if next_index is None else next_index,
        key=key,
        token=token,
        bytes=sum(size for size, _ in sums.values()),
        sealed_s=time.time(),
        files=sums,
    )


def seal_fields(seal: SegmentSeal) -> dict[str, Any]:
    """A seal as plain values."""
    return asdict(seal)


def plain(key: Mapping[str, Any]) -> dict[str, Any]:
    """A key as it reads back from JSON, so that a tuple and a list of the same values are the same.

    Raises:
        TypeError, ValueError: a value isn't plain.
    """
    values: dict[str, Any] = json.loads(json.dumps(dict(key), allow_nan=False))
    return values


def refuse_overwriting(sealed: SegmentSeal, key: Mapping[str, Any], replace: bool) -> None:
    """Holds the rule that a sealed segment is only ever replaced by itself.

    Raises:
        AlreadySealed: it wasn't asked for.
        WrongFingerprint: it was made from something else.
    """
    if not replace:
        raise AlreadySealed(f"segment {sealed.start}: is sealed already; read it, or ask to replace it")
    sealed.require(key)


def refuse_empty(start: int, packer: Packer) -> None:
    """Refuses to seal nothing.

    Raises:
        WrongRecord: no frame was added.
    """
    if not packer.frames:
        raise WrongRecord(f"segment {start}: expected at least one frame before it is sealed; found none")


def not_archived(start: int, starts: Sequence[int]) -> CacheError:
    """The error for a segment that isn't there."""
    there = f"starts are {', '.join(map(str, starts[:8]))}{' …' if len(starts) > 8 else ''}" if starts else "none is"
    return NotArchived(f"segment {start}: isn't archived; {there}; archive the video again")


def lost_writer(start: int) -> CacheError:
    """The error for a writer that was overtaken."""
    return LostWriter(f"segment {start}: another writer began it meanwhile; let that one finish")


def _array_sum(array: Array) -> tuple[int, str]:
    return array.nbytes, sha256(np.ascontiguousarray(array).data).hexdigest()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "…"
