"""The batch flow: every input, segment by segment, each sealed when it is whole; what is sealed is never done again."""

import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from errno import EDQUOT, ENOSPC
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deltascene.cache.keys import fingerprint
from deltascene.cache.seal import Seal, write_seal
from deltascene.pipeline import ledger
from deltascene.pipeline.engine import Engine, Stream, open_source
from deltascene.pipeline.errors import DeltasceneError, DiskFull, OutputError
from deltascene.pipeline.model import SceneModel
from deltascene.pipeline.predictions import PredictionWriter, assemble, plan_layout
from deltascene.pipeline.results import FrameResult
from deltascene.pipeline.resume import read_done, sealed_prefix, seals_intact, write_done
from deltascene.pipeline.run_folder import (
    RunFolder,
    RunVideo,
    VideoFolder,
    VideoRecord,
    keep_lock,
    write_videos,
)
from deltascene.pipeline.sources import Reader, SourceInfo, SourceSpec, UnreadableSource, identity, probe
from deltascene.stages.errors import StageError
from deltascene.stages.preprocess import InputPlan
from deltascene.stages.resample import resize_map, to_frame_size
from deltascene.stages.types import Frame


class Events(Protocol):
    """What a run tells while it goes on; the screen, plain lines and `--json` are three listeners."""

    def video_started(self, spec: SourceSpec, frames: int, sealed: int) -> None:
        """An input is opened: frames selected, and how many an earlier run sealed."""

    def frame_done(self, spec: SourceSpec, result: FrameResult, seconds: float) -> None:
        """A frame was computed."""

    def finishing(self, spec: SourceSpec, what: str, share: float) -> None:
        """What is drawn from the results is being written; share of it done, 0 to 1."""

    def video_ended(self, record: VideoRecord, reused: bool) -> None:
        """An input is done, failed or was stopped; `reused`: nothing had to be computed."""


@dataclass
class Stop:
    """Set from outside to end a run after the segment that is being computed."""

    asked: bool = False


@dataclass(frozen=True, slots=True)
class BatchRun:
    """What every step of a run needs.

    Attributes:
        engine: model and config.
        folder: OUT.
        key: what all results depend on, input apart, as flat plain values.
        token: of this writer.
        events: who listens.
        stop: asks for an early end.
        draw: writes pictures of a finished video; None for none.
    """

    engine: Engine
    folder: RunFolder
    key: Mapping[str, Any]
    token: str
    events: Events
    stop: Stop = field(default_factory=Stop)
    draw: Callable[[RunVideo, SourceSpec, Callable[[str, float], None]], None] | None = None


def run_batch(run: BatchRun, specs: Sequence[SourceSpec]) -> list[VideoRecord]:
    """Processes inputs one after another; one that fails doesn't stop the rest.

    Returns:
        One record per input that was reached, in order.

    Raises:
        DiskFull: no room left; what was finished is sealed.
        OutputError: an input's earlier results were made from other bytes.
    """
    folder, records = run.folder, []
    folder.errors_jsonl.unlink(missing_ok=True)
    for spec in specs:
        try:
            record = process_video(run, spec)
        except (OutputError, DiskFull):
            raise
        except (DeltasceneError, StageError) as error:
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
    next_index = seals[-1].next_index if seals else None
    reader = open_source(config.source, spec, start_frame=next_index, info=info)
    sealed = sum(seal.frames for seal in seals)
    if not sealed and not reader.wanted:
        reader.close()
        raise UnreadableSource(
            f"{spec.path}: expected frames between --start and --end; it is {info.duration_s:.1f} s long"
        )
    run.events.video_started(spec, sealed + len(reader.wanted), sealed)
    with reader:
        _process_segments(run, spec, reader, files, seals, key)
    complete = not run.stop.asked or len(reader.wanted) == 0 or seals[-1].next_index > reader.wanted[-1]
    record = _assemble(spec, info, files, seals, "done" if complete else "partial", reader.cause, identity_now)
    if complete:
        record = _finish(run, spec, files, record)
    run.events.video_ended(record, reused=False)
    return record


def _process_segments(
    run: BatchRun, spec: SourceSpec, reader: Reader, files: VideoFolder, seals: list[Seal], key: str
) -> None:
    config, start = run.engine.config, sum(seal.frames for seal in seals)
    stream, writer = run.engine.open_stream(spec.id), None
    files.segments.mkdir(parents=True, exist_ok=True)
    while not run.stop.asked:
        stream.reset()
        frames = timed(islice(reader, config.segment.frames))
        first = next(frames, None)
        if first is None:
            return
        if writer is None:
            writer = _open_writer(run, reader.info, files)
        segment = _Segment(run, spec, stream, writer, start)
        for frame, decode_s in _chained(first, frames):
            segment.add(frame, decode_s)
        seals.append(segment.seal(files, key, config.source.stride))
        start += config.segment.frames
        keep_lock(run.folder)


