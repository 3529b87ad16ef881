"""The batch flow: every input, segment by segment, each sealed when it is whole; what is sealed is never done again."""

import json
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from errno import EDQUOT, ENOSPC
from itertools import takewhile
from typing import Any

from deltascene.cache.keys import fingerprint
from deltascene.cache.places import absolute, free_bytes, remove
from deltascene.cache.seal import Seal
from deltascene.errors import DeltasceneError
from deltascene.pipeline.batch.archive_plan import expected_bytes, segment_info
from deltascene.pipeline.batch.events import Events, Stop
from deltascene.pipeline.batch.keys import archive_key
from deltascene.pipeline.batch.resume import require_same_input, sealed_segments
from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.engine.step import grid_of
from deltascene.pipeline.errors import DiskFull, NoCapacity, OutputError
from deltascene.pipeline.runs.done import Done, intact, read_done, write_done
from deltascene.pipeline.runs.folder import RunFolder, VideoFolder
from deltascene.pipeline.runs.links import refuse_links
from deltascene.pipeline.runs.lock import Fence
from deltascene.pipeline.runs.videos_table import VideoRecord, VideosTable
from deltascene.pipeline.sources.errors import UnreadableSource
from deltascene.pipeline.sources.identity import Identity, identity
from deltascene.pipeline.sources.info import SourceInfo
from deltascene.pipeline.sources.reader import probe, selected_frames
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.text import one_line, path_text, printable
from deltascene.pipeline.units import compact
from deltascene.pipeline.workers.finish import Finished, FinishJob, FinishProgress, draws, finish_video
from deltascene.pipeline.workers.jobs import ArchiveJob, Segment, VideoJob, plan_segments
from deltascene.pipeline.workers.pool import WorkerPool, WorkEvent

LONGEST_CAUSE = 2000  # letters


@dataclass(slots=True)
class BatchRun:
    """What every step of a run needs.

    Attributes:
        model: its description and shapes; weights are only where it computes.
        config: resolved config.
        crew: computes with them, here or elsewhere.
        folder: OUT.
        key: what all results depend on, input apart, as flat plain values.
        fence: of this writer.
        events: who listens.
        stop: asks for an early end.
        archive_budget: bytes that archived activations of the whole run may take; None is any.
        archived: bytes that they take by now.
        over_budget: a segment wasn't archived because the budget was reached.
    """

    model: SceneModel
    config: Config
    crew: WorkerPool
    folder: RunFolder
    key: Mapping[str, Any]
    fence: Fence
    events: Events
    stop: Stop = field(default_factory=Stop)
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
        identity: all that is known of its content.
        cause: `truncated` if it ends before its header says, else empty.
        segments: all of them.
        seals: of those that are finished, by start.
        began_s: when a lane took its first segment, on the clock `time.perf_counter`; None before that.
        computed: frames computed since then.
        retries: how often a segment was done again because a worker was lost.
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
    def complete(self) -> bool:
        """Whether every segment is finished."""
        return len(self.seals) == len(self.segments)

    @property
    def prefix(self) -> list[Seal]:
        """Seals from the start up to the first gap."""
        started = takewhile(lambda segment: segment.start in self.seals, self.segments)
        return [self.seals[segment.start] for segment in started]

    @property
    def ending(self) -> FinishJob:
        """Its end."""
        return FinishJob(self.job, [seal.start for seal in self.prefix], draws(self.job.config.save))

    @property
    def so_far(self) -> dict[str, Any]:
        """What its row says of the work on it."""
        seconds = 0.0 if self.began_s is None else time.perf_counter() - self.began_s
        return {
            "retries": self.retries,
            "seconds": seconds,
            "computed": self.computed,
            "selected": self.job.frames,
        }

    def book(self, event: WorkEvent) -> None:
        """Counts what an event says was done, done in vain, or done again."""
        taken = event.task.taken_s
        self.began_s = taken if self.began_s is None else min(self.began_s, taken)
        if event.lost is not None and isinstance(event.task.work, Segment):
            self.retries += 1
            self.computed -= event.lost
        if event.done is not None:
            self.computed += len(event.done.frames)


def run_batch(run: BatchRun, specs: Sequence[SourceSpec]) -> list[VideoRecord]:
    """Processes inputs, as many at once as there are lanes; one that fails doesn't stop the rest.

    Returns:
        One record per input that was reached, in order.

    Raises:
        DiskFull: no room left; what was finished is sealed.
        NoCapacity: the cluster has no room for any lane any more; what was finished is sealed.
        OutputError: an input's earlier results were made from other bytes.
    """
    run.folder.errors_jsonl.unlink(missing_ok=True)
    run.crew.archive(run.archive_left != 0)
    records = dict[str, VideoRecord]()
    inputs = [VideoRecord(spec.id, path_text(spec.path), "waiting") for spec in specs]
    with VideosTable(run.folder.videos_parquet, inputs) as table:

        def ended(record: VideoRecord, reused: bool = False) -> None:
            run.events.video_ended(record, reused=reused)
            records[record.id] = record
            table.put(record)

        _run_all(run, specs, table, ended)
    return [records[spec.id] for spec in specs if spec.id in records]


