"""Frame tables, selections of frames, and how far damage reaches."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deltascene.pipeline.sources.decoding.damage import Damage
from deltascene.pipeline.sources.info import FrameTable
from deltascene.pipeline.sources.messages import Selection


def table(packets: list[int], keys: list[int]) -> FrameTable:
    """Frames that come out of these packets, in the order of presentation."""
    count, at = len(packets), np.array(keys)
    none = np.zeros(count, dtype=np.bool_)
    return FrameTable(np.arange(count) / 25, np.array(packets), none, at, at, at)


def damaged(made: FrameTable, *packets: int, slow: int | None = None, lost: int | None = None) -> list[int]:
    damage = Damage(made)
    for number in range(made.frames):
        if number != lost:
            damage.came(number, whole=number != slow)
    for packet in packets:
        damage.found(packet)
    return [index for index in range(made.frames) if damage.reaches(index, int(made.packets[index]))]


CLOSED = table([0, 2, 1, 3, 5, 4, 6, 7], [0, 3, 6])  # I B P | I B P | I P
OPEN = table([0, 2, 3, 1, 5, 6, 4, 8, 9, 7], [0, 6])  # the second keyframe is shown after two that need it


def test_groups() -> None:
    assert [CLOSED.group_of(index) for index in (0, 2, 3, 5, 7)] == [0, 0, 1, 1, 2]
    assert CLOSED.longest_group == 3
    assert table([1, 2, 3], [2]).group_of(1) == -1


def test_damage_reaches_to_the_next_keyframe() -> None:
    assert damaged(CLOSED) == []
    assert damaged(CLOSED, 3) == [3, 4, 5]
    assert damaged(CLOSED, 4) == [4, 5]  # the B-frame was decoded after the P-frame that it builds on
    assert damaged(CLOSED, 5) == [4]
    assert damaged(CLOSED, 1, 7) == [1, 2, 7]


def test_what_leans_on_a_broken_keyframe_from_before_it_is_damaged() -> None:
    assert damaged(OPEN, 4) == [4, 5, 6, 7, 8, 9]
    assert damaged(OPEN, 5) == [4, 5]  # a leading frame isn't used by what is shown after the keyframe
    assert damaged(OPEN, 7) == [7, 8, 9]


def test_a_slow_refresh_takes_a_group() -> None:
    assert damaged(CLOSED, 1, slow=3) == [1, 2, 3, 4, 5]


def test_what_builds_on_a_keyframe_that_never_came_is_damaged() -> None:
    assert damaged(CLOSED, lost=3) == [3, 4, 5]
    assert damaged(CLOSED, lost=4) == []


@given(
    frames=st.integers(1, 60),
    stride=st.integers(1, 9),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    start_s=st.none() | st.floats(0, 3),
    end_s=st.none() | st.floats(0, 3),
)
def test_segments_join_up_to_one_reading(
    frames: int, stride: int, cuts: list[int], start_s: float | None, end_s: float | None
) -> None:
    pts_s = np.arange(frames) / 20.0
    whole = list(Selection(start_s, end_s, stride).of(pts_s))
    edges = [0, *sorted(cuts), None]
    parts = [
        number for start, end in pairwise(edges) for number in Selection(start_s, end_s, stride, start, end).of(pts_s)
    ]
    assert parts == whole
    assert all(start_s is None or pts_s[number] >= start_s for number in whole)
    assert all(end_s is None or pts_s[number] < end_s for number in whole)