class _Segment:
    """A segment being computed: its writer and its ledger rows."""

    def __init__(self, run: BatchRun, spec: SourceSpec, stream: Stream, writer: PredictionWriter, start: int) -> None:
        self._run, self._spec, self._stream, self._writer, self._start = run, spec, stream, writer, start
        self._rows: list[dict[str, Any]] = []
        self._frames, self._last_index = 0, -1
        writer.begin_segment(start)

    def add(self, frame: Frame, decode_s: float) -> None:
        """Computes a frame and keeps its results."""
        began = time.perf_counter()
        result = self._stream(frame)
        computed = time.perf_counter()
        values, ages = _stored_values(result, self._run.engine, self._stream)
        _check_size(frame, ages, self._writer.layout.size)
        self._writer.add(values, ages)
        write_s = time.perf_counter() - computed
        self._rows += ledger_rows(result, self._run.engine.model, decode_s, write_s)
        self._frames, self._last_index = self._frames + 1, frame.index
        self._run.events.frame_done(self._spec, result, decode_s + time.perf_counter() - began)

    def seal(self, files: VideoFolder, key: str, stride: int) -> Seal:
        """Writes what is left and seals the segment."""
        written = self._writer.finish_segment()
        part = files.part(self._start)
        ledger.write_rows(part, self._rows)
        about = {
            "start": self._start,
            "frames": self._frames,
            "next_index": self._last_index + stride,
            "fingerprint": key,
            "token": self._run.token,
        }
        return write_seal(files.seal(self._start), files.root, about, [part, *written])


def timed(frames: Iterator[Frame]) -> Iterator[tuple[Frame, float]]:
    """Frames with the seconds that each took to come."""
    while True:
        began = time.perf_counter()
        frame = next(frames, None)
        if frame is None:
            return
        yield frame, time.perf_counter() - began


def ledger_rows(result: FrameResult, model: SceneModel, decode_s: float, write_s: float) -> list[dict[str, Any]]:
    """A frame's ledger rows; shared stages are booked on the base's row."""
    base, rows = model.bundle.entry.base, []
    for task, cost in result.cost.tasks.items():
        seconds = dict(cost.seconds) | ({"decode": decode_s, "write": write_s} if task == base else {})
        rows.append(
            {
                "source": result.frame.source,
                "index": result.index,
                "pts_s": result.pts_s,
                "valid": result.valid,
                "cause": result.cause,
                "task": task,
                "predicted": task in result.predictions,
                "policy": result.policy,
                "reason": result.reason,
                "rows": cost.rows,
                "rows_computed": cost.rows_computed,
                "oldest_s": result.cost.oldest_s,
                "macs_executed": cost.executed.total,
                "macs_dense": cost.dense.total,
                "seconds": sum(seconds.values()),
                **{f"seconds_{stage}": seconds.get(stage, 0.0) for stage in ledger.STAGES},
                "bytes_read": 0,
                "bytes_written": 0,
            }
        )
    return rows


def _chained(first: tuple[Frame, float], rest: Iterator[tuple[Frame, float]]) -> Iterator[tuple[Frame, float]]:
    yield first
    yield from rest


def _open_writer(run: BatchRun, info: SourceInfo, files: VideoFolder) -> PredictionWriter:
    config, model = run.engine.config, run.engine.model
    plan = run.engine.plan((info.height, info.width))
    size = plan.frame_size if config.save.size == "frame" else plan.model_size
    kinds = {task: model.bundle.kinds[task] for task in model.tasks}
    attributes = {
        "fps": float(info.fps) / config.source.stride,
        "frame_size": list(plan.frame_size),
        "model_size": list(plan.model_size),
        "content": list(plan.content),
    }
    return PredictionWriter(files.predictions, plan_layout(kinds, size, config.segment.frames), attributes)


def _stored_values(result: FrameResult, engine: Engine, stream: Stream) -> tuple[dict[str, Any], dict[str, Any]]:
    values = {task: prediction.array for task, prediction in result.predictions.items()}
    ages = {task: prediction.age for task, prediction in result.predictions.items()}
    if engine.config.save.size == "model" or not values:
        return values, ages
    plan: InputPlan = stream.plan
    kinds = {task: prediction.kind for task, prediction in result.predictions.items()}
    return (
        {task: to_frame_size(value, kinds[task], plan) for task, value in values.items()},
        {task: resize_map(age, plan, "nearest") for task, age in ages.items()},
    )


def _check_size(frame: Frame, ages: Mapping[str, Any], size: tuple[int, int]) -> None:
    for age in ages.values():
        if age.shape != size:
            raise StageError(f"frame {frame.index}: expected size {size}, as the first frame; found {age.shape}")


def _assemble(
    spec: SourceSpec,
    info: SourceInfo,
    files: VideoFolder,
    seals: Sequence[Seal],
    status: str,
    cause: str,
    identity_now: str,
) -> VideoRecord:
    """Joins what is sealed into `frames.parquet` and the readable arrays."""
    record = VideoRecord(spec.id, str(spec.path), status, cause, identity=identity_now)
    if not seals:
        return record
    ledger.join_parts([files.part(seal.start) for seal in seals], files.frames_parquet)
    by_task = ledger.split_tasks(ledger.read_rows(files.frames_parquet))
    frames = next(iter(by_task.values()))
    index, pts_s = frames["index"].to_numpy(), frames["pts_s"].to_numpy()
    kept = {task: rows["predicted"].to_numpy() for task, rows in by_task.items() if (files.predictions / task).is_dir()}
    assemble(files.predictions, index, pts_s, kept)
    invalid = len(index) - int(frames["valid"].to_numpy().sum())
    return replace(record, frames=len(index), invalid=invalid, fps=_rate(pts_s, info))


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
