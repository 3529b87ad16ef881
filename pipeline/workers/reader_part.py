"""Decodes a run's videos: the first part of a worker."""

import time
from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

from deltascene.pipeline.sources.reader import Reader, open_source
from deltascene.pipeline.workers.jobs import (
    Span,
    SpanFrames,
    VideoJob,
)

Item = TypeVar("Item")


def timed(items: Iterator[Item]) -> Iterator[tuple[Item, float]]:
    """Things with the seconds that each took to come."""
    while True:
        began = time.perf_counter()
        try:
            item = next(items)
        except StopIteration:
            return
        yield item, time.perf_counter() - began


class ReaderPart:
    """Decodes a video's frames in order; segments that follow each other are read in one go."""

    def __init__(self) -> None:
        self._reader: Reader | None = None
        self._at: tuple[str, int] | None = None  # where it stands: a video, the number of its next frame

    def read(self, job: VideoJob, span: Span) -> SpanFrames:
        """The next frames of a segment.

        Raises:
            SourceError: the video can't be read.
        """
        segment = span.segment
        if span.first and self._at != (job.id, segment.first_index):
            self.close()
            self._reader = open_source(job.config.source, job.spec, start_frame=segment.first_index, info=job.info)
        assert self._reader is not None, "a segment begins with its first span"
        frames = list(islice(timed(self._reader), span.frames))
        assert len(frames) == span.frames, "every frame selected comes"
        self._at = (job.id, segment.next_index) if span.last else None
        return SpanFrames(span, frames)

    def close(self) -> None:
        """Lets go of the video, wherever it is."""
        self._at = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None
