"""The end of a video: finished segments are joined, pictures are drawn from them, and everything goes to its place.

It goes in steps, with a word on each, so that whoever waits can show how far it is, or break it off.
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
    """What is done at a video's end; plain values, so that it can travel.

    Attributes:
        job: the video.
        starts: of its finished segments, from its first one on, without gaps.
        pictures: whether what its config asks for is drawn.
    """

    job: VideoJob
    starts: Sequence[int]
    pictures: bool


@dataclass(frozen=True, slots=True)
class FinishProgress:
    """How far some pictures are: share of them that is drawn, 0 to 1."""

    what: str
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A video that can be read.

    Attributes:
        frames: processed.
        invalid: of these, frames that weren't what the camera saw.
        fps: processed frames per second of the source.
        sums: size and SHA-256 of the arrays' shards, by path below the video's folder.
    """

    frames: int = 0
    invalid: int = 0
    fps: float = 0.0
    sums: Sums | None = None


Steps = Generator[FinishProgress | Finished, None, None]


def finish_video(ending: FinishJob) -> Steps:
    """Makes what is finished of a video readable; the last step is what came of it.

    Raises:
        OutputError: another writer has its folder now.
        EncoderFailed, OSError: pictures can't be written.
        WorkerLost: an encoder was killed.
        SourceError: the source can't be read any more.
    """
    job, joined = ending.job, Finished()
    job.fence.require()
    with scratch(job.files.root) as folder:
        if ending.starts:
            made = assemble(folder, job.files, ending.starts, job.config.segment.frames, job.attributes)
            invalid = len(made.valid) - int(made.valid.sum())
            joined = Finished(len(made.pts_s), invalid, _rate(made.pts_s, job.info), made.files)
        if ending.pictures:
            yield from _draw(ending, joined, folder)
        job.fence.require()
        remove(job.files.predictions)
        publish(folder, job.files)
    yield joined


def draws(save: SaveConfig) -> bool:
    """Whether a run writes pictures of its videos."""
    return save.video or save.png or save.npz


class FinisherPart:
    """Finishes videos in strokes of about a second, so that whoever asks hears of it and may ask for something else."""

    stroke_s = 1.0

    def __init__(self) -> None:
        self._steps: Steps | None = None

    def finish(self, ending: FinishJob, first: bool) -> FinishProgress | Finished:
        """Goes on with a video's end, or begins it; the last answer is what came of it.

        Raises:
            WorkerLost: it wasn't begun here.
        """
        if first:
            self.close()
            self._steps = finish_video(ending)
        if self._steps is None:
            raise WorkerLost(f"{ending.job.id}: what was begun of its end is gone")
        until = time.monotonic() + self.stroke_s
        step = next(self._steps)
        while not isinstance(step, Finished) and time.monotonic() < until:
            step = next(self._steps)
        return step

    def close(self) -> None:
        """Gives up what was begun."""
        if self._steps is not None:
            self._steps.close()
            self._steps = None


def _draw(ending: FinishJob, joined: Finished, folder: Path) -> Iterator[FinishProgress]:
    """Everything that is drawn of a video, beside its arrays in a local folder."""
    from deltascene.pipeline.workers.exports import draw_npz, draw_png

    job, save = ending.job, ending.job.config.save
    record = VideoRecord(job.id, path_text(job.spec.path), "done", frames=joined.frames, fps=joined.fps)
    video = RunVideo(record, VideoFolder(folder))
    if save.video:
        for share in _draw_overlay(folder / job.files.overlay.name, ending, video):
            yield FinishProgress("overlay", share)
    if save.png:
        for share in draw_png(video):
            yield FinishProgress("png", share)
    if save.npz:
        for share in draw_npz(video):
            yield FinishProgress("npz", share)


def _draw_overlay(path: Path, ending: FinishJob, video: RunVideo) -> Iterator[float]:
    """From the pieces that segments were sealed with, or anew where one was made without an overlay."""
    from deltascene.pipeline.drawing.overlay import OverlayPictures, draw_overlay
    from deltascene.pipeline.workers.overlay_piece import has_pieces, join_pieces

    job, parts = ending.job, {start: ending.job.files.part(start) for start in ending.starts}
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
