"""The seal of an archived segment, and the rules that it is written once."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deltascene.cache.base_seal import BaseSeal, is_count
from deltascene.cache.columns import Packer
from deltascene.cache.errors import AlreadySealed, LostWriter, NotArchived, WrongFingerprint, WrongRecord
from deltascene.cache.keys import fingerprint, first_difference, shortened

_LATEST_S = 1e12  # no segment is sealed later, in seconds since 1970


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentSeal(BaseSeal):
    """The seal of an archived segment.

    Attributes:
        key: everything that its contents depend on, as flat plain values.
        bytes: size of its files together, without the seal itself.
        sealed_s: when it was sealed, in seconds since 1970.
    """

    key: Mapping[str, Any]
    bytes: int
    sealed_s: float

    @property
    def fingerprint(self) -> str:
        """Hash of the key."""
        return fingerprint(self.key)

    def require(self, key: Mapping[str, Any]) -> None:
        """Refuses a segment with another key.

        Raises:
            WrongFingerprint: names the first key that differs, with both values.
        """
        if difference := first_difference(plain(key), self.key):
            name, expected, found = difference
            raise WrongFingerprint(
                f"segment {self.start}: expected {name} = {shortened(expected)}; it was made with {shortened(found)};"
                " give the same input and model, or archive the video again"
            )

    def own_problem(self) -> str:
        """Names a key, a size or a time that isn't one."""
        if not is_count(self.bytes) or not isinstance(self.key, dict):
            return "expected a number of bytes and a key"
        if type(self.sealed_s) not in (int, float) or not 0 <= self.sealed_s < _LATEST_S:
            return f"expected a time; found {str(self.sealed_s)[:80]}"
        return ""


def make_seal(
    start: int,
    packer: Packer,
    key: Mapping[str, Any],
    token: str,
    next_index: int | None,
    sums: Mapping[str, tuple[int, str]],
) -> dict[str, Any]:
    """Fields of `SegmentSeal` without `files`, for a segment whose files are all written.

    Args:
        start: start of the segment.
        packer: the packer of its frames.
        key: everything that its contents depend on, as returned by `plain`.
        token: token of the run that wrote it.
        next_index: number in the source of the frame after it; None is the one after its last frame.
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
    """A key as it is read back from JSON, so that a tuple equals a list of the same values.

    Raises:
        TypeError, ValueError: JSON has no such value.
    """
    values: dict[str, Any] = json.loads(json.dumps(dict(key), allow_nan=False))
    return values


def refuse_overwriting(sealed: SegmentSeal, key: Mapping[str, Any], replace: bool) -> None:
    """Refuses to write a sealed segment again, unless it is to be replaced by one of the same key.

    Raises:
        AlreadySealed: `replace` isn't set.
        WrongFingerprint: the sealed segment has another key.
    """
    if not replace:
        raise AlreadySealed(f"segment {sealed.start}: is sealed already; read it, or ask to replace it")
    sealed.require(key)


def refuse_empty(start: int, packer: Packer) -> None:
    """Refuses to seal a segment without frames.

    Raises:
        WrongRecord: no frame was added.
    """
    if not packer.frames:
        raise WrongRecord(f"segment {start}: expected at least one frame before it is sealed; found none")


def not_archived(start: int, starts: Sequence[int]) -> NotArchived:
    """The error for a segment that isn't archived."""
    there = f"starts are {', '.join(map(str, starts[:8]))}{' …' if len(starts) > 8 else ''}" if starts else "none is"
    return NotArchived(f"segment {start}: isn't archived; {there}; archive the video again")


def lost_writer(start: int) -> LostWriter:
    """The error for a writer whose segment another writer began again."""
    return LostWriter(f"segment {start}: another writer began it in the meantime; let that one finish")
