"""Who computes which segment: lanes take waiting segments, and what they make comes back one event after the other.

A lane computes one segment at a time. It goes on with the segment that follows its last one, else it starts a video
that nobody is at, else it takes the middle of the longest run of waiting segments: so each reads its files in long
strokes, and one long file spreads over all lanes. A lane that is lost is built anew and its segment done again, a few
times; then the video is given up, and the others go on. A lane without a place goes; the others take its segment.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import Queue
from typing import Protocol

from deltascene.pipeline.errors import NoPlace, WorkerLost
from deltascene.pipeline.jobs import Segment, SpanDone, VideoJob

TRIES = 3  # of a segment whose worker is lost


class Lane(Protocol):
    """Computes one segment at a time."""

    def run(self, job: VideoJob, segment: Segment) -> Iterator[SpanDone]:
        """Computes, writes and seals a segment; the last span has its seal.

        Raises:
            WorkerLost: a part of the lane is gone.
            DeltasceneError: whatever a part says.
        """

    def restore(self) -> None:
        """Puts another in the place of every part that is gone.

        Raises:
            WorkerLost: another part was lost meanwhile.
            NoPlace: there is no room for it any more.
        """

    def abandon(self) -> None:
        """Gives up the segment that isn't sealed."""

    def close(self) -> None:
        """Lets go of everything."""


@dataclass(frozen=True, slots=True)
class Task:
    """A segment of a video.

    Attributes:
        job: the video.
        segment: of it.
        taken_s: when a lane took it, on the clock `time.perf_counter`.
    """

    job: VideoJob
    segment: Segment
    taken_s: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a segment.

    Attributes:
        task: the segment.
        done: a span of it was written; with its seal, it is finished.
        lost: a worker was lost, and so many frames that were done will be computed again; None if none was lost.
        error: it was given up; the lane has no place any more if it is a `NoPlace`.
    """

    task: Task
    done: SpanDone | None = None
    lost: int | None = None
    error: Exception | None = None

    @property
    def ends(self) -> bool:
        """Whether nothing more comes of this segment."""
        return self.error is not None or (self.done is not None and self.done.seal is not None)


class Board:
    """Segments that wait, by video.

    Attributes:
        archiving: whether segments that are taken from now on are archived.
    """

    def __init__(self) -> None:
        self.archiving = True
        self._jobs: dict[str, VideoJob] = {}
        self._waiting: dict[str, list[Segment]] = {}
        self._begun: set[str] = set()

    def __len__(self) -> int:
        return sum(len(segments) for segments in self._waiting.values())

    def add(self, job: VideoJob, segments: Sequence[Segment]) -> None:
        """Adds a video's segments, in order."""
        if segments:
            self._jobs[job.id], self._waiting[job.id] = job, list(segments)

    def drop(self, id_: str | None = None) -> None:
        """Takes back what waits, of a video or of all."""
        for each in list(self._waiting) if id_ is None else [id_]:
            self._waiting.pop(each, None)
            self._jobs.pop(each, None)

    def give_back(self, task: Task) -> None:
        """A segment that was taken waits again."""
        self._jobs[task.job.id] = task.job
        waiting = [*self._waiting.get(task.job.id, []), task.segment]
        self._waiting[task.job.id] = sorted(waiting, key=lambda segment: segment.start)

    def take(self, last: Task | None) -> Task | None:
        """The next segment for a lane, after its last one; None if none waits."""
        if not self._waiting:
            return None
        id_, place = self._choose(last)
        job, segment = self._jobs[id_], self._waiting[id_].pop(place)
        self._begun.add(id_)
        if not self._waiting[id_]:
            self.drop(id_)
        return Task(job, replace(segment, archived=segment.archived and self.archiving))

    def _choose(self, last: Task | None) -> tuple[str, int]:
        """Video and place among its waiting segments."""
        if last is not None and last.job.id in self._waiting:
            follows = [segment.start for segment in self._waiting[last.job.id]]
            after = last.segment.start + last.segment.frames
            if after in follows:
                return last.job.id, follows.index(after)
        for id_ in self._waiting:
            if id_ not in self._begun:
                return id_, 0
        runs = ((id_, *_longest_run(segments)) for id_, segments in self._waiting.items())
        id_, first, count = max(runs, key=lambda run: run[2])
        return id_, first + count // 2


class Crew(Protocol):
    """Lanes at work.

    Attributes:
        lanes: how many.
    """

    lanes: int

    def waiting(self) -> int:
        """Segments that no lane has taken yet."""

    def add(self, job: VideoJob, segments: Sequence[Segment]) -> None:
        """Gives out a video's segments."""

    def drop(self, id_: str | None = None) -> None:
        """Takes back what no lane has begun, of a video or of all."""

    def archive(self, on: bool) -> None:
        """Whether segments that are begun from now on are archived."""

    def next(self) -> Event | None:
        """What happens next; None if nothing is under way and nothing waits."""

    def close(self) -> None:
        """Ends all lanes; what isn't sealed is given up."""


