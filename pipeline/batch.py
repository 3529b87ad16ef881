"""The batch flow: every input, segment by segment, each sealed when it is whole; what is sealed is never done again."""

import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from errno import EDQUOT, ENOSPC
from shutil import disk_usage
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deltascene.cache.errors import CacheError
from deltascene.cache.keys import fingerprint
from deltascene.cache.seal import Seal
from deltascene.pipeline import ledger
from deltascene.pipeline.archives import expected_bytes
from deltascene.pipeline.engine import Engine
from deltascene.pipeline.errors import DeltasceneError, DiskFull, OutputError
from deltascene.pipeline.jobs import ArchiveJob, FrameSummary, VideoJob, plan_spans, segment_info
from deltascene.pipeline.predictions import assemble
from deltascene.pipeline.resume import archive_key, read_done, sealed_prefix, seals_intact, write_done
from deltascene.pipeline.run_folder import (
    RunFolder,
    RunVideo,
    VideoFolder,
    VideoRecord,
    keep_lock,
    write_videos,
)
from deltascene.pipeline.runner import Runner, WorkerLost
from deltascene.pipeline.sources import SourceInfo, SourceSpec, UnreadableSource, identity, probe
from deltascene.pipeline.step import plan_geometry
from deltascene.pipeline.units import compact
from deltascene.stages.errors import StageError


class Events(Protocol):
    """What a run tells while it goes on; the screen, plain lines and `--json` are three listeners."""

    def video_started(self, spec: SourceSpec, frames: int, sealed: int, archive: int = 0) -> None:
        """An input is opened: frames selected, how many are sealed already, bytes that its archive will about take."""

    def frame_done(self, spec: SourceSpec, frame: FrameSummary) -> None:
        """A frame was computed and written."""

    def finishing(self, spec: SourceSpec, what: str, share: float) -> None:
        """What is drawn from the results is being written; share of it done, 0 to 1."""

    def video_ended(self, record: VideoRecord, reused: bool) -> None:
        """An input is done, failed or was stopped; `reused`: nothing had to be computed."""


@dataclass
class Stop:
    """Set from outside to end a run after the segment that is being computed."""

    asked: bool = False


@dataclass(slots=True)
class BatchRun:
    """What every step of a run needs.

    Attributes:
        engine: model and config.
        runner: computes with them, here or elsewhere.
        folder: OUT.
        key: what all results depend on, input apart, as flat plain values.
        token: of this writer.
        events: who listens.
        stop: asks for an early end.
        draw: writes pictures of a finished video; None for none.
        archive_budget: bytes that archived activations of the whole run may take; None is any.
        archived: bytes that they take by now.
        over_budget: a segment wasn't archived because the budget was reached.
    """

    engine: Engine
    runner: Runner
    folder: RunFolder
    key: Mapping[str, Any]
    token: str
    events: Events
    stop: Stop = field(default_factory=Stop)
    draw: Callable[[RunVideo, SourceSpec, Callable[[str, float], None]], None] | None = None
    archive_budget: int | None = None
    archived: int = 0
    over_budget: bool = False


def run_batch(run: BatchRun, specs: Sequence[SourceSpec]) -> list[VideoRecord]:
    """Processes inputs one after another; one that fails doesn't stop the rest.

    Returns:
        One record per input that was reached, in order.

    Raises:
        DiskFull: no room left; what was finished is sealed.
        OutputError: an input's earlier results were made from other bytes.
        WorkerLost: an actor is gone; what was finished is sealed.
    """
    folder, records = run.folder, []
    folder.errors_jsonl.unlink(missing_ok=True)
    for spec in specs:
        try:
            record = process_video(run, spec)
        except (OutputError, DiskFull, WorkerLost):
            raise
        except (DeltasceneError, StageError, CacheError) as error:
            record = _failed(folder, spec, error)
        except OSError as error:
            if error.errno in (ENOSPC, EDQUOT):
                raise DiskFull(
                    f"{folder.root}: no room left on the disk; finished segments are kept, the same command goes on"
                ) from error
            record = _failed(folder, spec, error)
        if record.status == "failed":
            run.events.video_ended(record, reused=False)
        records.append(record)
        write_videos(folder, records)
        if run.stop.asked:
            break
    return records


