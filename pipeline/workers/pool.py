"""Who does what: lanes take what waits, and what they make of it comes back one event after the other.

A lane computes one segment at a time. It goes on with the segment that follows its last one, else it starts a video
that nobody is at, else it takes the middle of the longest run of waiting segments: so each reads its files in long
strokes, and one long file spreads over all lanes. A lane that is lost is built anew and its segment done again, a few
times; then the video is given up, and the others go on. A lane without a place goes; the others take its segment.
A video whose segments are all sealed is finished by the next lane that is free, while the others compute.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Queue
from typing import Protocol

from deltascene.pipeline.errors import NoCapacity, WorkerLost
from deltascene.pipeline.workers.finish import Finished, FinishJob, FinishProgress
from deltascene.pipeline.workers.jobs import Segment, SpanDone, VideoJob
from deltascene.pipeline.workers.segment_queue import SegmentQueue, WorkItem

TRIES = 3  # of what a worker was lost at


class Worker(Protocol):
    """Computes one segment at a time, or finishes a video."""

    def run(self, job: VideoJob, segment: Segment) -> Iterator[SpanDone]:
        """Computes, writes and seals a segment; the last span has its seal.

        Raises:
            WorkerLost: a part of the lane is gone.
            DeltasceneError: whatever a part says.
        """

    def finish(self, ending: FinishJob) -> Iterator[FinishProgress | Finished]:
        """Finishes a video; the last step is what came of it. Raises as `run`."""

    def restore(self) -> None:
        """Puts another in the place of every part that is gone.

        Raises:
            WorkerLost: another part was lost meanwhile.
            NoCapacity: there is no room for it any more.
        """

    def abandon(self) -> None:
        """Gives up what was begun: a segment that isn't sealed, a video that isn't finished."""

    def close(self) -> None:
        """Lets go of everything."""


@dataclass(frozen=True, slots=True)
class WorkEvent:
    """Something that happened to what a lane does.

    Attributes:
        task: what it does.
        done: a span of the segment was written; with its seal, the segment is finished.
        step: of a video's end; the last one says what came of it.
        broken_off: a video's end was, as everything was dropped.
        lost: a worker was lost, and so many frames that were done will be computed again; None if none was lost.
        error: it was given up; the lane has no place any more if it is a `NoCapacity`.
    """

    task: WorkItem
    done: SpanDone | None = None
    step: FinishProgress | Finished | None = None
    broken_off: bool = False
    lost: int | None = None
    error: Exception | None = None

    @property
    def ends(self) -> bool:
        """Whether nothing more comes of this task."""
        sealed = self.done is not None and self.done.seal is not None
        return sealed or isinstance(self.step, Finished) or self.broken_off or self.error is not None


class WorkerPool(Protocol):
    """Lanes at work.

    Attributes:
        lanes: how many.
    """

    lanes: int

    def waiting(self) -> int:
        """Segments and videos to finish that no lane has taken yet."""

    def add(self, job: VideoJob, segments: Sequence[Segment]) -> None:
        """Gives out a video's segments."""

    def finish(self, ending: FinishJob) -> None:
        """Gives out a video's end."""

    def drop(self, id_: str | None = None) -> None:
        """Takes back what no lane has begun, of a video or of all; of all, ends that are begun are broken off."""

    def archive(self, on: bool) -> None:
        """Whether segments that are begun from now on are archived."""

    def next(self) -> WorkEvent | None:
        """What happens next; None if nothing is under way and nothing waits."""

    def close(self) -> None:
        """Ends all lanes; what isn't sealed is given up."""


class InlinePool:
    """A lane in the caller's own thread: it works while its next event is waited for."""

    lanes = 1

    def __init__(self, lane: Worker) -> None:
        self._lane, self._board = lane, SegmentQueue()
        self._last: WorkItem | None = None
        self._events: Iterator[WorkEvent] = iter(())

    def waiting(self) -> int:
        """As `WorkerPool.waiting`."""
        return len(self._board)

    def add(self, job: VideoJob, segments: Sequence[Segment]) -> None:
        """As `WorkerPool.add`."""
        self._board.add(job, segments)

    def finish(self, ending: FinishJob) -> None:
        """As `WorkerPool.finish`."""
        self._board.finish(ending)

    def drop(self, id_: str | None = None) -> None:
        """As `WorkerPool.drop`."""
        self._board.drop(id_)

    def archive(self, on: bool) -> None:
        """As `WorkerPool.archive`."""
        self._board.archiving = on

    def next(self) -> WorkEvent | None:
        """As `WorkerPool.next`."""
        event = next(self._events, None)
        if event is None and (task := self._board.take(self._last)) is not None:
            self._last = task if isinstance(task.work, Segment) else self._last
            self._events = compute(self._lane, task, lambda: self._board.dropped)
            event = next(self._events)
        return event

    def close(self) -> None:
        """As `WorkerPool.close`."""
        self._lane.close()


