"""The segments and finished videos that wait for a worker, and which of them a worker takes next.

A worker goes on with the segment that follows its last one; else it starts a video that no worker has begun; else it
takes the middle of the longest run of waiting segments. So each worker reads its files in long runs, and one long file
is shared by all workers.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from deltascene.pipeline.workers.finish import FinishJob
from deltascene.pipeline.workers.jobs import Segment, VideoJob


@dataclass(frozen=True, slots=True)
class WorkItem:
    """What a worker does at a time.

    Attributes:
        job: the video.
        work: a segment of it to compute, or the job that finishes it.
        taken_s: when a worker took it, on the clock `time.perf_counter`.
    """

    job: VideoJob
    work: Segment | FinishJob
    taken_s: float = field(default_factory=time.perf_counter)

    @property
    def segment(self) -> Segment:
        """The segment that is computed; only for an item that has one."""
        assert isinstance(self.work, Segment), "finishing a video is no segment"
        return self.work


class SegmentQueue:
    """Work that waits: videos to finish come first, then segments by video.

    Attributes:
        archiving: whether segments that are taken from now on are archived.
        dropped: everything was dropped, and nothing was added since.
    """

    def __init__(self) -> None:
        self.archiving, self.dropped = True, False
        self._finish_jobs = deque[FinishJob]()
        self._jobs: dict[str, VideoJob] = {}
        self._waiting: dict[str, list[Segment]] = {}
        self._begun: set[str] = set()

    def __len__(self) -> int:
        return len(self._finish_jobs) + sum(len(segments) for segments in self._waiting.values())

    def add(self, job: VideoJob, segments: Sequence[Segment]) -> None:
        """Adds a video's segments, in order."""
        self.dropped = False
        if segments:
            self._jobs[job.id], self._waiting[job.id] = job, list(segments)

    def finish(self, finish_job: FinishJob) -> None:
        """Adds a video that is to be finished."""
        self.dropped = False
        self._finish_jobs.append(finish_job)

    def drop(self, id_: str | None = None) -> None:
        """Removes what waits, of one video or of all."""
        self.dropped |= id_ is None
        self._finish_jobs = deque(each for each in self._finish_jobs if id_ not in (None, each.job.id))
        for each in list(self._waiting) if id_ is None else [id_]:
            self._forget(each)

    def give_back(self, item: WorkItem) -> None:
        """Puts an item that was taken back among those that wait."""
        if isinstance(item.work, FinishJob):
            self._finish_jobs.appendleft(item.work)
            return
        self._jobs[item.job.id] = item.job
        waiting = [*self._waiting.get(item.job.id, []), item.segment]
        self._waiting[item.job.id] = sorted(waiting, key=lambda segment: segment.start)

    def take(self, last: WorkItem | None) -> WorkItem | None:
        """The next item for a worker; None if nothing waits.

        Args:
            last: item of the last segment that this worker computed; None if there was none.
        """
        if self._finish_jobs:
            finish_job = self._finish_jobs.popleft()
            return WorkItem(finish_job.job, finish_job)
        if not self._waiting:
            return None
        id_, place = self._choose(last)
        job, segment = self._jobs[id_], self._waiting[id_].pop(place)
        self._begun.add(id_)
        if not self._waiting[id_]:
            self._forget(id_)
        return WorkItem(job, replace(segment, archived=segment.archived and self.archiving))

    def _forget(self, id_: str) -> None:
        self._waiting.pop(id_, None)
        self._jobs.pop(id_, None)

    def _choose(self, last: WorkItem | None) -> tuple[str, int]:
        """A video, and the place of the chosen segment among its waiting ones."""
        if last is not None and last.job.id in self._waiting:
            starts = [segment.start for segment in self._waiting[last.job.id]]
            following = last.segment.start + last.segment.frames
            if following in starts:
                return last.job.id, starts.index(following)
        for id_ in self._waiting:
            if id_ not in self._begun:
                return id_, 0
        runs = ((id_, *_longest_run(segments)) for id_, segments in self._waiting.items())
        id_, first, count = max(runs, key=lambda run: run[2])
        return id_, first + count // 2


def _longest_run(segments: Sequence[Segment]) -> tuple[int, int]:
    """Place and length of the longest run of segments that follow each other."""
    best, first = (0, 0), 0
    for place, segment in enumerate(segments):
        if place and segments[place - 1].start + segments[place - 1].frames != segment.start:
            first = place
        if place - first + 1 > best[1]:
            best = first, place - first + 1
    return best
