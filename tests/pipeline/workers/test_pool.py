"""Pools: every segment is computed once, again where a worker is lost, and every video finished once; without Ray."""

import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltascene.cache.seal import Seal
from deltascene.pipeline.errors import DiskFull, NoCapacity, WorkerLost
from deltascene.pipeline.workers.finish import Finished, FinishJob, FinishProgress
from deltascene.pipeline.workers.jobs import SpanDone, plan_segments, plan_spans
from deltascene.pipeline.workers.pool import InlinePool, ThreadedPool
from deltascene.pipeline.workers.worker import TRIES


@dataclass(frozen=True)
class Job:
    """What a pool asks of a job."""

    id: str


def segments(count, frames=4):
    return plan_segments(range(count * frames), frames)


@dataclass
class FakeWorker:
    """Records what it would compute; is lost where the test says so."""

    losses: list[tuple[str, int | str]] = field(default_factory=list)  # shared: each is met once
    done: list[tuple[str, int | str]] = field(default_factory=list)
    restored: int = 0
    abandoned: int = 0
    closed: bool = False
    error: Exception | None = None
    broken: list[Exception] = field(default_factory=list)  # what the next restorations end with

    def run(self, job, segment):
        for span in plan_spans(segment, 2):
            if self.error is not None:
                raise self.error
            if span.last and (job.id, segment.start) in self.losses:
                self.losses.remove((job.id, segment.start))
                raise WorkerLost("gone")
            about = {"fingerprint": "f", "token": "t", "files": {}}
            place = {"start": segment.start, "frames": segment.frames, "next_index": segment.next_index}
            seal = Seal(**place, **about) if span.last else None
            yield SpanDone([None] * span.frames, seal)
        self.done.append((job.id, segment.start))

    def finish(self, finish_job):
        yield FinishProgress("overlay", 0.5)
        if (finish_job.job.id, "end") in self.losses:
            self.losses.remove((finish_job.job.id, "end"))
            raise WorkerLost("gone")
        yield FinishProgress("overlay", 1.0)
        self.done.append((finish_job.job.id, "end"))
        yield Finished(len(finish_job.starts))

    def restore(self):
        self.restored += 1
        if self.broken:
            raise self.broken.pop()

    def abandon(self):
        self.abandoned += 1

    def close(self):
        self.closed = True


def drain(pool):
    events = []
    while (event := pool.next()) is not None:
        events.append(event)
    return events


def pool_of(workers):
    return InlinePool(workers[0]) if len(workers) == 1 else ThreadedPool(workers)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(0, 9), min_size=1, max_size=5), st.data())
def test_every_segment_is_computed_once_and_lost_frames_are_taken_back(workers, videos, data):
    wanted = [(f"v{number}", segment.start) for number, count in enumerate(videos) for segment in segments(count)]
    lost = data.draw(st.lists(st.sampled_from(wanted), unique=True)) if wanted else []
    made = [FakeWorker(losses := list(lost)) for _ in range(workers)]
    for worker in made:
        worker.losses = losses
    pool = pool_of(made)
    for number, count in enumerate(videos):
        pool.add(Job(f"v{number}"), segments(count))
    events = drain(pool)
    pool.close()
    assert sorted((event.item.job.id, event.item.segment.start) for event in events if event.ends) == sorted(wanted)
    frames = sum(len(event.done.frames) for event in events if event.done) - sum(event.lost or 0 for event in events)
    assert frames == 4 * len(wanted)
    assert sum(event.lost is not None for event in events) == len(lost) == sum(worker.restored for worker in made)
    assert all(worker.closed for worker in made)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(1, 6), min_size=1, max_size=5), st.data())
def test_every_video_is_finished_once_while_others_are_computed(workers, videos, data):
    """Also by a worker that is lost meanwhile; lost frames are those of segments alone."""
    ids = [f"v{number}" for number in range(len(videos))]
    losses = [(id_, "end") for id_ in data.draw(st.lists(st.sampled_from(ids), unique=True))]
    made = [FakeWorker() for _ in range(workers)]
    for worker in made:
        worker.losses = losses
    pool, left, ends = pool_of(made), dict(zip(ids, videos, strict=True)), []
    for id_, count in left.items():
        pool.add(Job(id_), segments(count))
    while (event := pool.next()) is not None:
        id_ = event.item.job.id
        assert event.error is None
        assert not event.lost
        if isinstance(event.step, Finished):
            assert event.ends
            ends.append((id_, event.step.frames))
        elif event.ends:
            left[id_] -= 1
            if not left[id_]:
                pool.finish(FinishJob(Job(id_), range(videos[ids.index(id_)]), pictures=True))
    pool.close()
    assert sorted(ends) == list(zip(ids, videos, strict=True))
    assert sorted(id_ for worker in made for id_, what in worker.done if what == "end") == ids
    assert not losses


def test_a_video_is_finished_before_another_is_computed():
    pool = InlinePool(worker := FakeWorker())
    pool.add(Job("v"), segments(2))
    while not pool.next().ends:
        pass
    pool.finish(FinishJob(Job("w"), [0], pictures=True))
    assert pool.waiting() == 2
    drain(pool)
    assert worker.done == [("v", 0), ("w", "end"), ("v", 4)]


