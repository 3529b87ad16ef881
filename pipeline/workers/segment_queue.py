"""What waits for a worker, and what each takes next."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from deltascene.pipeline.workers.finish import FinishJob
from deltascene.pipeline.workers.jobs import Segment, VideoJob


@dataclass(frozen=True, slots=True)
class WorkItem:
    """What a lane does at a time.

    Attributes:
        job: a video.
        work: a segment of it, or its end.
        taken_s: when a lane took it, on the clock `time.perf_counter`.
    """

    job: VideoJob
    work: Segment | FinishJob
    taken_s: float = field(default_factory=time.perf_counter)

    @property
    def segment(self) -> Segment:
        """That is computed."""
        assert isinstance(self.work, Segment), "a video's end is no segment"
        return self.work


class SegmentQueue:
    """What waits: videos to finish come first, then segments by video.

    Attributes:
        archiving: whether segments that are taken from now on are archived.
        dropped: everything was taken back, and nothing added since.
    """

    def __init__(self) -> None:
        self.archiving, self.dropped = True, False
        self._endings = deque[FinishJob]()
        self._jobs: dict[str, VideoJob] = {}
        self._waiting: dict[str, list[Segment]] = {}
        self._begun: set[str] = set()

    def __len__(self) -> int:
        return len(self._endings) + sum(len(segments) for segments in self._waiting.values())

    def add(self, job: VideoJob, segments: Sequence[Segment]) -> None:
        """Adds a video's segments, in order."""
        self.dropped = False
        if segments:
            self._jobs[job.id], self._waiting[job.id] = job, list(segments)

    def finish(self, ending: FinishJob) -> None:
        """Adds a video's end."""
        self.dropped = False
        self._endings.append(ending)

    def drop(self, id_: str | None = None) -> None:
        """Takes back what waits, of a video or of all."""
        self.dropped |= id_ is None
        self._endings = deque(ending for ending in self._endings if id_ not in (None, ending.job.id))
        for each in list(self._waiting) if id_ is None else [id_]:
            self._forget(each)

    def give_back(self, task: WorkItem) -> None:
        """What was taken waits again."""
        if isinstance(task.work, FinishJob):
            self._endings.appendleft(task.work)
            return
        self._jobs[task.job.id] = task.job
        waiting = [*self._waiting.get(task.job.id, []), task.segment]
        self._waiting[task.job.id] = sorted(waiting, key=lambda segment: segment.start)

    def take(self, last: WorkItem | None) -> WorkItem | None:
        """What is next for a lane, after its last segment; None if nothing waits."""
        if self._endings:
            ending = self._endings.popleft()
            return WorkItem(ending.job, ending)
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


def _longest_run(segments: Sequence[Segment]) -> tuple[int, int]:
    """Place and length of the longest run of segments that follow each other."""
    best, first = (0, 0), 0
    for place, segment in enumerate(segments):
        if place and segments[place - 1].start + segments[place - 1].frames != segment.start:
            first = place
        if place - first + 1 > best[1]:
            best = first, place - first + 1
    return best
