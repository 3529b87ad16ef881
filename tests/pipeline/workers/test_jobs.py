"""Segments and spans of a video."""

from hypothesis import given
from hypothesis import strategies as st

from deltascene.pipeline.workers.jobs import Segment, plan_segments, plan_spans


@given(st.integers(0, 60), st.integers(1, 5), st.integers(1, 20), st.integers(0, 7), st.integers(1, 9))
def test_segments_and_spans_cover_the_frames(count, stride, frames, first, span):
    wanted = range(first, first + count * stride, stride)
    planned = plan_segments(wanted, frames)
    assert [index for each in planned for index in range(each.first_index, each.next_index, stride)] == list(wanted)
    assert [each.start for each in planned] == list(range(0, count, frames))
    for each in planned:
        spans = list(plan_spans(each, span))
        assert sum(part.frames for part in spans) == each.frames
        assert [part.first for part in spans] == [True] + [False] * (len(spans) - 1)
        assert [part.last for part in spans] == [False] * (len(spans) - 1) + [True]
        assert all(part.segment is each for part in spans)


def test_a_segment_says_where_the_next_one_begins():
    assert plan_segments(range(3, 20, 4), 2)[0] == Segment(0, 2, 3, 11)