def process_video(run: BatchRun, spec: SourceSpec) -> VideoRecord:
    """One input from its first unsealed segment to its end.

    Raises:
        SourceError: it can't be read.
        StageError: its frames are smaller than one patch.
        OutputError: its earlier results were made from other bytes.
    """
    config, files = run.engine.config, run.folder.video(spec.id)
    identity_now = identity(spec, config.run.verify == "full")
    if (done := read_done(files, identity_now)) is not None and seals_intact(files, done.frames):
        run.events.video_ended(done, reused=True)
        return done
    info = probe(spec, decoder=config.source.decoder, fps=config.source.fps)
    key = fingerprint({**run.key, "input": identity_now, "decoder": info.decoder})
    seals = sealed_prefix(files, key)
    job = plan_job(run, spec, info, seals, key, identity_now)
    wanted = run.runner.open(job)
    try:
        if not job.done_frames and not wanted:
            raise UnreadableSource(
                f"{spec.path}: expected frames between --start and --end; it is {info.duration_s:.1f} s long"
            )
        _refuse_too_large(job, len(wanted))
        run.events.video_started(spec, job.done_frames + len(wanted), job.done_frames, _archive_estimate(job, wanted))
        complete = _process_segments(run, job, wanted, seals)
        cause = run.runner.finish() if complete else ""
    except BaseException:
        run.runner.abandon()
        raise
    if not complete:
        run.runner.abandon()
    record = assemble_video(spec, info, files, seals)
    record = replace(record, status="done" if complete else "partial", cause=cause, identity=identity_now)
    if complete:
        record = _finish(run, spec, files, record)
    run.events.video_ended(record, reused=False)
    return record


def plan_job(
    run: BatchRun, spec: SourceSpec, info: SourceInfo, seals: Sequence[Seal], key: str, identity_now: str
) -> VideoJob:
    """What the parts need to know of a video.

    Raises:
        StageError: its frames are smaller than one patch.
    """
    engine, model, config = run.engine, run.engine.model, run.engine.config
    geometry = plan_geometry(model, config, (info.height, info.width))
    archive = None
    if config.archive.enabled and model.bundle.entry.archive.blocks:
        left = None if run.archive_budget is None else max(0, run.archive_budget - run.archived)
        archived = archive_key(run.key, model.bundle, identity_now, info.decoder)
        archive = ArchiveJob(segment_info(model, config, geometry.plan, geometry.grid), archived, left)
    return VideoJob(
        config=config,
        spec=replace(spec, paths=tuple(path.resolve() for path in spec.paths)),
        info=info,
        files=VideoFolder(run.folder.video(spec.id).root.resolve()),
        first_index=seals[-1].next_index if seals else None,
        done_frames=sum(seal.frames for seal in seals),
        plan=geometry.plan,
        grid=geometry.grid,
        kinds={task: engine.model.bundle.kinds[task] for task in engine.model.tasks},
        base=model.bundle.entry.base,
        key=key,
        token=run.token,
        archive=archive,
    )


def _beyond(run: BatchRun) -> bool:
    """Whether a segment went beyond the archive's budget, which is looked at where segments start."""
    return run.archive_budget is not None and run.archived > run.archive_budget


def _archive_estimate(job: VideoJob, wanted: range) -> int:
    """Bytes that its archive will about take; 0 without one."""
    if job.archive is None:
        return 0
    expected = expected_bytes(job.config, job.archive.info, len(wanted))
    return expected if job.archive.left is None else min(expected, job.archive.left)


