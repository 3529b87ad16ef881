"""What goes when an archive outgrows its bytes."""

from hypothesis import given
from hypothesis import strategies as st

from deltascene.cache.budget import StoredSegment, choose_drops, over_budget

SEGMENTS = st.lists(
    st.builds(
        StoredSegment, st.sampled_from(["a", "b"]), st.integers(0, 9), st.integers(1, 50), st.integers(0, 5).map(float)
    ),
    max_size=8,
)


def test_the_oldest_go_first_and_no_more_than_needed():
    segments = [StoredSegment("b", 0, 10, 3.0), StoredSegment("a", 256, 10, 2.0), StoredSegment("a", 0, 10, 1.0)]
    assert choose_drops(segments, 30) == []
    assert choose_drops(segments, 25) == [segments[2]]
    assert choose_drops(segments, 25, coming_bytes=10) == [segments[2], segments[1]]
    assert choose_drops(segments, 0) == [segments[2], segments[1], segments[0]]
    assert over_budget(segments, 25) == 5
    assert over_budget(segments, 35) == 0


@given(SEGMENTS, st.integers(0, 200))
def test_what_stays_fits_and_is_younger(segments, budget_bytes):
    drops = choose_drops(segments, budget_bytes)
    left = list(segments)
    for drop in drops:
        left.remove(drop)
    assert over_budget(left, budget_bytes) == 0
    assert not drops or over_budget([*left, drops[-1]], budget_bytes) > 0
    assert not drops or not left or max(drop.sealed_s for drop in drops) <= min(kept.sealed_s for kept in left)
