"""Chooses the segments to drop from an archive that exceeds its budget; a pure function that removes nothing itself.

Segments are dropped in the order in which they were sealed, whichever video they belong to. So the archive of a camera
is a window over its latest hours, and the archive of a folder loses its first videos from their beginning on. The rest
of a video stays usable, because no segment depends on an earlier one.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """A sealed segment as the budget sees it.

    Attributes:
        video: id of its video.
        start: number of its first frame.
        bytes: size of the segment.
        sealed_s: when it was sealed, in seconds since 1970.
    """

    video: str
    start: int
    bytes: int
    sealed_s: float


def over_budget(segments: Iterable[StoredSegment], budget_bytes: int) -> int:
    """Bytes by which segments exceed the budget; 0 if they fit."""
    return max(0, sum(segment.bytes for segment in segments) - budget_bytes)


def choose_drops(segments: Iterable[StoredSegment], budget_bytes: int, coming_bytes: int = 0) -> list[StoredSegment]:
    """The fewest of the oldest segments without which the rest fits.

    Args:
        segments: all segments, in any order.
        budget_bytes: bytes that all of them may take.
        coming_bytes: bytes that the next segment will need.

    Returns:
        Segments to drop, oldest first; those sealed at the same time in the order of video and start. All segments if
        even an empty archive hasn't enough room.
    """
    oldest_first = sorted(segments, key=lambda segment: (segment.sealed_s, segment.video, segment.start))
    excess, drops = over_budget(oldest_first, budget_bytes - coming_bytes), []
    for segment in oldest_first:
        if excess <= 0:
            break
        drops.append(segment)
        excess -= segment.bytes
    return drops
