"""One video of a run while it is computed: which segments are finished, and what its record says of the work so far."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from deltascene.cache.seal import Seal
from deltascene.pipeline.runs.videos_table import VideoRecord
from deltascene.pipeline.sources.identity import Identity
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.text import path_text
from deltascene.pipeline.workers.finish import Finished, FinishJob, draws
from deltascene.pipeline.workers.jobs import Segment, VideoJob
from deltascene.pipeline.workers.worker import WorkEvent


@dataclass(slots=True)
class VideoProgress:
    """A video that is being computed.

    Attributes:
        spec: the source.
        job: what the workers need to know of it.
        identity: all that is known of its content.
        cause: `truncated` if it ends before its header says, else empty.
        segments: all of its segments.
        seals: seals of the finished ones, by start.
        began_s: time when a worker took its first segment, on the clock `time.perf_counter`; None before that.
        computed: number of frames computed since then.
        retries: how often a segment was computed again because a worker was lost.
    """

    spec: SourceSpec
    job: VideoJob
    identity: Identity
    cause: str
    segments: Sequence[Segment]
    seals: dict[int, Seal]
    began_s: float | None = None
    computed: int = 0
    retries: int = 0

    @property
    def left(self) -> list[Segment]:
        """Segments that aren't finished."""
        return [segment for segment in self.segments if segment.start not in self.seals]

    @property
    def complete(self) -> bool:
        """Whether every segment is finished."""
        return len(self.seals) == len(self.segments)

    @property
    def prefix(self) -> list[Seal]:
        """Seals from the start of the video up to the first gap."""
        started = takewhile(lambda segment: segment.start in self.seals, self.segments)
        return [self.seals[segment.start] for segment in started]

    @property
    def finish_job(self) -> FinishJob:
        """What makes its finished segments readable."""
        return FinishJob(self.job, [seal.start for seal in self.prefix], draws(self.job.config.save))

    @property
    def so_far(self) -> dict[str, Any]:
        """Fields of its record that describe the work on it."""
        seconds = 0.0 if self.began_s is None else time.perf_counter() - self.began_s
        return {
            "retries": self.retries,
            "seconds": seconds,
            "computed": self.computed,
            "selected": self.job.frames,
        }

    def count(self, event: WorkEvent) -> None:
        """Counts frames that an event reports as computed or lost."""
        taken = event.item.taken_s
        self.began_s = taken if self.began_s is None else min(self.began_s, taken)
        if event.lost is not None and isinstance(event.item.work, Segment):
            self.retries += 1
            self.computed -= event.lost
        if event.done is not None:
            self.computed += len(event.done.frames)

    def record(self, finished: Finished, status: str, cause: str = "") -> VideoRecord:
        """Its row of `videos.parquet`.

        Args:
            finished: what can be read of it.
            status: `done` or `partial`.
            cause: why it isn't whole; empty if it is.
        """
        about = VideoRecord(
            id=self.spec.id,
            source=path_text(self.spec.path),
            status=status,
            cause=cause,
            frames=finished.frames,
            invalid=finished.invalid,
            fps=finished.fps,
            identity=self.identity.quick,
            identity_full=self.identity.full,
            notes="; ".join(self.job.info.notes),
        )
        return replace(about, **self.so_far)
