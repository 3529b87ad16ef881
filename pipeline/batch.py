"""The batch flow: every input, segment by segment, each sealed when it is whole; what is sealed is never done again."""

import json
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from errno import EDQUOT, ENOSPC
from itertools import takewhile
from shutil import disk_usage
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deltascene.cache.errors import CacheError
from deltascene.cache.keys import fingerprint
from deltascene.cache.seal import Seal
from deltascene.pipeline import ledger
from deltascene.pipeline.archives import expected_bytes
from deltascene.pipeline.crew import Crew, Event
from deltascene.pipeline.engine import Engine, selected_frames
from deltascene.pipeline.errors import DeltasceneError, DiskFull, NoPlace, OutputError
from deltascene.pipeline.jobs import ArchiveJob, FrameSummary, Segment, VideoJob, plan_segments, segment_info
from deltascene.pipeline.parts import make_room
from deltascene.pipeline.predictions import assemble
from deltascene.pipeline.resume import archive_key, read_done, sealed_segments, seals_intact, write_done
from deltascene.pipeline.run_folder import (
    RunFolder,
    RunVideo,
    VideoFolder,
    VideoRecord,
    keep_lock,
    write_videos,
)
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

    def frames_lost(self, spec: SourceSpec, frames: int) -> None:
        """A worker was lost; so many frames that were done will be computed again."""

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
        crew: computes with them, here or elsewhere.
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
    crew: Crew
    folder: RunFolder
    key: Mapping[str, Any]
    token: str
    events: Events
    stop: Stop = field(default_factory=Stop)
    draw: Callable[[RunVideo, SourceSpec, Callable[[str, float], None]], None] | None = None
    archive_budget: int | None = None
    archived: int = 0
    over_budget: bool = False

    @property
    def archive_left(self) -> int | None:
        """Bytes that archives may still take; None is any."""
        return None if self.archive_budget is None else max(0, self.archive_budget - self.archived)


@dataclass(slots=True)
class _UnderWay:
    """A video that is being computed.

    Attributes:
        spec: the source.
        job: what the parts know of it.
        identity: of its bytes.
        cause: `truncated` if it ends before its header says, else empty.
        segments: all of them.
        seals: of those that are finished, by start.
    """

    spec: SourceSpec
    job: VideoJob
    identity: str
    cause: str
    segments: Sequence[Segment]
    seals: dict[int, Seal]

    @property
    def complete(self) -> bool:
        """Whether every segment is finished."""
        return len(self.seals) == len(self.segments)

    @property
    def prefix(self) -> list[Seal]:
        """Seals from the start up to the first gap."""
        started = takewhile(lambda segment: segment.start in self.seals, self.segments)
        return [self.seals[segment.start] for segment in started]


def run_batch(run: BatchRun, specs: Sequence[SourceSpec]) -> list[VideoRecord]:
    """Processes inputs, as many at once as there are lanes; one that fails doesn't stop the rest.

    Returns:
        One record per input that was reached, in order.

    Raises:
        DiskFull: no room left; what was finished is sealed.
        NoPlace: the cluster has no room for any lane any more; what was finished is sealed.
        OutputError: an input's earlier results were made from other bytes.
    """
    run.folder.errors_jsonl.unlink(missing_ok=True)
    run.crew.archive(run.archive_left != 0)
    waiting, under_way, records = deque(specs), dict[str, _UnderWay](), dict[str, VideoRecord]()

    def ended(record: VideoRecord, reused: bool = False) -> None:
        run.events.video_ended(record, reused=reused)
        records[record.id] = record
        write_videos(run.folder, [records[spec.id] for spec in specs if spec.id in records])

    while True:
        while waiting and not run.stop.asked and run.crew.waiting() < run.crew.lanes:
            spec = waiting.popleft()
            with _failing(run, spec, ended):
                _begin_video(run, spec, under_way, ended)
        if run.stop.asked:
            run.crew.drop()
        event = run.crew.next()
        if event is not None:
            _take_in(run, event, under_way, ended)
        elif run.stop.asked or not waiting:
            break
    for video in under_way.values():  # stopped before their end
        ended(_assembled(video))
    return [records[spec.id] for spec in specs if spec.id in records]


