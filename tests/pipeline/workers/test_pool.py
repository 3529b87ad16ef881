"""Who does what: every segment once, in long strokes, again when a worker is lost, and the end of each video once; on
lanes without any Ray."""

import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltascene.cache.seal import Seal
from deltascene.pipeline.errors import DiskFull, NoCapacity, WorkerLost
from deltascene.pipeline.workers.finish import Finished, FinishJob, FinishProgress
from deltascene.pipeline.workers.jobs import SpanDone, plan_segments, plan_spans
from deltascene.pipeline.workers.pool import TRIES, InlinePool, ThreadedPool


@dataclass(frozen=True)
class Job:
    """All that a crew asks of a job."""

    id: str


def segments(count, frames=4):
    return plan_segments(range(count * frames), frames)


@dataclass
class FakeLane:
    """Says what it would compute; loses its worker when it is told to."""

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

    def finish(self, ending):
        yield FinishProgress("overlay", 0.5)
        if (ending.job.id, "end") in self.losses:
            self.losses.remove((ending.job.id, "end"))
            raise WorkerLost("gone")
        yield FinishProgress("overlay", 1.0)
        self.done.append((ending.job.id, "end"))
        yield Finished(len(ending.starts))

    def restore(self):
        self.restored += 1
        if self.broken:
            raise self.broken.pop()

    def abandon(self):
        self.abandoned += 1

    def close(self):
        self.closed = True


def drain(crew):
    events = []
    while (event := crew.next()) is not None:
        events.append(event)
    return events


def crews(lanes):
    return InlinePool(lanes[0]) if len(lanes) == 1 else ThreadedPool(lanes)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(0, 9), min_size=1, max_size=5), st.data())
def test_every_segment_is_computed_once_and_lost_frames_are_taken_back(lanes, videos, data):
    wanted = [(f"v{number}", segment.start) for number, count in enumerate(videos) for segment in segments(count)]
    lost = data.draw(st.lists(st.sampled_from(wanted), unique=True)) if wanted else []
    crew_lanes = [FakeLane(losses := list(lost)) for _ in range(lanes)]
    for lane in crew_lanes:
        lane.losses = losses
    crew = crews(crew_lanes)
    for number, count in enumerate(videos):
        crew.add(Job(f"v{number}"), segments(count))
    events = drain(crew)
    crew.close()
    assert sorted((event.task.job.id, event.task.segment.start) for event in events if event.ends) == sorted(wanted)
    frames = sum(len(event.done.frames) for event in events if event.done) - sum(event.lost or 0 for event in events)
    assert frames == 4 * len(wanted)
    assert sum(event.lost is not None for event in events) == len(lost) == sum(lane.restored for lane in crew_lanes)
    assert all(lane.closed for lane in crew_lanes)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(1, 6), min_size=1, max_size=5), st.data())
def test_every_video_is_finished_once_while_others_are_computed(lanes, videos, data):
    """Also by a lane that is lost on the way; lost frames are those of segments alone."""
    ids = [f"v{number}" for number in range(len(videos))]
    losses = [(id_, "end") for id_ in data.draw(st.lists(st.sampled_from(ids), unique=True))]
    made = [FakeLane() for _ in range(lanes)]
    for lane in made:
        lane.losses = losses
    crew, left, ends = crews(made), dict(zip(ids, videos, strict=True)), []
    for id_, count in left.items():
        crew.add(Job(id_), segments(count))
    while (event := crew.next()) is not None:
        id_ = event.task.job.id
        assert event.error is None
        assert not event.lost
        if isinstance(event.step, Finished):
            assert event.ends
            ends.append((id_, event.step.frames))
        elif event.ends:
            left[id_] -= 1
            if not left[id_]:
                crew.finish(FinishJob(Job(id_), range(videos[ids.index(id_)]), pictures=True))
    crew.close()
    assert sorted(ends) == list(zip(ids, videos, strict=True))
    assert sorted(id_ for lane in made for id_, what in lane.done if what == "end") == ids
    assert not losses


def test_a_video_is_finished_before_another_is_computed():
    crew = InlinePool(lane := FakeLane())
    crew.add(Job("v"), segments(2))
    while not crew.next().ends:
        pass
    crew.finish(FinishJob(Job("w"), [0], pictures=True))
    assert crew.waiting() == 2
    drain(crew)
    assert lane.done == [("v", 0), ("w", "end"), ("v", 4)]


@pytest.mark.parametrize("lanes", [1, 2])
def test_dropping_everything_breaks_off_what_is_being_finished(lanes):
    made = [FakeLane() for _ in range(lanes)]
    crew = crews(made)
    for id_ in ("v", "w", "x"):
        crew.finish(FinishJob(Job(id_), [0], pictures=True))
    assert isinstance(crew.next().step, FinishProgress)
    crew.drop()
    events = drain(crew)
    crew.close()
    assert events[-1].broken_off or lanes > 1
    assert all(event.broken_off or isinstance(event.step, Finished) for event in events if event.ends)
    assert sum(lane.abandoned for lane in made) == sum(event.broken_off for event in events)