def _refuse_too_large(job: VideoJob, frames: int) -> None:
    """Says before the work that the disk can't hold even the dense frames' activations.

    Raises:
        DiskFull: so it is.
    """
    if job.archive is None or not frames:
        return
    least, free = expected_bytes(job.config, job.archive.info, frames, moved=0), disk_usage(job.files.root).free
    least = least if job.archive.left is None else min(least, job.archive.left)
    if least > free:
        raise DiskFull(
            f"{job.spec.id}: its archive takes {compact(least, 'B')} or more, {compact(free, 'B')} are free:"
            " choose --no-archive, --archive-budget, or another -o"
        )


def _process_segments(run: BatchRun, job: VideoJob, wanted: range, seals: list[Seal]) -> bool:
    """Computes what is left; adds to the seals; says whether it came to the end."""
    left = len(wanted)
    spans = plan_spans(left, job.done_frames, job.config.segment.frames, run.runner.span_frames)
    for done in run.runner.run(job, spans):
        for frame in done.frames:
            run.events.frame_done(job.spec, frame)
        if done.seal is not None:
            seals.append(done.seal)
            run.archived += done.archived
            run.over_budget |= done.over_budget or _beyond(run)
            keep_lock(run.folder)
            left -= done.seal.frames
            if run.stop.asked:
                break
    return left == 0


def assemble_video(spec: SourceSpec, info: SourceInfo, files: VideoFolder, seals: Sequence[Seal]) -> VideoRecord:
    """Joins what is sealed into `frames.parquet` and the readable arrays."""
    record = VideoRecord(spec.id, str(spec.path), "partial")
    if not seals:
        return record
    join_video(files, [seal.start for seal in seals])
    frames = next(iter(ledger.split_tasks(ledger.read_rows(files.frames_parquet)).values()))
    pts_s, valid = frames["pts_s"].to_numpy(), frames["valid"].to_numpy()
    return replace(record, frames=len(pts_s), invalid=len(pts_s) - int(valid.sum()), fps=_rate(pts_s, info))


def join_video(files: VideoFolder, starts: Sequence[int]) -> None:
    """The ledger in one file, and arrays cut to the frames that there are; tasks that were added later included."""
    later = files.added_tasks(starts)
    parts = [files.part(start, task) for task in ("", *later) for start in starts]
    ledger.join_parts(parts, files.frames_parquet)
    by_task = ledger.split_tasks(ledger.read_rows(files.frames_parquet))
    frames = next(iter(by_task.values()))
    kept = {task: rows["predicted"].to_numpy() for task, rows in by_task.items() if (files.predictions / task).is_dir()}
    assemble(files.predictions, frames["index"].to_numpy(), frames["pts_s"].to_numpy(), kept)


def _rate(pts_s: NDArray[np.float64], info: SourceInfo) -> float:
    """Processed frames per second of the source."""
    spread = float(pts_s[-1] - pts_s[0])
    return (len(pts_s) - 1) / spread if spread > 0 else float(info.fps)


class _DrawingStopped(Exception):  # noqa: N818
    """An end was asked for while pictures were drawn; the next run draws them."""


def _finish(run: BatchRun, spec: SourceSpec, files: VideoFolder, record: VideoRecord) -> VideoRecord:
    """Draws what is drawn from results, then marks the video as done; stopped in between, it is partial."""

    def drawn(what: str, share: float) -> None:
        keep_lock(run.folder)
        run.events.finishing(spec, what, share)
        if run.stop.asked:
            raise _DrawingStopped

    if run.draw is not None and record.frames:
        try:
            run.draw(RunVideo(record, files), spec, drawn)
        except _DrawingStopped:
            return replace(record, status="partial", cause="pictures not drawn yet")
    write_done(files, record, fingerprint(run.key))
    return record


def _failed(folder: RunFolder, spec: SourceSpec, error: Exception) -> VideoRecord:
    text = " ".join(str(error).split()) or type(error).__name__
    with folder.errors_jsonl.open("a", encoding="utf-8") as file:
        trace = traceback.format_exception(error)[-1].strip()
        file.write(
            json.dumps(
                {"id": spec.id, "source": str(spec.path), "error": text, "type": type(error).__name__, "trace": trace}
            )
            + "\n"
        )
    return VideoRecord(spec.id, str(spec.path), "failed", text)
