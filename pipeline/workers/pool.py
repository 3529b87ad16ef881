"""Pools of workers: each worker takes items from a queue, and what happens comes back as one sequence of events.

A worker that is lost is restored and its item done again, a few times; then the item fails, and the others go on. A
worker that no machine has room for any more leaves the pool, and the others do its item. A video whose segments are all
sealed is finished by the next free worker, while the others compute.
"""

import threading
from collections.abc import Iterator, Sequence
from queue import Queue
from typing import Protocol

from deltascene.pipeline.errors import NoCapacity
from deltascene.pipeline.workers.finish import FinishJob
from deltascene.pipeline.workers.jobs import Segment, VideoJob
from deltascene.pipeline.workers.segment_queue import SegmentQueue, WorkItem
from deltascene.pipeline.workers.worker import Worker, WorkEvent, compute


class WorkerPool(Protocol):
    """Workers that share one queue.

    Attributes:
        workers: how many there are.
    """

    workers: int

    def waiting(self) -> int:
        """Number of segments and videos to finish that no worker has taken yet."""

    def add(self, job: VideoJob, segments: Sequence[Segment]) -> None:
        """Adds a video's segments to the queue."""

    def finish(self, finish_job: FinishJob) -> None:
        """Adds a video to the queue that is to be finished."""

    def drop(self, id_: str | None = None) -> None:
        """Removes what no worker has begun, of one video or of all; of all, finishing that was begun is cancelled."""

    def archive(self, on: bool) -> None:
        """Sets whether segments that are begun from now on are archived."""

    def next(self) -> WorkEvent | None:
        """Waits for the next event; None if no item waits or is being done."""

    def close(self) -> None:
        """Ends all workers; what isn't sealed is given up."""


class InlinePool:
    """One worker in the caller's own thread: it works while `next` is called."""

    workers = 1

    def __init__(self, worker: Worker) -> None:
        self._worker, self._queue = worker, SegmentQueue()
        self._last: WorkItem | None = None
        self._events: Iterator[WorkEvent] = iter(())

    def waiting(self) -> int:
        """Number of items in the queue."""
        return len(self._queue)

    def add(self, job: VideoJob, segments: Sequence[Segment]) -> None:
        """Adds a video's segments to the queue."""
        self._queue.add(job, segments)

    def finish(self, finish_job: FinishJob) -> None:
        """Adds a video to the queue that is to be finished."""
        self._queue.finish(finish_job)

    def drop(self, id_: str | None = None) -> None:
        """Removes what waits; `next` cancels what is being finished if everything is dropped."""
        self._queue.drop(id_)

    def archive(self, on: bool) -> None:
        """Sets whether segments that are begun from now on are archived."""
        self._queue.archiving = on

    def next(self) -> WorkEvent | None:
        """Works up to the next event."""
        event = next(self._events, None)
        if event is None and (item := self._queue.take(self._last)) is not None:
            self._last = item if isinstance(item.work, Segment) else self._last
            self._events = compute(self._worker, item, lambda: self._queue.dropped)
            event = next(self._events)
        return event

    def close(self) -> None:
        """Closes the worker."""
        self._worker.close()


class ThreadedPool:
    """Workers in threads of their own; each mostly waits for actors."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        """Starts a thread for each worker."""
        self.workers = len(workers)
        self._queue, self._change = SegmentQueue(), threading.Condition()
        self._events: Queue[WorkEvent] = Queue(maxsize=4 * len(workers))  # workers wait for a slow listener
        self._under_way, self._closed = 0, False
        self._workers = list(workers)
        self._threads = [threading.Thread(target=self._work, args=(worker,), daemon=True) for worker in workers]
        for thread in self._threads:
            thread.start()

    def waiting(self) -> int:
        """Number of items in the queue."""
        with self._change:
            return len(self._queue)

    def add(self, job: VideoJob, segments: Sequence[Segment]) -> None:
        """Adds a video's segments to the queue and wakes workers."""
        with self._change:
            self._queue.add(job, segments)
            self._change.notify_all()

    def finish(self, finish_job: FinishJob) -> None:
        """Adds a video that is to be finished to the queue and wakes workers."""
        with self._change:
            self._queue.finish(finish_job)
            self._change.notify_all()

    def drop(self, id_: str | None = None) -> None:
        """Removes what waits; workers cancel what they are finishing if everything is dropped."""
        with self._change:
            self._queue.drop(id_)

    def archive(self, on: bool) -> None:
        """Sets whether segments that are begun from now on are archived."""
        with self._change:
            self._queue.archiving = on

    def next(self) -> WorkEvent | None:
        """Waits for an event of any worker."""
        with self._change:
            if not self._under_way and not len(self._queue):
                return None
        event = self._events.get()
        if event.ends:
            with self._change:
                self._under_way -= 1
        return event

    def close(self) -> None:
        """Closes all workers and waits until their threads end."""
        with self._change:
            self._closed = True
            self._queue.drop()
            self._change.notify_all()
        for worker in self._workers:
            worker.close()  # whatever its thread waits for there ends with an error
        while any(thread.is_alive() for thread in self._threads):
            while not self._events.empty():
                self._events.get_nowait()
            for thread in self._threads:
                thread.join(0.01)

    def _work(self, worker: Worker) -> None:
        last: WorkItem | None = None
        while (item := self._take(last)) is not None:
            last = item if isinstance(item.work, Segment) else last
            for event in compute(worker, item, lambda: self._queue.dropped, lambda: self._closed):
                if isinstance(event.error, NoCapacity):
                    self._events.put(WorkEvent(item, lost=event.lost))
                    if self._remove(worker, item):
                        return
                    event = WorkEvent(item, error=event.error)
                self._events.put(event)

    def _remove(self, worker: Worker, item: WorkItem) -> bool:
        """Removes a worker and puts its item back into the queue; False if it is the last one, which stays."""
        with self._change:
            if self._closed or self.workers == 1:
                return False
            self.workers -= 1
            self._queue.give_back(item)
            self._under_way -= 1
            self._change.notify_all()
        worker.close()
        return True

    def _take(self, last: WorkItem | None) -> WorkItem | None:
        with self._change:
            self._change.wait_for(lambda: self._closed or len(self._queue) > 0)
            item = None if self._closed else self._queue.take(last)
            self._under_way += item is not None
            return item