def test_what_was_broken_off_can_be_finished_later():
    crew = InlinePool(lane := FakeLane())
    crew.finish(FinishJob(Job("v"), [0], pictures=True))
    crew.next()
    crew.drop()
    assert [event.broken_off for event in drain(crew)] == [True]
    crew.finish(FinishJob(Job("v"), [0], pictures=True))
    assert isinstance(drain(crew)[-1].step, Finished)
    assert lane.done == [("v", "end")]


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_segment_that_is_lost_again_and_again_is_given_up(lanes):
    losses = [("bad", 4)] * TRIES
    made = [FakeLane(losses) for _ in range(lanes)]
    crew = crews(made)
    crew.add(Job("bad"), segments(2))
    crew.add(Job("good"), segments(2))
    ends = [event for event in drain(crew) if event.ends]
    crew.close()
    (failed,) = [event for event in ends if event.error]
    assert (failed.task.job.id, failed.task.segment.start) == ("bad", 4)
    assert isinstance(failed.error, WorkerLost)
    assert len(ends) == 4
    assert sum(lane.restored for lane in made) == TRIES - 1


def test_a_worker_that_is_lost_while_others_are_replaced_costs_a_try_only():
    lane = FakeLane([("v", 0)], broken=[WorkerLost("gone, too")])
    crew = InlinePool(lane)
    crew.add(Job("v"), segments(2))
    events = drain(crew)
    assert [event.error for event in events if event.ends] == [None, None]
    assert [event.lost for event in events if event.lost is not None] == [2]
    assert lane.restored == 2
    lane.losses, lane.broken = [("w", 0)], [WorkerLost("gone")] * TRIES
    crew.add(Job("w"), segments(1))
    (failed,) = [event for event in drain(crew) if event.ends]
    assert isinstance(failed.error, WorkerLost)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 4), st.data())
def test_a_lane_without_a_place_goes_and_the_others_do_its_segment(lanes, data):
    """All but one may go; each loses its first segment at once, and frames add up nevertheless."""
    going = data.draw(st.integers(1, lanes - 1))
    losses = [("v", segment.start) for segment in segments(9)]
    made = [FakeLane(list(losses), broken=[NoCapacity("full")]) for _ in range(going)]
    made += [FakeLane() for _ in range(lanes - going)]
    crew = ThreadedPool(made)
    crew.add(Job("v"), segments(9))
    events = drain(crew)
    crew.close()
    ends = [event for event in events if event.ends]
    assert not any(event.error for event in ends)
    assert sorted(event.task.segment.start for event in ends) == [segment.start for segment in segments(9)]
    frames = sum(len(event.done.frames) for event in events if event.done) - sum(event.lost or 0 for event in events)
    assert frames == 36
    assert crew.lanes >= lanes - going


@pytest.mark.parametrize("lanes", [1, 3])
def test_the_last_lane_without_a_place_says_so(lanes):
    losses = [("v", 0), ("v", 4)] * 9
    crew = ThreadedPool([FakeLane(losses, broken=[NoCapacity("full")]) for _ in range(lanes)])
    crew.add(Job("v"), segments(1))
    ends = [event for event in drain(crew) if event.ends]
    crew.close()
    assert isinstance(ends[-1].error, NoCapacity)
    assert crew.lanes == 1


@pytest.mark.parametrize("lanes", [1, 3])
def test_another_error_comes_through_and_the_lane_gives_up_what_it_began(lanes):
    made = [FakeLane(error=DiskFull("no room")) for _ in range(lanes)]
    crew = crews(made)
    crew.add(Job("v"), segments(1))
    (event,) = drain(crew)
    crew.close()
    assert isinstance(event.error, DiskFull)
    assert sum(lane.abandoned for lane in made) >= 1


@pytest.mark.parametrize("lanes", [1, 2])
def test_what_nobody_began_can_be_taken_back(lanes):
    crew = crews([FakeLane() for _ in range(lanes)])
    crew.add(Job("a"), segments(50))
    first = crew.next()
    crew.drop()
    assert crew.waiting() == 0
    ends = [event for event in [first, *drain(crew)] if event.ends]
    crew.close()
    assert 1 <= len(ends) < 50


def test_closing_ends_the_threads_even_if_nobody_listens():
    before = threading.active_count()
    crew = ThreadedPool([FakeLane(), FakeLane()])
    crew.add(Job("a"), segments(100))
    crew.close()
    assert threading.active_count() == before


def test_over_the_budget_segments_are_computed_without_an_archive():
    crew = InlinePool(FakeLane())
    crew.add(Job("a"), segments(3))
    assert crew.next().task.segment.archived
    crew.archive(False)
    ends = [event for event in drain(crew) if event.ends]
    assert [event.task.segment.archived for event in ends] == [True, False, False]