def _begin_video(
    run: BatchRun, spec: SourceSpec, under_way: dict[str, _UnderWay], ended: Callable[[VideoRecord, bool], None]
) -> None:
    """Gives out an input's segments, or ends it if there is nothing to compute.

    Raises:
        SourceError: it can't be read.
        StageError: its frames are smaller than one patch.
        OutputError: its earlier results were made from other bytes.
    """
    config, files = run.engine.config, run.folder.video(spec.id)
    identity_now = identity(spec, config.run.verify == "full")
    if (done := read_done(files, identity_now)) is not None and seals_intact(files, done.frames):
        ended(done, True)
        return
    how = config.source
    info = probe(spec, decoder=how.decoder, fps=how.fps, timeout_s=how.timeout_s)
    wanted = selected_frames(config.source, info)
    if not wanted:
        raise UnreadableSource(
            f"{spec.path}: expected frames between --start and --end; it is {info.duration_s:.1f} s long"
        )
    key = fingerprint({**run.key, "input": identity_now, "decoder": info.decoder})
    job = plan_job(run, spec, info, len(wanted), key, identity_now)
    segments = plan_segments(wanted, config.segment.frames)
    seals = sealed_segments(files, key, segments)
    cause = "truncated" if info.truncated and wanted.stop >= info.frames else ""
    video = _UnderWay(spec, job, identity_now, cause, segments, seals)
    left = [segment for segment in segments if segment.start not in seals]
    frames = sum(segment.frames for segment in left)
    make_room(job)
    _refuse_too_large(run, job, frames)
    estimate = _archive_estimate(run, job, frames)
    run.events.video_started(spec, job.frames, job.frames - frames, estimate)
    if video.complete:
        ended(_finish(run, video), False)
        return
    under_way[spec.id] = video
    run.crew.add(job, left)


def _take_in(
    run: BatchRun, event: Event, under_way: dict[str, _UnderWay], ended: Callable[[VideoRecord, bool], None]
) -> None:
    """Books what happened to a segment; a video ends with its last one."""
    video, segment = under_way.get(event.task.job.id), event.task.segment
    if video is None:  # its video was given up
        return
    with _failing(run, video.spec, ended, video, under_way):
        if event.lost is not None:
            run.events.frames_lost(video.spec, event.lost)
        if event.error is not None:
            raise event.error
        if event.done is None:
            return
        for frame in event.done.frames:
            run.events.frame_done(video.spec, frame)
        if event.done.seal is None:
            return
        keep_lock(run.folder)
        video.seals[segment.start] = event.done.seal
        run.archived += event.done.archived
        run.crew.archive(run.archive_left != 0)
        beyond = run.archive_budget is not None and run.archived > run.archive_budget
        run.over_budget |= beyond or (video.job.archive is not None and not segment.archived)
        if video.complete:
            del under_way[video.job.id]
            ended(_finish(run, video), False)


@contextmanager
def _failing(
    run: BatchRun,
    spec: SourceSpec,
    ended: Callable[[VideoRecord, bool], None],
    video: _UnderWay | None = None,
    under_way: dict[str, _UnderWay] | None = None,
) -> Iterator[None]:
    """Ends an input that fails; what concerns the whole run is raised.

    Raises:
        DiskFull: no room left.
        NoPlace: no lane left.
        OutputError: an input's earlier results were made from other bytes.
    """
    try:
        yield
        return
    except (OutputError, DiskFull, NoPlace):
        raise
    except (DeltasceneError, StageError, CacheError) as error:
        found: Exception = error
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT):
            raise DiskFull(
                f"{run.folder.root}: no room left on the disk; finished segments are kept, the same command goes on"
            ) from error
        found = error
    if video is not None and under_way is not None:
        run.crew.drop(video.job.id)
        under_way.pop(video.job.id, None)
    ended(_failed(run.folder, spec, found), False)