@pytest.mark.parametrize("workers", [1, 2])
def test_dropping_everything_breaks_off_what_is_being_finished(workers):
    made = [FakeWorker() for _ in range(workers)]
    pool = pool_of(made)
    for id_ in ("v", "w", "x"):
        pool.finish(FinishJob(Job(id_), [0], pictures=True))
    assert isinstance(pool.next().step, FinishProgress)
    pool.drop()
    events = drain(pool)
    pool.close()
    assert events[-1].cancelled or workers > 1
    assert all(event.cancelled or isinstance(event.step, Finished) for event in events if event.ends)
    assert sum(worker.abandoned for worker in made) == sum(event.cancelled for event in events)


def test_what_was_cancelled_can_be_finished_later():
    pool = InlinePool(worker := FakeWorker())
    pool.finish(FinishJob(Job("v"), [0], pictures=True))
    pool.next()
    pool.drop()
    assert [event.cancelled for event in drain(pool)] == [True]
    pool.finish(FinishJob(Job("v"), [0], pictures=True))
    assert isinstance(drain(pool)[-1].step, Finished)
    assert worker.done == [("v", "end")]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_segment_that_is_lost_again_and_again_is_given_up(workers):
    losses = [("bad", 4)] * TRIES
    made = [FakeWorker(losses) for _ in range(workers)]
    pool = pool_of(made)
    pool.add(Job("bad"), segments(2))
    pool.add(Job("good"), segments(2))
    ends = [event for event in drain(pool) if event.ends]
    pool.close()
    (failed,) = [event for event in ends if event.error]
    assert (failed.item.job.id, failed.item.segment.start) == ("bad", 4)
    assert isinstance(failed.error, WorkerLost)
    assert len(ends) == 4
    assert sum(worker.restored for worker in made) == TRIES - 1


def test_a_worker_that_is_lost_while_others_are_replaced_costs_a_try_only():
    worker = FakeWorker([("v", 0)], broken=[WorkerLost("gone, too")])
    pool = InlinePool(worker)
    pool.add(Job("v"), segments(2))
    events = drain(pool)
    assert [event.error for event in events if event.ends] == [None, None]
    assert [event.lost for event in events if event.lost is not None] == [2]
    assert worker.restored == 2
    worker.losses, worker.broken = [("w", 0)], [WorkerLost("gone")] * TRIES
    pool.add(Job("w"), segments(1))
    (failed,) = [event for event in drain(pool) if event.ends]
    assert isinstance(failed.error, WorkerLost)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 4), st.data())
def test_a_worker_without_a_place_goes_and_the_others_do_its_segment(workers, data):
    """All but one may go; each loses its first segment at once, and frames add up nevertheless."""
    going = data.draw(st.integers(1, workers - 1))
    losses = [("v", segment.start) for segment in segments(9)]
    made = [FakeWorker(list(losses), broken=[NoCapacity("full")]) for _ in range(going)]
    made += [FakeWorker() for _ in range(workers - going)]
    pool = ThreadedPool(made)
    pool.add(Job("v"), segments(9))
    events = drain(pool)
    pool.close()
    ends = [event for event in events if event.ends]
    assert not any(event.error for event in ends)
    assert sorted(event.item.segment.start for event in ends) == [segment.start for segment in segments(9)]
    frames = sum(len(event.done.frames) for event in events if event.done) - sum(event.lost or 0 for event in events)
    assert frames == 36
    assert pool.workers >= workers - going


@pytest.mark.parametrize("workers", [1, 3])
def test_the_last_worker_without_a_place_says_so(workers):
    losses = [("v", 0), ("v", 4)] * 9
    pool = ThreadedPool([FakeWorker(losses, broken=[NoCapacity("full")]) for _ in range(workers)])
    pool.add(Job("v"), segments(1))
    ends = [event for event in drain(pool) if event.ends]
    pool.close()
    assert isinstance(ends[-1].error, NoCapacity)
    assert pool.workers == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_another_error_comes_through_and_the_worker_gives_up_what_it_began(workers):
    made = [FakeWorker(error=DiskFull("no room")) for _ in range(workers)]
    pool = pool_of(made)
    pool.add(Job("v"), segments(1))
    (event,) = drain(pool)
    pool.close()
    assert isinstance(event.error, DiskFull)
    assert sum(worker.abandoned for worker in made) >= 1


@pytest.mark.parametrize("workers", [1, 2])
def test_what_nobody_began_can_be_taken_back(workers):
    pool = pool_of([FakeWorker() for _ in range(workers)])
    pool.add(Job("a"), segments(50))
    first = pool.next()
    pool.drop()
    assert pool.waiting() == 0
    ends = [event for event in [first, *drain(pool)] if event.ends]
    pool.close()
    assert 1 <= len(ends) < 50


def test_closing_ends_the_threads_even_if_nobody_listens():
    before = threading.active_count()
    pool = ThreadedPool([FakeWorker(), FakeWorker()])
    pool.add(Job("a"), segments(100))
    pool.close()
    assert threading.active_count() == before


def test_over_the_budget_segments_are_computed_without_an_archive():
    pool = InlinePool(FakeWorker())
    pool.add(Job("a"), segments(3))
    assert pool.next().item.segment.archived
    pool.archive(False)
    ends = [event for event in drain(pool) if event.ends]
    assert [event.item.segment.archived for event in ends] == [True, False, False]
