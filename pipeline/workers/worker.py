"""What a worker is, and how it does an item: again where it was lost on the way, with an event for every step."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from deltascene.pipeline.errors import NoCapacity, WorkerLost
from deltascene.pipeline.workers.finish import Finished, FinishJob, FinishProgress
from deltascene.pipeline.workers.jobs import Segment, SpanDone, VideoJob
from deltascene.pipeline.workers.segment_queue import WorkItem

TRIES = 3  # of an item whose worker was lost


class Worker(Protocol):
    """Computes one segment at a time, or finishes a video."""

    def run(self, job: VideoJob, segment: Segment) -> Iterator[SpanDone]:
        """Computes, writes and seals a segment; the last span has its seal.

        Raises:
            WorkerLost: a part of the worker is gone.
            DeltasceneError: a part failed.
        """

    def finish(self, finish_job: FinishJob) -> Iterator[FinishProgress | Finished]:
        """Finishes a video; the last value is a `Finished`.

        Raises:
            WorkerLost: a part of the worker is gone.
            DeltasceneError: a part failed.
        """

    def restore(self) -> None:
        """Replaces every part that is gone.

        Raises:
            WorkerLost: another part was lost meanwhile.
            NoCapacity: there is no room for it any more.
        """

    def abandon(self) -> None:
        """Gives up what was begun: a segment that isn't sealed, a video that isn't finished."""

    def close(self) -> None:
        """Releases all parts."""


@dataclass(frozen=True, slots=True)
class WorkEvent:
    """Something that happened to an item.

    Attributes:
        item: what the worker does.
        done: a span of the segment was written; with its seal, the segment is finished.
        step: progress of a video that is being finished, or its result.
        cancelled: finishing the video was given up, because everything was dropped.
        lost: frames that were done and will be computed again, as a worker was lost; None if none was lost.
        error: why the item failed; with a `NoCapacity`, the worker has no place any more.
    """

    item: WorkItem
    done: SpanDone | None = None
    step: FinishProgress | Finished | None = None
    cancelled: bool = False
    lost: int | None = None
    error: Exception | None = None

    @property
    def ends(self) -> bool:
        """Whether this is the item's last event."""
        sealed = self.done is not None and self.done.seal is not None
        return sealed or isinstance(self.step, Finished) or self.cancelled or self.error is not None


def compute(
    worker: Worker,
    item: WorkItem,
    dropped: Callable[[], bool] = lambda: False,
    closed: Callable[[], bool] = lambda: False,
) -> Iterator[WorkEvent]:
    """Does an item, again if the worker is lost; yields its events, the last of which ends it.

    Args:
        worker: that does it.
        item: a segment, or a video to finish.
        dropped: whether finishing a video is to be cancelled.
        closed: whether the worker was closed; its loss is no reason to try again then.
    """
    lost: int | None = None
    for attempt in range(1, TRIES + 1):
        frames = 0
        try:
            if lost is not None:
                worker.restore()
                yield WorkEvent(item, lost=lost)
                lost = 0
            for event in _steps(worker, item):
                frames += len(event.done.frames) if event.done is not None else 0
                yield event
                if event.step is not None and not event.ends and dropped():
                    worker.abandon()
                    yield WorkEvent(item, cancelled=True)
                    return
            return
        except WorkerLost as error:
            lost = (lost or 0) + frames
            if attempt == TRIES or closed():
                yield WorkEvent(item, error=error)
                return
        except NoCapacity as error:
            yield WorkEvent(item, lost=lost, error=error)
            return
        except Exception as error:
            with suppress(WorkerLost):
                worker.abandon()
            yield WorkEvent(item, error=error)
            return


def _steps(worker: Worker, item: WorkItem) -> Iterator[WorkEvent]:
    """Does an item once."""
    if isinstance(item.work, Segment):
        for done in worker.run(item.job, item.work):
            yield WorkEvent(item, done=done)
    else:
        for step in worker.finish(item.work):
            yield WorkEvent(item, step=step)
