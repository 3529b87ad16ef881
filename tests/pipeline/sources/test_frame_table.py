from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltascene.pipeline.sources.decoding.by_decord import repeats
from deltascene.pipeline.sources.frame_table import FrameTable, Packets, build_table
from deltascene.pipeline.sources.messages import Selection


def packets(
    times_ms: list[float],
    keys: list[int],
    unread: int = 0,
    claimed: int = 0,
    exact: bool = True,
    numbered: bool = False,
) -> Packets:
    flags = np.array([at in keys for at in range(len(times_ms))])
    claimed = claimed or len(times_ms)
    return Packets(np.array(times_ms, dtype=np.float64), flags, unread, claimed, exact, numbered, False)


def table(*args: object, **kwargs: object) -> FrameTable:
    file = packets(*args, **kwargs)  # type: ignore[arg-type]
    return build_table(file, np.sort(file.times_ms)[:4])


def test_frames_are_numbered_by_time() -> None:
    made = table([0, 120, 40, 80, 240, 160, 200], [0, 4])
    assert made.times_ms.tolist() == [0, 40, 80, 120, 160, 200, 240]
    assert made.keys.tolist() == [0, 6]
    assert not made.closed  # frames 4 and 5 are shown before the second keyframe and come after it
    assert made.delay == 1
    assert made.timed


def test_groups_that_stand_alone() -> None:
    made = table([0, 80, 40, 120, 200, 160], [0, 3])
    assert (made.closed, made.delay, made.longest_group) == (True, 1, 3)
    assert [made.group_of(index) for index in (0, 2, 3, 5)] == [(0, 3), (0, 3), (3, 6), (3, 6)]


def test_damage_reaches_to_the_next_group_when_the_decoder_is_ahead() -> None:
    made = table([0, 80, 40, 120, 200, 160], [0, 3])
    assert [made.damaged_until(index) for index in (0, 1, 2, 5)] == [3, 6, 6, 6]
    intra = table([0, 40, 80], [0, 1, 2])
    assert intra.damaged_until(1) == 2


def test_times_in_file_order_are_not_believed() -> None:
    avi = packets([0, 40, 80, 120], [0])
    assert not build_table(avi, np.array([40.0, 80.0, 120.0])).timed
    assert build_table(avi, np.array([0.0, 80.0, 120.0])).timed
    assert not build_table(avi, np.array([0.0, 120.0, 40.0])).timed
    assert not build_table(avi, np.array([0.0, 33.3])).timed


def test_frames_before_the_first_keyframe_may_stay_away() -> None:
    assert build_table(packets([0, 40, 80, 120], [2]), np.array([80.0, 120.0])).timed


def test_edit_list_cuts_frames_off() -> None:
    made = build_table(packets([0, 40, 80, 120, 160], [0, 3]), np.array([0.0, 40.0]), cut_ms=80.0)
    assert made.times_ms.tolist() == [0, 40, 80]
    assert made.keys.tolist() == [1]
    assert not made.closed


def test_gap_of_an_unread_packet_is_given_its_number() -> None:
    made = table([0, 40, 120, 160, 200, 240, 280, 320, 360, 400, 440, 480], [0, 6], unread=1)
    assert made.times_ms.tolist() == [40.0 * number for number in range(13)]
    assert np.flatnonzero(made.lost).tolist() == [2]
    assert made.keys.tolist() == [0, 7]


def test_gap_of_a_stream_without_a_count_is_filled_up_to_its_promise() -> None:
    times = [33.0, 67.0, 100.0, 133.0, 167.0, 200.0, 233.0, 267.0, 300.0, 333.0, 367.0, 400.0, 500.0, 533.0]
    assert np.flatnonzero(table(times, [0], claimed=16, exact=False).lost).tolist() == [12, 13]
    assert not table(times, [0], claimed=14, exact=False).lost.any()
    assert not table(times, [0], claimed=16, exact=True).lost.any()


def test_variable_rate_has_gaps_of_its_own() -> None:
    made = table([0, 733, 1133, 1600, 2066, 2466], [0], claimed=444, exact=False)
    assert made.frames == 6
    assert not made.lost.any()


def test_index_at_is_the_nearest() -> None:
    made = table([0, 40, 80, 120], [0])
    assert [made.index_at(time, 0) for time in (-5, 0, 39.9, 61, 500)] == [0, 0, 1, 2, 3]
    assert made.index_at(40, least=3) == 3


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


@pytest.mark.parametrize("pixel", [0, 1, 3 * 40 * 50 - 1])
def test_repeats_compares_every_byte(pixel: int) -> None:
    pictures = np.zeros((4, 40, 50, 3), dtype=np.uint8)
    pictures[2].reshape(-1)[pixel] = 1
    assert repeats(pictures) == [1]
    assert repeats(pictures[:1]) == []


def test_a_time_far_away_does_not_make_up_frames() -> None:
    """A damaged time and a duration to match would promise a billion of them."""
    times_ms = [40.0 * number for number in range(30)] + [4e10]
    made = table(times_ms, [0], claimed=1_000_000_000, exact=False)
    assert made.frames == 31
    assert not made.lost.any()