def plan_job(run: BatchRun, spec: SourceSpec, info: SourceInfo, frames: int, key: str, identity_now: str) -> VideoJob:
    """What the parts need to know of a video.

    Raises:
        StageError: its frames are smaller than one patch.
    """
    engine, model, config = run.engine, run.engine.model, run.engine.config
    geometry = plan_geometry(model, config, (info.height, info.width))
    archive = None
    if config.archive.enabled and model.bundle.entry.archive.blocks:
        archived = archive_key(run.key, model.bundle, identity_now, info.decoder)
        archive = ArchiveJob(segment_info(model, config, geometry.plan, geometry.grid), archived)
    return VideoJob(
        config=config,
        spec=replace(spec, paths=tuple(path.resolve() for path in spec.paths)),
        info=info,
        files=VideoFolder(run.folder.video(spec.id).root.resolve()),
        frames=frames,
        plan=geometry.plan,
        grid=geometry.grid,
        kinds={task: engine.model.bundle.kinds[task] for task in engine.model.tasks},
        base=model.bundle.entry.base,
        key=key,
        token=run.token,
        archive=archive,
    )


def _archive_estimate(run: BatchRun, job: VideoJob, frames: int) -> int:
    """Bytes that its archive will about take; 0 without one."""
    if job.archive is None:
        return 0
    expected, left = expected_bytes(job.config, job.archive.info, frames), run.archive_left
    return expected if left is None else min(expected, left)


def _refuse_too_large(run: BatchRun, job: VideoJob, frames: int) -> None:
    """Says before the work that the disk can't hold even the dense frames' activations.

    Raises:
        DiskFull: so it is.
    """
    if job.archive is None or not frames:
        return
    least, free = expected_bytes(job.config, job.archive.info, frames, moved=0), disk_usage(job.files.root).free
    least = least if run.archive_left is None else min(least, run.archive_left)
    if least > free:
        raise DiskFull(
            f"{job.spec.id}: its archive takes {compact(least, 'B')} or more, {compact(free, 'B')} are free:"
            " choose --no-archive, --archive-budget, or another -o"
        )


def _assembled(video: _UnderWay) -> VideoRecord:
    """A video's record, and what is finished of it made readable."""
    record = assemble_video(video.spec, video.job.info, video.job.files, video.prefix, whole=video.complete)
    status, cause = ("done", video.cause) if video.complete else ("partial", "")
    return replace(record, status=status, cause=cause, identity=video.identity)


def assemble_video(
    spec: SourceSpec, info: SourceInfo, files: VideoFolder, seals: Sequence[Seal], *, whole: bool
) -> VideoRecord:
    """Joins what is sealed from the start on into `frames.parquet` and the readable arrays."""
    record = VideoRecord(spec.id, str(spec.path), "partial")
    if not seals:
        return record
    join_video(files, [seal.start for seal in seals], whole=whole)
    frames = next(iter(ledger.split_tasks(ledger.read_rows(files.frames_parquet)).values()))
    pts_s, valid = frames["pts_s"].to_numpy(), frames["valid"].to_numpy()
    return replace(record, frames=len(pts_s), invalid=len(pts_s) - int(valid.sum()), fps=_rate(pts_s, info))


def join_video(files: VideoFolder, starts: Sequence[int], *, whole: bool = True) -> None:
    """The ledger in one file, and arrays cut to the frames that there are; tasks that were added later included."""
    later = files.added_tasks(starts)
    parts = [files.part(start, task) for task in ("", *later) for start in starts]
    ledger.join_parts(parts, files.frames_parquet)
    by_task = ledger.split_tasks(ledger.read_rows(files.frames_parquet))
    frames = next(iter(by_task.values()))
    kept = {task: rows["predicted"].to_numpy() for task, rows in by_task.items() if (files.predictions / task).is_dir()}
    assemble(files.predictions, frames["index"].to_numpy(), frames["pts_s"].to_numpy(), kept, whole=whole)


def _rate(pts_s: NDArray[np.float64], info: SourceInfo) -> float:
    """Processed frames per second of the source."""
    spread = float(pts_s[-1] - pts_s[0])
    return (len(pts_s) - 1) / spread if spread > 0 else float(info.fps)


class _DrawingStopped(Exception):  # noqa: N818
    """An end was asked for while pictures were drawn; the next run draws them."""


def _finish(run: BatchRun, video: _UnderWay) -> VideoRecord:
    """Makes a video readable, draws what is drawn from results, then marks it as done; stopped in between, it is
    partial."""
    spec, files, record = video.spec, video.job.files, _assembled(video)

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