def _run_all(
    run: BatchRun, specs: Sequence[SourceSpec], table: VideosTable, ended: Callable[[VideoRecord, bool], None]
) -> None:
    """Every input from its begin to its end, or until a stop is asked for."""
    waiting, under_way = deque(specs), dict[str, _UnderWay]()
    while True:
        while waiting and not run.stop.asked and run.crew.waiting() < run.crew.lanes:
            spec = waiting.popleft()
            with _failing(run, spec, ended):
                _begin_video(run, spec, under_way, ended)
            table.keep({id_: video.so_far for id_, video in under_way.items()})
        if run.stop.asked:
            run.crew.drop()
        event = run.crew.next()
        if event is not None:
            _take_in(run, event, under_way, ended)
            table.keep({id_: video.so_far for id_, video in under_way.items()})
        elif run.stop.asked or not waiting:
            break
    for video in under_way.values():  # stopped before their end
        ended(_stopped(run, video), False)


def _begin_video(
    run: BatchRun, spec: SourceSpec, under_way: dict[str, _UnderWay], ended: Callable[[VideoRecord, bool], None]
) -> None:
    """Gives out an input's segments, or ends it if there is nothing to compute.

    Raises:
        SourceError: it can't be read.
        StageError: its frames are smaller than one patch.
        OutputError: its earlier results were made from other bytes.
    """
    config, files = run.config, run.folder.video(spec.id)
    refuse_links(files.root, below=True)
    now = identity(spec, config.run.verify == "full")
    if (done := read_done(files)) is not None:
        known = require_same_input(files, done, spec, now)
        if intact(files, done):
            _keep_done(run, files, done, known)
            ended(known.record, True)
            return
        remove(files.done)
    how = config.source
    info = probe(spec, decoder=how.decoder, fps=how.fps, timeout_s=how.timeout_s)
    wanted = selected_frames(config.source, info)
    if not wanted:
        raise UnreadableSource(
            f"{spec.path}: expected frames between --start and --end; it is {info.duration_s:.1f} s long"
        )
    job = plan_job(run, spec, info, len(wanted), now)
    segments = plan_segments(wanted, config.segment.frames)
    keys = {job.key, _segment_key(run, now.full, info)} if now.full else {job.key}  # earlier versions took the full one
    seals = sealed_segments(files, keys, segments, now.full)
    full = now.full or next((seal.input_full for seal in seals.values() if seal.input_full), "")
    cause = "truncated" if info.truncated and wanted.stop >= info.frames else ""
    video = _UnderWay(spec, job, Identity(now.quick, full), cause, segments, seals)
    left = [segment for segment in segments if segment.start not in seals]
    frames = sum(segment.frames for segment in left)
    files.root.mkdir(parents=True, exist_ok=True)
    for left_over in (files.root, files.activations):
        remove(left_over / "unfinished")
    _refuse_too_large(run, job, frames)
    estimate = _archive_estimate(run, job, frames)
    run.events.video_started(spec, job.frames, job.frames - frames, estimate)
    under_way[spec.id] = video
    if video.complete:
        run.crew.finish(video.ending)
    else:
        run.crew.add(job, left)


def _take_in(
    run: BatchRun, event: WorkEvent, under_way: dict[str, _UnderWay], ended: Callable[[VideoRecord, bool], None]
) -> None:
    """Books what happened to a segment or to a video's end, which comes after its last segment."""
    video = under_way.get(event.task.job.id)
    if video is None:  # its video was given up
        return
    video.book(event)
    with _failing(run, video.spec, ended, video, under_way):
        if event.lost is not None and isinstance(event.task.work, Segment):
            run.events.frames_lost(video.spec, event.lost)
        if event.error is not None:
            raise event.error
        if isinstance(event.step, FinishProgress):
            run.events.finishing(video.spec, event.step.what, event.step.share)
        if isinstance(event.step, Finished):
            record = _finished(run, video, event.step)
            del under_way[video.job.id]
            ended(record, False)
        if event.done is None:
            return
        for frame in event.done.frames:
            run.events.frame_done(video.spec, frame)
        if event.done.seal is None:
            return
        segment = event.task.segment
        video.seals[segment.start] = event.done.seal
        run.archived += event.done.archived
        run.crew.archive(run.archive_left != 0)
        beyond = run.archive_budget is not None and run.archived > run.archive_budget
        run.over_budget |= beyond or (video.job.archive is not None and not segment.archived)
        if video.complete:
            run.crew.finish(video.ending)


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
        NoCapacity: no lane left.
        OutputError: an input's earlier results were made from other bytes.
    """
    try:
        yield
        return
    except (OutputError, DiskFull, NoCapacity):
        raise
    except DeltasceneError as error:
        found: Exception = error
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT):
            raise DiskFull(
                f"{run.folder.root}: no room left on the disk; finished segments are kept, the same command goes on"
            ) from error
        found = error
    record = _failed(run.folder, spec, found)
    if video is not None and under_way is not None:
        run.crew.drop(video.job.id)
        under_way.pop(video.job.id, None)
        record = replace(record, **video.so_far)
    ended(record, False)


def _keep_done(run: BatchRun, files: VideoFolder, done: Done, known: Done) -> None:
    """Leaves a finished video as it is, but for what is known of its input now and what a killed run left over."""
    if known != done:
        run.fence.require()
        write_done(files, known)
    _tidy(files, [start for start, _ in done.segments])


def _segment_key(run: BatchRun, input_: str, info: SourceInfo) -> str:
    """Fingerprint of all that a video's segments depend on."""
    return fingerprint({**run.key, "input": input_, "decoder": info.decoder})