class OneLane:
    """A lane in the caller's own thread: it works while its next event is waited for."""

    lanes = 1

    def __init__(self, lane: Lane) -> None:
        self._lane, self._board = lane, Board()
        self._last: Task | None = None
        self._events: Iterator[Event] = iter(())

    def waiting(self) -> int:
        """As `Crew.waiting`."""
        return len(self._board)

    def add(self, job: VideoJob, segments: Sequence[Segment]) -> None:
        """As `Crew.add`."""
        self._board.add(job, segments)

    def drop(self, id_: str | None = None) -> None:
        """As `Crew.drop`."""
        self._board.drop(id_)

    def archive(self, on: bool) -> None:
        """As `Crew.archive`."""
        self._board.archiving = on

    def next(self) -> Event | None:
        """As `Crew.next`."""
        event = next(self._events, None)
        if event is None and (task := self._board.take(self._last)) is not None:
            self._last, self._events = task, compute(self._lane, task)
            event = next(self._events)
        return event

    def close(self) -> None:
        """As `Crew.close`."""
        self._lane.close()


class ManyLanes:
    """Lanes in threads of their own; each mostly waits for actors."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        """Starts them."""
        self.lanes = len(lanes)
        self._board, self._change = Board(), threading.Condition()
        self._events: Queue[Event] = Queue(maxsize=4 * len(lanes))  # a listener that is slow holds the lanes up
        self._under_way, self._closed = 0, False
        self._crew = list(lanes)
        self._threads = [threading.Thread(target=self._work, args=(lane,), daemon=True) for lane in lanes]
        for thread in self._threads:
            thread.start()

    def waiting(self) -> int:
        """As `Crew.waiting`."""
        with self._change:
            return len(self._board)

    def add(self, job: VideoJob, segments: Sequence[Segment]) -> None:
        """As `Crew.add`."""
        with self._change:
            self._board.add(job, segments)
            self._change.notify_all()

    def drop(self, id_: str | None = None) -> None:
        """As `Crew.drop`."""
        with self._change:
            self._board.drop(id_)

    def archive(self, on: bool) -> None:
        """As `Crew.archive`."""
        with self._change:
            self._board.archiving = on

    def next(self) -> Event | None:
        """As `Crew.next`."""
        with self._change:
            if not self._under_way and not len(self._board):
                return None
        event = self._events.get()
        if event.ends:
            with self._change:
                self._under_way -= 1
        return event

    def close(self) -> None:
        """As `Crew.close`."""
        with self._change:
            self._closed = True
            self._board.drop()
            self._change.notify_all()
        for lane in self._crew:
            lane.close()  # whatever its thread waits for there ends with an error
        while any(thread.is_alive() for thread in self._threads):
            while not self._events.empty():
                self._events.get_nowait()
            for thread in self._threads:
                thread.join(0.01)

    def _work(self, lane: Lane) -> None:
        last: Task | None = None
        while (task := self._take(last)) is not None:
            last = task
            for event in compute(lane, task, lambda: self._closed):
                if isinstance(event.error, NoPlace):
                    self._events.put(Event(task, lost=event.lost))
                    if self._let_go(lane, task):
                        return
                    event = Event(task, error=event.error)
                self._events.put(event)

    def _let_go(self, lane: Lane, task: Task) -> bool:
        """Lets a lane go and the others have its segment; the last one stays, and its error is told."""
        with self._change:
            if self._closed or self.lanes == 1:
                return False
            self.lanes -= 1
            self._board.give_back(task)
            self._under_way -= 1
            self._change.notify_all()
        lane.close()
        return True

    def _take(self, last: Task | None) -> Task | None:
        with self._change:
            self._change.wait_for(lambda: self._closed or len(self._board) > 0)
            task = None if self._closed else self._board.take(last)
            self._under_way += task is not None
            return task


def compute(lane: Lane, task: Task, given_up: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """A segment on a lane, again if a worker is lost and it isn't given up; the last event is an end."""
    lost: int | None = None
    for attempt in range(1, TRIES + 1):
        frames = 0
        try:
            if lost is not None:
                lane.restore()
                yield Event(task, lost=lost)
                lost = 0
            for done in lane.run(task.job, task.segment):
                frames += len(done.frames)
                yield Event(task, done=done)
            return
        except WorkerLost as error:
            lost = (lost or 0) + frames
            if attempt == TRIES or given_up():
                yield Event(task, error=error)
                return
        except NoPlace as error:
            yield Event(task, lost=lost, error=error)
            return
        except Exception as error:
            with suppress(WorkerLost):
                lane.abandon()
            yield Event(task, error=error)
            return


def _longest_run(segments: Sequence[Segment]) -> tuple[int, int]:
    """Place and length of the longest run of segments that follow each other."""
    best, first = (0, 0), 0
    for place, segment in enumerate(segments):
        if place and segments[place - 1].start + segments[place - 1].frames != segment.start:
            first = place
        if place - first + 1 > best[1]:
            best = first, place - first + 1
    return best
