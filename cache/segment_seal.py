"""The seal of an archived segment: what it holds, what it was made from, and the rules of writing it once."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deltascene.cache.columns import Packer
from deltascene.cache.errors import AlreadySealed, LostWriter, NotArchived, WrongFingerprint, WrongRecord
from deltascene.cache.keys import fingerprint, first_difference


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


def make_seal(
    start: int,
    packer: Packer,
    key: Mapping[str, Any],
    token: str,
    next_index: int | None,
    sums: Mapping[str, tuple[int, str]],
) -> dict[str, Any]:
    """Fields of the seal of a segment whose files are all written, but for the files.

    Args:
        start: of the segment.
        packer: that its frames went through.
        key: what it was made from, plain.
        token: of the run that wrote it.
        next_index: as `SegmentWriter.seal`.
        sums: size in bytes and SHA-256 of its files.
    """
    return {
        "start": start,
        "frames": packer.frames,
        "next_index": packer.next_index if next_index is None else next_index,
        "key": key,
        "token": token,
        "bytes": sum(size for size, _ in sums.values()),
        "sealed_s": time.time(),
    }


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


def not_archived(start: int, starts: Sequence[int]) -> NotArchived:
    """The error for a segment that isn't there."""
    there = f"starts are {', '.join(map(str, starts[:8]))}{' …' if len(starts) > 8 else ''}" if starts else "none is"
    return NotArchived(f"segment {start}: isn't archived; {there}; archive the video again")


def lost_writer(start: int) -> LostWriter:
    """The error for a writer that was overtaken."""
    return LostWriter(f"segment {start}: another writer began it meanwhile; let that one finish")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "…"
