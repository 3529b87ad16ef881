"""What is known of a video while its segments come in, in any order."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from deltascene.cache.seal import Seal
from deltascene.pipeline.batch.video_progress import VideoProgress
from deltascene.pipeline.sources.identity import Identity
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.workers.finish import Finished
from deltascene.pipeline.workers.jobs import SpanDone, plan_segments
from deltascene.pipeline.workers.segment_queue import WorkItem
from deltascene.pipeline.workers.worker import WorkEvent

SPEC = SourceSpec("clip", "video", (Path("/in/clip.avi"),))


def seal_of(segment):
    place = {"start": segment.start, "frames": segment.frames, "next_index": segment.next_index}
    return Seal(**place, fingerprint="f", token="t", files={})


@pytest.fixture
def video():
    """Ten frames in segments of 4, 4 and 2."""
    save = SimpleNamespace(video=False, png=True, npz=False)
    job = SimpleNamespace(
        id="clip", frames=10, config=SimpleNamespace(save=save), info=SimpleNamespace(notes=("a", "b"))
    )
    return VideoProgress(SPEC, job, Identity("quick", "full"), "", plan_segments(range(0, 20, 2), 4), {})


def test_what_can_be_read_ends_at_the_first_gap(video):
    first, second, third = video.segments
    assert (video.left, video.prefix, video.complete) == ([first, second, third], [], False)
    video.seals[third.start] = seal_of(third)
    assert (video.left, video.prefix) == ([first, second], [])
    video.seals[first.start] = seal_of(first)
    assert (video.left, [seal.start for seal in video.prefix], video.complete) == ([second], [0], False)
    video.seals[second.start] = seal_of(second)
    assert (video.left, [seal.start for seal in video.prefix], video.complete) == ([], [0, 4, 8], True)
    assert (video.finish_job.starts, video.finish_job.pictures) == ([0, 4, 8], True)


def test_lost_frames_are_not_counted_as_computed(video):
    began = time.perf_counter() - 100
    assert video.so_far == {"retries": 0, "seconds": 0.0, "computed": 0, "selected": 10}
    item, earlier = (WorkItem(video.job, video.segments[0], taken_s) for taken_s in (began, began - 100))
    video.count(WorkEvent(item, done=SpanDone([None] * 3)))
    video.count(WorkEvent(item, lost=3))
    video.count(WorkEvent(earlier, done=SpanDone([None] * 4)))
    video.count(WorkEvent(WorkItem(video.job, video.finish_job, began), lost=0))  # the end of a video has no frames
    assert (video.retries, video.computed, video.began_s) == (1, 4, began - 100)
    record = video.record(Finished(frames=4, invalid=1, fps=5.0), "partial", "why")
    assert (record.id, record.source, record.status, record.cause) == ("clip", "/in/clip.avi", "partial", "why")
    assert (record.frames, record.invalid, record.fps, record.identity_full) == (4, 1, 5.0, "full")
    assert record.notes == "a; b"
    assert (record.retries, record.computed, record.selected) == (1, 4, 10)
    assert 200 <= record.seconds < 300
