"""Which sealed segments go when an archive outgrows its bytes. Pure: it looks at numbers and drops nothing itself.

The rule is the oldest first, whichever video they are of: what was sealed longest ago goes first, so that a camera's
archive is a window over its latest hours, and a folder's archive loses its first videos from their beginning on. What
is left of a video is still worth something, because a segment needs none before it.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """A sealed segment as the budget sees it.

    Attributes:
        video: id of its video.
        start: number of its first frame.
        bytes: what it takes.
        sealed_s: when it was sealed, in seconds since 1970.
    """

    video: str
    start: int
    bytes: int
    sealed_s: float


def over_budget(segments: Iterable[StoredSegment], budget_bytes: int) -> int:
    """Bytes above the budget; 0 when they fit."""
    return max(0, sum(segment.bytes for segment in segments) - budget_bytes)


def choose_drops(segments: Iterable[StoredSegment], budget_bytes: int, coming_bytes: int = 0) -> list[StoredSegment]:
    """The fewest of the oldest segments without which the rest fits.

    Args:
        segments: all there are, in any order.
        budget_bytes: what may be taken.
        coming_bytes: room that the next segment will need.

    Returns:
        What to drop, oldest first; segments sealed at the same time go by video and start. All of them where even
        nothing doesn't leave enough room.
    """
    oldest_first = sorted(segments, key=lambda segment: (segment.sealed_s, segment.video, segment.start))
    excess, drops = over_budget(oldest_first, budget_bytes - coming_bytes), []
    for segment in oldest_first:
        if excess <= 0:
            break
        drops.append(segment)
        excess -= segment.bytes
    return drops
