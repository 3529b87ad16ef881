"""Writes and seals segments: the last part of a worker."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltascene.cache.places import new_scratch
from deltascene.cache.seal import write_part
from deltascene.cache.store import SegmentWriter
from deltascene.cache.zarr_store import ZarrStore
from deltascene.pipeline.errors import WorkerLost
from deltascene.pipeline.runs import ledger
from deltascene.pipeline.runs.predictions import LEDGER, Layout, PredictionWriter, plan_layout
from deltascene.pipeline.workers.jobs import (
    FrameSummary,
    Segment,
    Span,
    SpanDone,
    SpanFrames,
    SpanOutputs,
    SpanTask,
    VideoJob,
)
from deltascene.pipeline.workers.outputs import FrameOutput, ledger_rows
from deltascene.stages.types import Image

if TYPE_CHECKING:
    from deltascene.pipeline.workers.overlay_piece import OverlayPiece


class WriterPart:
    """Writes a video's results segment by segment and seals each when it is whole."""

    def __init__(self) -> None:
        self._arrays: PredictionWriter | None = None
        self._folder: Path | None = None
        self._archive: SegmentWriter | None = None
        self._piece: OverlayPiece | None = None
        self._rows: list[dict[str, Any]] = []
        self._open: tuple[str, int, int] | None = None  # video, start of the open segment, its frames so far

    def write(
        self, job: VideoJob, made: SpanOutputs, others: Sequence[SpanTask], read: SpanFrames | None = None
    ) -> SpanDone:
        """Writes a span.

        Args:
            job: the video.
            made: the engine's outputs.
            others: outputs of sub-tasks that other parts computed.
            read: the decoded frames, if an overlay is drawn.

        Raises:
            WorkerLost: an earlier span of the segment never came, because a part failed; or the overlay's encoder was
                killed.
            EncoderFailed: the overlay can't be encoded.
            OSError: something can't be written.
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
            image = None if read is None else read.frames[place][0].image
            summaries.append(self._add(job, replace(output, tasks={task: parts[task] for task in order}), image))
        if not made.span.last:
            self._open = (job.id, segment.start, done + made.span.frames)
            return SpanDone(summaries)
        return self._seal(job, segment, summaries)

    def close(self) -> None:
        """Discards a segment that isn't sealed."""
        self._arrays, self._open = None, None
        if self._archive is not None:
            self._archive.discard()
            self._archive = None
        if self._piece is not None:
            self._piece.close()
            self._piece = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _frames_before(self, job: VideoJob, span: Span) -> int:
        """Number of frames of a span's segment that were written before it.

        Raises:
            WorkerLost: another segment is open, or none.
        """
        if span.first:
            return 0
        if self._open is None or self._open[:2] != (job.id, span.segment.start):
            raise WorkerLost(f"{job.id}: segment {span.segment.start}: its first frames never came")
        return self._open[2]

    def _begin(self, job: VideoJob, segment: Segment) -> None:
        self.close()
        job.fence.require()
        self._folder, self._rows = new_scratch(job.files.root, f"{segment.start:08d}"), []
        self._arrays = PredictionWriter(self._folder, layout_of(job), segment.frames)
        if job.config.save.video:
            from deltascene.pipeline.workers.overlay_piece import OverlayPiece

            self._piece = OverlayPiece(self._folder, job)
        if job.archive is None or not segment.archived:
            return
        store = ZarrStore(job.files.activations)
        if segment.start in store.starts():
            store.drop(segment.start)  # its predictions were never sealed, or it wouldn't be done again
        self._archive = store.begin(segment.start, job.archive.info, job.archive.key)

    def _add(self, job: VideoJob, output: FrameOutput, image: Image | None) -> FrameSummary:
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
        if self._piece is not None:
            self._piece.add(output, image, rows, change)
        record = output.record
        seconds = sum(row["seconds"] for row in rows)
        return FrameSummary(
            index=record.index,
            pts_s=record.pts_s,
            valid=record.valid,
            cause=record.cause,
            policy=record.policy,
            macs_executed=output.macs_executed,
            macs_dense=output.macs_dense,
            seconds=seconds,
        )

    def _seal(self, job: VideoJob, segment: Segment, summaries: Sequence[FrameSummary]) -> SpanDone:
        assert self._arrays is not None
        assert self._folder is not None
        self._arrays.flush()
        if self._piece is not None:
            self._piece.finish()
        ledger.write_rows(self._folder / LEDGER, self._rows)
        about = {
            "start": segment.start,
            "frames": segment.frames,
            "next_index": segment.next_index,
            "fingerprint": job.key,
            "token": job.fence.token,
            **({"input_full": job.input_full} if job.input_full else {}),
        }
        job.fence.require()
        archived = 0
        if self._archive is not None:
            archived = self._archive.seal(job.fence.token, segment.next_index).bytes
            self._archive = None
        seal = write_part(self._folder, job.files.part(segment.start), about)
        self.close()
        return SpanDone(summaries, seal, archived)


def layout_of(job: VideoJob) -> Layout:
    """Layout of a video's stored predictions."""
    return plan_layout(job.kinds, job.form.size, job.config.segment.frames, (job.grid.height, job.grid.width))
