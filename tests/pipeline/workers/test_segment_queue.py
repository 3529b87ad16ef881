"""Which segment a worker takes next."""

from dataclasses import dataclass

from deltascene.pipeline.workers.jobs import plan_segments
from deltascene.pipeline.workers.segment_queue import SegmentQueue


@dataclass(frozen=True)
class Job:
    """All that a pool asks of a job."""

    id: str


def segments(count, frames=4):
    return plan_segments(range(count * frames), frames)


def test_workers_go_on_where_they_were_and_share_a_long_video():
    queue = SegmentQueue()
    queue.add(Job("long"), segments(8))
    one = queue.take(None)
    assert one.segment.start == 0
    two = queue.take(None)
    assert two.segment.start == 4 * (1 + 7 // 2)  # the middle of what waits
    assert queue.take(one).segment.start == 4
    assert queue.take(two).segment.start == two.segment.start + 4
    queue.add(Job("other"), segments(2))
    assert queue.take(None).job.id == "other"  # a video that nobody is at goes first
    queue.drop("other")
    assert {queue.take(None).job.id for _ in range(4)} == {"long"}
    assert queue.take(None) is None