def plan_job(run: BatchRun, spec: SourceSpec, info: SourceInfo, frames: int, now: Identity) -> VideoJob:
    """What the parts need to know of a video.

    Raises:
        StageError: its frames are smaller than one patch.
    """
    model, config = run.model, run.config
    plan, grid = grid_of(model, config, (info.height, info.width))
    archive = None
    if config.archive.enabled and model.bundle.entry.archive.blocks:
        archived = archive_key(run.key, model.bundle, now.quick, info.decoder)
        archive = ArchiveJob(segment_info(model, config, plan, grid), archived)
    return VideoJob(
        config=config,
        spec=replace(spec, paths=tuple(absolute(path) for path in spec.paths)),
        info=info,
        files=VideoFolder(absolute(run.folder.video(spec.id).root)),
        frames=frames,
        plan=plan,
        grid=grid,
        kinds={task: model.bundle.kinds[task] for task in model.tasks},
        base=model.bundle.entry.base,
        key=_segment_key(run, now.quick, info),
        input_full=now.full,
        fence=run.fence,
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
    least, free = expected_bytes(job.config, job.archive.info, frames, moved=0), free_bytes(job.files.root)
    least = least if run.archive_left is None else min(least, run.archive_left)
    if free is not None and least > free:
        raise DiskFull(
            f"{job.spec.id}: its archive takes {compact(least, 'B')} or more, {compact(free, 'B')} are free:"
            " choose --no-archive, --archive-budget, or another -o"
        )


def _record(video: _UnderWay, joined: Finished, status: str, cause: str) -> VideoRecord:
    """A video's row."""
    about = VideoRecord(
        video.spec.id,
        path_text(video.spec.path),
        status,
        cause,
        frames=joined.frames,
        invalid=joined.invalid,
        fps=joined.fps,
        identity=video.identity.quick,
        identity_full=video.identity.full,
    )
    return replace(about, **video.so_far)


def _finished(run: BatchRun, video: _UnderWay, joined: Finished) -> VideoRecord:
    """Marks a video as done: all of it can be read, and what is drawn from it is there."""
    record = _record(video, joined, "done", video.cause)
    run.fence.require()
    starts = [(seal.start, seal.frames) for seal in video.prefix]
    write_done(video.job.files, Done(record, fingerprint(run.key), starts, joined.sums or {}))
    _tidy(video.job.files, [start for start, _ in starts])
    return record


def _stopped(run: BatchRun, video: _UnderWay) -> VideoRecord:
    """Makes what there is of a video readable when a run ends before it did; the next run draws its pictures."""
    (joined,) = finish_video(replace(video.ending, pictures=False))
    assert isinstance(joined, Finished), "nothing is drawn"
    if not video.complete:
        return _record(video, joined, "partial", "")
    if draws(video.job.config.save):
        return _record(video, joined, "partial", "pictures not drawn yet")
    return _finished(run, video, joined)


def _tidy(files: VideoFolder, starts: Sequence[int]) -> None:
    """Removes what a finished video needs no longer; parts of a task that isn't added to all of it yet stay."""
    for task in ("", *files.added_tasks(starts)):
        for start in starts:
            remove(files.part(start, task))
    for left_over in (files.root, files.activations):
        remove(left_over / "unfinished")
    if files.segments.is_dir() and not any(files.segments.iterdir()):
        remove(files.segments)


def _failed(folder: RunFolder, spec: SourceSpec, error: Exception) -> VideoRecord:
    text = one_line(printable(" ".join(str(error).split())), LONGEST_CAUSE) or type(error).__name__
    with folder.errors_jsonl.open("a", encoding="utf-8") as file:
        trace = printable(traceback.format_exception(error)[-1].strip())
        about = {"id": spec.id, "source": path_text(spec.path), "error": text}
        file.write(json.dumps({**about, "type": type(error).__name__, "trace": trace}) + "\n")
    return VideoRecord(spec.id, path_text(spec.path), "failed", text)
