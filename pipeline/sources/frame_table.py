"""Number, times and keyframes of a video file's frames, computed from its packets without decoding."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltascene.stages.types import Image

_MOST_LOST = 20
"""Lost frames per frame that is there: a damaged time can suggest any number, and each is a row of results."""

Picture = tuple[int, Image | None, str]
"""Frame number, RGB [H, W, 3] or None, and why it isn't a good frame (empty if it is)."""


@dataclass(frozen=True, eq=False)
class Packets:
    """Packets of a file, in the order of the file.

    Attributes:
        times_ms: presentation times [P], float64.
        keys: whether a decoder can start at a packet [P], bool.
        unread: number of packets between readable ones that couldn't be read.
        claimed: number of frames according to the header; by duration and rate if it has no number.
        exact: whether the header has a number of frames (MP4, AVI).
        numbered: whether times are computed by counting packets (AVI); they are wrong after a lost packet.
        cut_off: whether the file ends before its container does.
    """

    times_ms: NDArray[np.float64]
    keys: NDArray[np.bool_]
    unread: int
    claimed: int
    exact: bool
    numbered: bool
    cut_off: bool

    @property
    def truncated(self) -> bool:
        """Whether absent frames are lost; otherwise an edit list hides them (MP4), or `claimed` is a guess."""
        return self.cut_off or self.numbered


@dataclass(frozen=True, eq=False)
class FrameTable:
    """Frames of a file according to its container, in the order of presentation.

    Attributes:
        times_ms: presentation times as OpenCV reports them [F], float64, ascending.
        keys: frame numbers of the keyframes [K], int64, ascending.
        lost: whether a frame's packet is absent or unreadable, so that it left a gap [F], bool.
        closed: whether no frame needs a keyframe that is shown after it.
        delay: number of frames that a decoder holds back to put them in order.
        torn: number of the frame in whose packet the file may end; -1 if there is none.
        timed: whether decoded frames have these times and seeking to one works; else they are counted from the start.
    """

    times_ms: NDArray[np.float64]
    keys: NDArray[np.int64]
    lost: NDArray[np.bool_]
    closed: bool
    delay: int
    torn: int
    timed: bool

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.times_ms)

    @property
    def pts_s(self) -> NDArray[np.float64]:
        """Presentation times in seconds from the first frame [F]."""
        return np.asarray((self.times_ms - self.times_ms[0]) / 1e3, dtype=np.float64)

    @property
    def longest_group(self) -> int:
        """Frames of the longest group of pictures."""
        return int(np.diff([0, *self.keys[self.keys > 0].tolist(), self.frames]).max())

    def group_of(self, index: int) -> tuple[int, int]:
        """First frame of the group of pictures that a frame belongs to, and the first one after it."""
        after = int(np.searchsorted(self.keys, index, side="right"))
        start = int(self.keys[after - 1]) if after > 0 else 0
        return start, int(self.keys[after]) if after < len(self.keys) else self.frames

    def index_at(self, time_ms: float, least: int) -> int:
        """Number of the frame shown at a time, not below `least`."""
        after = int(np.searchsorted(self.times_ms, time_ms))
        near = [each for each in (after - 1, after) if 0 <= each < self.frames]
        nearest = min(near, key=lambda each: abs(float(self.times_ms[each]) - time_ms))
        return min(max(nearest, least), self.frames - 1)

    def damaged_until(self, index: int) -> int:
        """First frame that is whole again after damage that the decoder reported while it decoded frame `index`.

        The decoder is ahead of the frame that it returns by its delay, and by one more as some encoders declare too
        short a delay.
        """
        ahead = 0 if self.longest_group == 1 else self.delay + 1
        return self.group_of(min(index + ahead, self.frames - 1))[1]


