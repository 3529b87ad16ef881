"""Finishes a video: joins its segments, draws pictures from them, and moves everything to its place.

It goes in steps and reports progress after each, so that a caller can show it, or cancel the rest.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deltascene.cache.places import remove, scratch
from deltascene.pipeline.config import SaveConfig
from deltascene.pipeline.errors import WorkerLost
from deltascene.pipeline.runs.assembly import Sums, assemble, publish
from deltascene.pipeline.runs.folder import VideoFolder
from deltascene.pipeline.runs.reader import RunVideo
from deltascene.pipeline.runs.videos_table import VideoRecord
from deltascene.pipeline.sources.info import SourceInfo
from deltascene.pipeline.sources.reader import open_source
from deltascene.pipeline.text import path_text
from deltascene.pipeline.workers.jobs import VideoJob


@dataclass(frozen=True, slots=True)
class FinishJob:
    """A video that is to be finished; plain values, so that it can be sent to another process.

    Attributes:
        job: the video.
        starts: number of the first frame of each finished segment, from the first segment on, without gaps.
        pictures: whether the pictures that its config asks for are drawn.
    """

    job: VideoJob
    starts: Sequence[int]
    pictures: bool


@dataclass(frozen=True, slots=True)
class FinishProgress:
    """Progress of one kind of pictures.

    Attributes:
        what: `overlay`, `png` or `npz`.
        share: of the pictures that is drawn, 0 to 1.
    """

    what: str
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A video that is finished and can be read.

    Attributes:
        frames: processed frames.
        invalid: how many of these aren't what the camera saw.
        fps: processed frames per second of the source.
        sums: size and SHA-256 of the arrays' shards, by path below the video's folder.
    """

    frames: int = 0
    invalid: int = 0
    fps: float = 0.0
    sums: Sums | None = None


Steps = Generator[FinishProgress | Finished, None, None]


def finish_video(finish_job: FinishJob) -> Steps:
    """Makes the finished segments of a video readable; yields progress, and a `Finished` at the end.

    Raises:
        OutputError: another writer has its folder now.
        EncoderFailed, OSError: pictures can't be written.
        WorkerLost: an encoder was killed.
        SourceError: the source can't be read any more.
    """
    job, finished = finish_job.job, Finished()
    job.fence.require()
    with scratch(job.files.root) as folder:
        if finish_job.starts:
            made = assemble(folder, job.files, finish_job.starts, job.config.segment.frames, job.attributes)
            invalid = len(made.valid) - int(made.valid.sum())
            finished = Finished(len(made.pts_s), invalid, _rate(made.pts_s, job.info), made.files)
        if finish_job.pictures:
            yield from _draw(finish_job, finished, folder)
        job.fence.require()
        remove(job.files.predictions)
        publish(folder, job.files)
    yield finished


def draws(save: SaveConfig) -> bool:
    """Whether a run writes pictures of its videos."""
    return save.video or save.png or save.npz


class FinisherPart:
    """Finishes a video in calls of about a second, so that the caller learns of progress and may cancel the rest.

    Attributes:
        call_s: seconds after which a call returns.
    """

    call_s = 1.0

    def __init__(self) -> None:
        self._steps: Steps | None = None

    def finish(self, finish_job: FinishJob, first: bool) -> FinishProgress | Finished:
        """Begins to finish a video, or goes on with it; a `Finished` is the last answer.

        Args:
            finish_job: the video.
            first: whether this is its first call.

        Raises:
            WorkerLost: this process didn't begin it.
        """
        if first:
            self.close()
            self._steps = finish_video(finish_job)
        if self._steps is None:
            raise WorkerLost(f"{finish_job.job.id}: the process that was finishing the video is gone")
        until = time.monotonic() + self.call_s
        step = next(self._steps)
        while not isinstance(step, Finished) and time.monotonic() < until:
            step = next(self._steps)
        return step

    def close(self) -> None:
        """Gives up a video that was begun."""
        if self._steps is not None:
            self._steps.close()
            self._steps = None


def _draw(finish_job: FinishJob, finished: Finished, folder: Path) -> Iterator[FinishProgress]:
    """Draws the pictures of a video beside its arrays in a local folder."""
    from deltascene.pipeline.workers.exports import draw_npz, draw_png

    job, save = finish_job.job, finish_job.job.config.save
    record = VideoRecord(job.id, path_text(job.spec.path), "done", frames=finished.frames, fps=finished.fps)
    video = RunVideo(record, VideoFolder(folder))
    if save.video:
        for share in _draw_overlay(folder / job.files.overlay.name, finish_job, video):
            yield FinishProgress("overlay", share)
    if save.png:
        for share in draw_png(video):
            yield FinishProgress("png", share)
    if save.npz:
        for share in draw_npz(video):
            yield FinishProgress("npz", share)


def _draw_overlay(path: Path, finish_job: FinishJob, video: RunVideo) -> Iterator[float]:
    """Joins the overlay from its segments' pieces, or draws all of it where a segment was made without an overlay."""
    from deltascene.pipeline.drawing.overlay import OverlayPictures, draw_overlay
    from deltascene.pipeline.workers.overlay_piece import has_pieces, join_pieces

    job = finish_job.job
    parts = {start: job.files.part(start) for start in finish_job.starts}
    pictures = OverlayPictures(job.id, job.kinds, job.attributes)
    if has_pieces(pictures, parts.values()):
        yield from join_pieces(path, pictures, parts, video)
        return
    with open_source(job.config.source, job.spec, info=job.info) as frames:
        yield from draw_overlay(path, video, frames)


def _rate(pts_s: NDArray[np.float64], info: SourceInfo) -> float:
    """Processed frames per second of the source."""
    spread = float(pts_s[-1] - pts_s[0])
    return (len(pts_s) - 1) / spread if spread > 0 else float(info.fps)
