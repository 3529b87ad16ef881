"""Decodes videos: the first part of a worker, which hands spans of frames to the engine.

A part knows nothing of the others, or of where they are: a worker calls them one after the other in this process, or
holds each in an actor.
"""

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
    """Items of an iterator, each with the seconds that it took."""
    while True:
        began = time.perf_counter()
        try:
            item = next(items)
        except StopIteration:
            return
        yield item, time.perf_counter() - began


class ReaderPart:
    """Decodes a video's frames in order; segments that follow each other are read without seeking."""

    def __init__(self) -> None:
        self._reader: Reader | None = None
        self._at: tuple[str, int] | None = None  # video and number of the next frame

    def read(self, job: VideoJob, span: Span) -> SpanFrames:
        """Decodes the next frames of a segment.

        Raises:
            SourceError: the video can't be read.
        """
        segment = span.segment
        if span.first and self._at != (job.id, segment.first_index):
            self.close()
            self._reader = open_source(job.config.source, job.spec, start_frame=segment.first_index, info=job.info)
        assert self._reader is not None, "a segment begins with its first span"
        frames = list(islice(timed(self._reader), span.frames))
        assert len(frames) == span.frames, "every selected frame is decoded"
        self._at = (job.id, segment.next_index) if span.last else None
        return SpanFrames(span, frames)

    def close(self) -> None:
        """Closes the video."""
        self._at = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None