def build_table(packets: Packets, shown_ms: NDArray[np.float64], cut_ms: float = 0.0) -> FrameTable:
    """Numbers the frames of a file.

    Args:
        packets: its packets in the order of the file.
        shown_ms: times of the first decoded frames [n], to check the times of the container.
        cut_ms: time at the start that an edit list cuts off; its frames are decoded and not shown.

    Returns:
        The table; it contains frames that left a gap, but none that were cut off.
    """
    order = np.argsort(packets.times_ms, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    times_ms = packets.times_ms[order] - cut_ms
    at = np.flatnonzero(packets.keys)
    hidden = int(np.count_nonzero(times_ms < -1e-3)) if cut_ms else 0
    keys = np.sort(rank[at])
    times_ms, keys = times_ms[hidden:], keys[keys >= hidden] - hidden
    closed, delay = _order(rank, at)
    unsure = packets.numbered and packets.claimed > len(packets.times_ms)
    timed = len(times_ms) > 0 and not unsure and _believable(times_ms, keys, shown_ms)
    times_ms, keys, lost = _fill_gaps(times_ms, keys, packets) if timed else (times_ms, keys, np.zeros_like(times_ms))
    torn = len(times_ms) - 1 - (len(order) - 1 - int(rank[-1])) if packets.cut_off else -1
    return FrameTable(times_ms, keys, lost.astype(np.bool_), closed and hidden == 0, delay, torn, timed)


def _order(rank: NDArray[np.intp], at: NDArray[np.intp]) -> tuple[bool, int]:
    """Whether every group of pictures is closed, and by how many packets decoding is ahead of presentation."""
    newest = np.maximum.accumulate(rank)
    oldest = np.minimum.accumulate(rank[::-1])[::-1]
    starts = at[at > 0]
    closed = bool(np.all(newest[starts - 1] < rank[starts]) and np.all(oldest[at] == rank[at]))
    position = np.empty_like(rank)
    position[rank] = np.arange(len(rank))
    delay = int(np.max(np.maximum.accumulate(position) - np.arange(len(rank)), initial=0))
    return closed, delay


def _believable(times_ms: NDArray[np.float64], keys: NDArray[np.int64], shown_ms: NDArray[np.float64]) -> bool:
    """Whether decoded frames have the times of packets, from the first keyframe's on (not so in AVI with B-frames)."""
    ascending = bool(np.all(np.diff(times_ms) > 0) and np.all(np.diff(shown_ms) > 0))
    known = bool(np.all(np.isin(np.round(shown_ms, 3), np.round(times_ms, 3))))
    from_key = len(keys) == 0 or len(shown_ms) == 0 or bool(shown_ms[0] <= times_ms[keys[0]] + 1e-3)
    return ascending and known and from_key


def _fill_gaps(
    times_ms: NDArray[np.float64], keys: NDArray[np.int64], packets: Packets
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """Inserts lost frames into gaps of a file of constant rate, if packets are unread or claimed frames absent.

    A file of variable rate has gaps without lost frames and isn't changed.
    """
    missed = packets.unread if packets.exact else max(packets.unread, packets.claimed - len(times_ms))
    steps_ms = np.diff(times_ms)
    nothing = times_ms, keys, np.zeros(len(times_ms), dtype=np.bool_)
    if missed <= 0 or len(steps_ms) == 0:
        return nothing
    step_ms = float(np.median(steps_ms))
    absent = np.maximum(np.round(steps_ms / max(step_ms, 1e-3)) - 1, 0).clip(max=1 << 40).astype(np.int64)
    regular = np.abs(steps_ms - step_ms) <= max(0.1 * step_ms, 1.01)
    most = min(missed + 1, _MOST_LOST * len(times_ms))
    if float(np.mean(regular)) < 0.9 or not 0 < float(absent.sum(dtype=np.float64)) <= most:
        return nothing
    where = np.concatenate([[0], np.cumsum(absent + 1)])
    filled_ms = np.interp(np.arange(where[-1] + 1), where, times_ms)
    lost = np.ones(len(filled_ms), dtype=np.bool_)
    lost[where] = False
    return filled_ms, where[keys], lost