class ThreadedPool:
    """Lanes in threads of their own; each mostly waits for actors."""

    def __init__(self, lanes: Sequence[Worker]) -> None:
        """Starts them."""
        self.lanes = len(lanes)
        self._board, self._change = SegmentQueue(), threading.Condition()
        self._events: Queue[WorkEvent] = Queue(maxsize=4 * len(lanes))  # a listener that is slow holds the lanes up
        self._under_way, self._closed = 0, False
        self._crew = list(lanes)
        self._threads = [threading.Thread(target=self._work, args=(lane,), daemon=True) for lane in lanes]
        for thread in self._threads:
            thread.start()

    def waiting(self) -> int:
        """As `WorkerPool.waiting`."""
        with self._change:
            return len(self._board)

    def add(self, job: VideoJob, segments: Sequence[Segment]) -> None:
        """As `WorkerPool.add`."""
        with self._change:
            self._board.add(job, segments)
            self._change.notify_all()

    def finish(self, ending: FinishJob) -> None:
        """As `WorkerPool.finish`."""
        with self._change:
            self._board.finish(ending)
            self._change.notify_all()

    def drop(self, id_: str | None = None) -> None:
        """As `WorkerPool.drop`."""
        with self._change:
            self._board.drop(id_)

    def archive(self, on: bool) -> None:
        """As `WorkerPool.archive`."""
        with self._change:
            self._board.archiving = on

    def next(self) -> WorkEvent | None:
        """As `WorkerPool.next`."""
        with self._change:
            if not self._under_way and not len(self._board):
                return None
        event = self._events.get()
        if event.ends:
            with self._change:
                self._under_way -= 1
        return event

    def close(self) -> None:
        """As `WorkerPool.close`."""
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

    def _work(self, lane: Worker) -> None:
        last: WorkItem | None = None
        while (task := self._take(last)) is not None:
            last = task if isinstance(task.work, Segment) else last
            for event in compute(lane, task, lambda: self._board.dropped, lambda: self._closed):
                if isinstance(event.error, NoCapacity):
                    self._events.put(WorkEvent(task, lost=event.lost))
                    if self._let_go(lane, task):
                        return
                    event = WorkEvent(task, error=event.error)
                self._events.put(event)

    def _let_go(self, lane: Worker, task: WorkItem) -> bool:
        """Lets a lane go and the others have its task; the last one stays, and its error is told."""
        with self._change:
            if self._closed or self.lanes == 1:
                return False
            self.lanes -= 1
            self._board.give_back(task)
            self._under_way -= 1
            self._change.notify_all()
        lane.close()
        return True

    def _take(self, last: WorkItem | None) -> WorkItem | None:
        with self._change:
            self._change.wait_for(lambda: self._closed or len(self._board) > 0)
            task = None if self._closed else self._board.take(last)
            self._under_way += task is not None
            return task


def compute(
    lane: Worker,
    task: WorkItem,
    dropped: Callable[[], bool] = lambda: False,
    closed: Callable[[], bool] = lambda: False,
) -> Iterator[WorkEvent]:
    """A task on a lane; the last event is an end.

    Args:
        lane: that does it.
        task: a segment, or a video's end.
        dropped: whether a video's end is to be broken off.
        closed: whether the lane is: a worker that is lost is no reason to try again.
    """
    lost: int | None = None
    for attempt in range(1, TRIES + 1):
        frames = 0
        try:
            if lost is not None:
                lane.restore()
                yield WorkEvent(task, lost=lost)
                lost = 0
            for event in _steps(lane, task):
                frames += len(event.done.frames) if event.done is not None else 0
                yield event
                if event.step is not None and not event.ends and dropped():
                    lane.abandon()
                    yield WorkEvent(task, broken_off=True)
                    return
            return
        except WorkerLost as error:
            lost = (lost or 0) + frames
            if attempt == TRIES or closed():
                yield WorkEvent(task, error=error)
                return
        except NoCapacity as error:
            yield WorkEvent(task, lost=lost, error=error)
            return
        except Exception as error:
            with suppress(WorkerLost):
                lane.abandon()
            yield WorkEvent(task, error=error)
            return


def _steps(lane: Worker, task: WorkItem) -> Iterator[WorkEvent]:
    """A task, once."""
    if isinstance(task.work, Segment):
        for done in lane.run(task.job, task.work):
            yield WorkEvent(task, done=done)
    else:
        for step in lane.finish(task.work):
            yield WorkEvent(task, step=step)
