"""What computes a video, in four parts: a reader, the engine, sub-tasks in places of their own, and a writer.

A part works on spans, runs of frames inside one segment, and hands its result to the next. Parts know nothing of each
other or of where they are: a runner calls them one after the other in this process, or holds each in an actor.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch

from deltascene.cache.seal import write_seal
from deltascene.cache.segment import FrameRecord
from deltascene.cache.store import SegmentWriter
from deltascene.cache.zarr_store import ZarrStore
from deltascene.pipeline import ledger
from deltascene.pipeline.config import Config
from deltascene.pipeline.engine import open_source
from deltascene.pipeline.errors import WorkerLost
from deltascene.pipeline.jobs import (
    FrameSummary,
    Segment,
    Span,
    SpanDone,
    SpanFrames,
    SpanOutputs,
    SpanTask,
    VideoJob,
)
from deltascene.pipeline.model import SceneModel
from deltascene.pipeline.outputs import FrameOutput, StoredForm, TaskOutput, ledger_rows, output_of
from deltascene.pipeline.predictions import Layout, PredictionWriter, create_arrays, plan_layout
from deltascene.pipeline.results import TaskCost
from deltascene.pipeline.sources import Reader
from deltascene.pipeline.step import StreamState, step
from deltascene.pipeline.stopwatch import Stopwatch
from deltascene.pipeline.task_step import TaskState, Turn, receive, step_task, task_cost
from deltascene.stages.age import PatchAges
from deltascene.stages.cost import Macs
from deltascene.stages.errors import StageError
from deltascene.stages.types import Frame, TokenGrid

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


class EnginePart:
    """The base, and every task of its model, on one stream."""

    def __init__(self, model: SceneModel, config: Config, extra_points: tuple[int, ...] = ()) -> None:
        """Takes a loaded model.

        Args:
            model: its tasks are computed here.
            config: resolved config.
            extra_points: splits of sub-tasks that run elsewhere.
        """
        self._model, self._config, self._extra = model, config, extra_points
        self._state = StreamState()

    def run(self, job: VideoJob, read: SpanFrames) -> SpanOutputs:
        """Computes a span.

        Raises:
            StageError: a frame has another size than the first.
        """
        if read.span.first:
            self._state = StreamState()
        points = tuple(sorted({*self._extra, *job.points}))
        return SpanOutputs(read.span, [self._step(job, frame, decode_s, points) for frame, decode_s in read.frames])

    def _step(self, job: VideoJob, frame: Frame, decode_s: float, points: tuple[int, ...]) -> FrameOutput:
        self._state, result = step(self._model, self._config, self._state, frame, points)
        geometry = self._state.geometry
        if geometry is not None and geometry.grid != job.grid:
            raise StageError(
                f"frame {frame.index}: expected size {job.plan.frame_size}, as the first frame;"
                f" found {geometry.plan.frame_size}"
            )
        output = output_of(result, job.form, decode_s)
        if output.record.valid:
            return output
        return replace(output, record=replace(output.record, change=np.zeros(job.grid.patches, np.uint8)))


class TaskPart:
    """One sub-task on what the base hands on: beside the engine, in a place of its own, or from the archive."""

    def __init__(self, model: SceneModel, config: Config) -> None:
        """Takes a model of just this task; its base need not have the blocks below the split."""
        (self.task,) = model.tasks
        self._model, self._config = model, config
        self.reset()

    def reset(self) -> None:
        """A segment starts."""
        self._state = TaskState()
        self._ages: PatchAges | None = None

    def run(self, job: VideoJob, span: Span, records: Sequence[FrameRecord]) -> SpanTask:
        """Computes a span."""
        if span.first:
            self.reset()
        return SpanTask(self.task, [self.step(record, job.grid, job.form).tasks[self.task] for record in records])

    @torch.inference_mode()
    def step(self, record: FrameRecord, grid: TokenGrid, form: StoredForm) -> FrameOutput:
        """One frame, with this task alone."""
        if not record.valid:
            return FrameOutput(record, {self.task: TaskOutput(TaskCost(0, 0, Macs(), Macs(), {}))})
        clock = Stopwatch()
        moment = receive(record, grid, self._ages)
        self._ages = moment.ages
        clock.lap("warp" if moment.where is not None else "head", self.task)
        keep = self._config.policy.reuse
        turn = Turn(self._state, moment, {}, clock)
        [(self._state, prediction)] = step_task(self._model, self.task, [turn], keep=keep)
        output = form.task(prediction, task_cost(self._model, self.task, record, grid, clock.of(self.task)))
        return FrameOutput(record, {self.task: output}, form.age(moment.age), moment.ages.oldest_s(record.pts_s))


class WriterPart:
    """Writes a video's results segment by segment and seals each when it is whole."""

    def __init__(self) -> None:
        self._arrays: PredictionWriter | None = None
        self._archive: SegmentWriter | None = None
        self._rows: list[dict[str, Any]] = []
        self._video = ""
        self._open: tuple[str, int, int] | None = None  # video and segment that the next span goes on with, its frames

    def write(self, job: VideoJob, made: SpanOutputs, others: Sequence[SpanTask]) -> SpanDone:
        """Writes a span.

        Args:
            job: the video.
            made: by the engine.
            others: by sub-tasks elsewhere.

        Raises:
            WorkerLost: a span before it never came: what made it failed, and what follows belongs to no segment.
        """
        segment, done = made.span.segment, self._frames_before(job, made.span)
        self._open = None  # until this span is written
        if made.span.first:
            self._begin(job, segment)
        if made.span.last and done + made.span.frames != segment.frames:
            raise WorkerLost(f"{job.id}: segment {segment.start}: expected {segment.frames} frames; some never came")
        summaries = []
        for place, output in enumerate(made.frames):
            parts = {**output.tasks, **{other.task: other.frames[place] for other in others}}
            order = dict.fromkeys((job.base, *job.kinds))
            summaries.append(self._add(job, replace(output, tasks={task: parts[task] for task in order})))
        if not made.span.last:
            self._open = (job.id, segment.start, done + made.span.frames)
            return SpanDone(summaries)
        return self._seal(job, segment, summaries)

    def close(self) -> None:
        """Gives up what wasn't sealed, and lets go of the video."""
        self._arrays = None
        self._discard()

    def _discard(self) -> None:
        self._open = None
        if self._archive is not None:
            self._archive.discard()
            self._archive = None

    def _frames_before(self, job: VideoJob, span: Span) -> int:
        """Frames of a span's segment that are written.

        Raises:
            WorkerLost: another segment is being written, or none.
        """
        if span.first:
            return 0
        if self._open is None or self._open[:2] != (job.id, span.segment.start):
            raise WorkerLost(f"{job.id}: segment {span.segment.start}: its first frames never came")
        return self._open[2]

    def _begin(self, job: VideoJob, segment: Segment) -> None:
        self._discard()
        job.files.seal(segment.start).unlink(missing_ok=True)  # first: what it speaks of is about to go
        if self._arrays is None or self._video != job.id:
            self._arrays, self._video = PredictionWriter(job.files.predictions, layout_of(job)), job.id
        self._arrays.begin_segment(segment.start)
        self._rows = []
        if job.archive is None or not segment.archived:
            return
        store = ZarrStore(job.files.activations)
        if segment.start in store.starts():
            store.drop(segment.start)  # its predictions were never sealed, or it wouldn't be done again
        self._archive = store.begin(segment.start, job.archive.info, job.archive.key)

    def _add(self, job: VideoJob, output: FrameOutput) -> FrameSummary:
        assert self._arrays is not None
        began = time.perf_counter()
        change = output.record.change.reshape(job.grid.height, job.grid.width)
        self._arrays.add({task: part.stored for task, part in output.tasks.items()}, output.age, change)
        written = time.perf_counter()
        if self._archive is not None:
            kept = {point: output.record.activations[point] for point in job.points}
            self._archive.add(replace(output.record, activations=kept))
        archived = self._archive is not None and len(output.record.rows) > 0
        shared = {"decode": output.decode_s, "write": written - began, "archive": time.perf_counter() - written}
        size = sum(output.record.activations[at].nbytes for at in job.points) if archived else 0
        rows = ledger_rows(output, job.spec.id, job.base, shared, size)
        self._rows += rows
        record = output.record
        seconds = sum(row["seconds"] for row in rows)
        about = (record.index, record.pts_s, record.valid, record.cause, record.policy)
        return FrameSummary(*about, output.macs_executed, output.macs_dense, seconds)

    def _seal(self, job: VideoJob, segment: Segment, summaries: Sequence[FrameSummary]) -> SpanDone:
        assert self._arrays is not None
        archived = 0
        if self._archive is not None:
            archived = self._archive.seal(job.token, segment.next_index).bytes
            self._archive = None
        written = self._arrays.finish_segment()
        part = job.files.part(segment.start)
        ledger.write_rows(part, self._rows)
        about = {
            "start": segment.start,
            "frames": segment.frames,
            "next_index": segment.next_index,
            "fingerprint": job.key,
            "token": job.token,
        }
        seal = write_seal(job.files.seal(segment.start), job.files.root, about, [part, *written])
        return SpanDone(summaries, seal, archived)


def make_room(job: VideoJob) -> None:
    """Makes a video's folders and arrays, for all of its frames, before anybody writes into them."""
    config, form = job.config, job.form
    attributes = {
        "fps": float(job.info.fps) / config.source.stride,
        "frame_size": list(form.plan.frame_size),
        "model_size": list(form.plan.model_size),
        "content": list(form.plan.content),
        "change_threshold": config.change.threshold if config.policy.reuse else None,
    }
    job.files.segments.mkdir(parents=True, exist_ok=True)
    create_arrays(job.files.predictions, layout_of(job), attributes, job.frames)
    if job.archive is not None:
        ZarrStore(job.files.activations).create()


def layout_of(job: VideoJob) -> Layout:
    """Shape of a video's predictions."""
    return plan_layout(job.kinds, job.form.size, job.config.segment.frames, (job.grid.height, job.grid.width))
