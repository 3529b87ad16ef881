"""What `deltascene run` does, from the command's values to the exit code."""

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console

from deltascene.cache.places import Place
from deltascene.errors import DeltasceneError, ExitCode
from deltascene.pipeline.batch.archive_plan import expected_bytes, segment_info
from deltascene.pipeline.batch.backfill import plan_backfill, run_backfill
from deltascene.pipeline.batch.batch_run import BatchRun
from deltascene.pipeline.batch.choose_executor import settle_executor
from deltascene.pipeline.batch.events import Events, Stop
from deltascene.pipeline.batch.failed_inputs import failed_inputs
from deltascene.pipeline.batch.flow import run_batch
from deltascene.pipeline.batch.keys import result_key
from deltascene.pipeline.batch.resume import as_begun, claim_folder, refuse_foreign
from deltascene.pipeline.commands.job_table import CAUSES, JobRow, failed_lines, print_table
from deltascene.pipeline.commands.progress import BarEvents, JsonEvents, LineEvents
from deltascene.pipeline.config import Config
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.errors import Stopped, UsageError
from deltascene.pipeline.numerics.settle import settle
from deltascene.pipeline.numerics.threads import describe, seconds_lost
from deltascene.pipeline.report.build import write_report
from deltascene.pipeline.runs.accuracy import Truth, read_truth, write_accuracy
from deltascene.pipeline.runs.archives import archived_bytes
from deltascene.pipeline.runs.folder import RunFolder
from deltascene.pipeline.runs.lock import locked, refuse_busy
from deltascene.pipeline.runs.reader import RunVideo, open_run
from deltascene.pipeline.runs.videos_table import VideoRecord
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import open_source, probe
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.units import compact, count
from deltascene.pipeline.workers.open_pool import open_pool


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Values of the command that aren't config.

    Attributes:
        sources: SOURCE… as typed.
        out: folder of the results.
        force: replace what an earlier run left there.
        dry_run: say what would be done.
        json: one event a line instead of progress.
        truth: an npz for a single input, or a folder with `<id>.truth.npz`.
        allow_code: let a bundle bring its own head class.
        only_failed: of the sources, or of the run in `out` if there are none, do those that failed there.
    """

    sources: Sequence[str]
    out: Place
    force: bool = False
    dry_run: bool = False
    json: bool = False
    truth: Path | None = None
    allow_code: bool = False
    only_failed: bool = False


def run_command(config: Config, options: RunOptions, console: Console) -> int:
    """Runs everything; returns the exit code.

    Raises:
        DeltasceneError: with its own exit code, before or instead of results.
    """
    if options.only_failed:
        specs = failed_inputs(options.out, options.sources)
        if not specs:
            return _none_failed(options, console)
    else:
        specs = find_sources(options.sources)
    truths = {spec.id: _truth_of(spec, options.truth, len(specs)) for spec in specs} if options.truth else {}
    folder = RunFolder(options.out)
    if not options.dry_run:
        refuse_busy(folder.root)
    config = config if options.force else as_begun(folder, config)
    if options.dry_run:
        return _dry_run(Engine.from_config(config, allow_code=options.allow_code), specs, console)
    config, model = settle_executor(settle(config), specs, allow_code=options.allow_code)
    lost_s = seconds_lost()
    if lost_s:
        print(f"note: {describe(lost_s)}", file=sys.stderr)
    events = _events(options.json, console, len(specs))
    if not options.force:
        refuse_foreign(folder)
    with locked(folder.root) as fence, stoppable(config.segment.frames) as stop:
        key = result_key(config, model)
        claim_folder(folder, config, key, force=options.force)
        budget = None if config.archive.budget_gb is None else round(config.archive.budget_gb * 1e9)
        began = time.perf_counter()
        if config.run.executor == "ray" and not options.json:
            console.print("Ray: workers start", highlight=False)
        with ThreadPoolExecutor(1) as aside:
            pool = open_pool(model, config, allow_code=options.allow_code)
            try:
                for note in pool.notes:
                    print(f"note: {note}", file=sys.stderr)
                if config.run.executor == "ray":
                    events.workers_ready(pool.workers, time.perf_counter() - began)
                run = BatchRun(model, config, pool, folder, key, fence, events, stop, budget)
                run.archived = archived_bytes(folder)
                with events.progress if isinstance(events, BarEvents) else nullcontext():
                    records = run_batch(run, specs)
            finally:
                closed = aside.submit(pool.close)  # actors end while the report is written
            _score(folder, records, truths)
            write_report(open_run(options.out))
            closed.result()
    return _summary(options, run, records, console, len(specs))


def backfill_command(
    out: Place,
    task: str,
    model: str | None,
    console: Console,
    *,
    as_json: bool = False,
    other_numerics: bool = False,
    allow_code: bool = False,
) -> int:
    """What `deltascene backfill` does; returns the exit code.

    Raises:
        DeltasceneError: with its own exit code, before results.
    """
    plan = plan_backfill(out, task, model, other_numerics=other_numerics, allow_code=allow_code)
    events = _events(as_json, console, sum(len(video) > 0 for video in plan.run.videos))
    with stoppable() as stop, events.progress if isinstance(events, BarEvents) else nullcontext():
        records = run_backfill(plan, events, stop)
    write_report(open_run(out))
    failed = [record for record in records if record.status == "failed"]
    unfinished = [record.id for record in records if record.status == "partial"]
    code = exit_code(stopped=bool(stop.asked and unfinished), failed=bool(failed))
    if as_json:
        JsonEvents().say("backfill_ended", out=str(out), task=task, exit_code=code)
        return code
    done = sum(record.status == "done" for record in records)
    console.print(f"{task}: {done} of {len(records)} videos done", markup=False, highlight=False)
    if unfinished:
        again = "finish the run, then the same command goes on"
        console.print(f"partial: {', '.join(unfinished)}; {again}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        console.print(f"failed:\n{failed_lines(failed)}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"report: {out / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
    return code


def exit_code(*, stopped: bool, failed: bool, over_budget: bool = False) -> ExitCode:
    """How a command over many inputs ends."""
    if stopped:
        return ExitCode.STOPPED
    if failed:
        return ExitCode.INPUT_FAILED
    return ExitCode.BUDGET_REACHED if over_budget else ExitCode.OK


@contextmanager
def stoppable(segment_frames: int | None = None) -> Iterator[Stop]:
    """First Ctrl-C (or SIGTERM) asks for an end after the open segments; the second stops at once.

    Args:
        segment_frames: most frames of one, to be told.

    Raises:
        Stopped: the second came.
    """
    stop, size = Stop(), f", up to {segment_frames} frames each," if segment_frames else ""

    def asked(number: int, _frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        text = f"stopping when the open segments{size} are whole; once more stops at once, and they are computed again"
        print(f"\n{text}", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except KeyboardInterrupt:
        raise Stopped("stopped at once; finished segments are kept, the same command goes on") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _events(as_json: bool, console: Console, inputs: int) -> Events:
    if as_json:
        return JsonEvents(inputs=inputs)
    return BarEvents(console, inputs) if console.is_terminal else LineEvents(sys.stdout, inputs)


def _none_failed(options: RunOptions, console: Console) -> int:
    if options.json:
        JsonEvents().say("run_ended", out=str(options.out), exit_code=ExitCode.OK, failed=[])
        return ExitCode.OK
    which = "none of these inputs failed in it" if options.sources else "none of its inputs failed"
    console.print(f"{options.out}: {which}; nothing to do", markup=False, highlight=False, soft_wrap=True)
    return ExitCode.OK


def _truth_of(spec: SourceSpec, truth: Path, inputs: int) -> Truth | None:
    if truth.is_dir():
        path = truth / f"{spec.id}.truth.npz"
        if not path.is_file():
            raise UsageError(f"--truth: expected {path}; found no such file")
        return read_truth(path)
    if inputs > 1:
        raise UsageError(f"--truth: expected a folder with <id>.truth.npz for {inputs} inputs; found {truth}")
    if not truth.is_file():
        raise UsageError(f"--truth: no such file: {truth}")
    return read_truth(truth)


def _score(folder: RunFolder, records: Sequence[VideoRecord], truths: dict[str, Truth | None]) -> None:
    for record in records:
        truth = truths.get(record.id)
        if truth is not None and record.frames:
            write_accuracy(RunVideo(record, folder.video(record.id)), truth)


def _dry_run(engine: Engine, specs: Sequence[SourceSpec], console: Console) -> int:
    config, frames, seconds, pixels, archived = engine.config, 0, 0.0, 0, 0
    for spec in specs:
        try:
            how = config.source
            info = probe(spec, decoder=how.decoder, fps=how.fps, timeout_s=how.timeout_s)
            with open_source(config.source, spec, info=info) as reader:
                selected = len(reader.wanted)
            plan = engine.plan((info.height, info.width))
        except DeltasceneError as error:
            console.print(f"{spec.id}: {error}", markup=False, highlight=False)
            continue
        size = plan.frame_size if config.save.size == "frame" else plan.model_size
        frames, pixels = frames + selected, pixels + selected * size[0] * size[1]
        if config.archive.enabled and engine.model.bundle.entry.archive.blocks:
            segment = segment_info(engine.model, config, plan, engine.model.backbone.grid(plan.model_size))
            archived += expected_bytes(config, segment, selected)
        seconds += selected * _frame_seconds(engine, (info.height, info.width))
        console.print(
            f"{spec.id}: {selected} frames of {info.width}x{info.height}, {info.decoder}", markup=False, highlight=False
        )
    gigabytes = pixels * _bytes_per_pixel(engine) / 1e9
    if archived:
        console.print(f"archive: about {compact(archived, 'B')} before compression (--no-archive leaves it out)")
    console.print(
        f"{len(specs)} inputs, {frames} frames: about {seconds / 60:.1f} min on this machine (one measured frame each),"
        f" at most {gigabytes:.2f} GB of predictions before compression",
        highlight=False,
    )
    return ExitCode.OK


def _frame_seconds(engine: Engine, frame_size: tuple[int, int]) -> float:
    import numpy as np

    stream = engine.open_stream("dry-run")
    stream(np.zeros((*frame_size, 3), np.uint8))  # warms up
    return stream(np.full((*frame_size, 3), 255, np.uint8)).cost.seconds


def _bytes_per_pixel(engine: Engine) -> int:
    import numpy as np

    kinds = (engine.model.bundle.kinds[task] for task in engine.model.tasks)
    return sum(np.dtype(kind.stored.dtype).itemsize * kind.components for kind in kinds)


def _summary(options: RunOptions, run: BatchRun, records: Sequence[VideoRecord], console: Console, inputs: int) -> int:
    failed = [record for record in records if record.status == "failed"]
    unfinished = len(records) < inputs or any(record.status == "partial" for record in records)
    code = exit_code(stopped=run.stop.asked and unfinished, failed=bool(failed), over_budget=run.over_budget)
    if options.json:
        about = {"exit_code": code, "failed": [record.id for record in failed], "inputs": inputs}
        done = sum(record.status == "done" for record in records)
        work = {"computed": sum(record.computed for record in records), "retries": _retries(records)}
        JsonEvents().say("run_ended", out=str(options.out), **about, done=done, **work)
        return code
    folder = RunFolder(options.out)
    print_table([JobRow(record) for record in records], console, folder.videos_parquet)
    _print_accuracy(options.out, records, console)
    console.print(_done_line(records, inputs, stopped=code == ExitCode.STOPPED), highlight=False, soft_wrap=True)
    if run.over_budget:
        console.print(
            f"the archive's budget was reached: it takes {compact(run.archived, 'B')}; segments after that have"
            " predictions only",
            highlight=False,
        )
    if failed:
        console.print(
            f"failed ({folder.errors_jsonl}):\n{failed_lines(failed)}", markup=False, highlight=False, soft_wrap=True
        )
    console.print(f"report: {options.out / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
    for record in records if len(records) <= 5 else ():
        overlay = folder.video(record.id).overlay
        if overlay.is_file():
            console.print(f"overlay: {overlay}", markup=False, highlight=False, soft_wrap=True)
    return code


def _done_line(records: Sequence[VideoRecord], inputs: int, *, stopped: bool) -> str:
    """What came of a run, in a line."""
    done = sum(record.status == "done" for record in records)
    invalid, retries = sum(record.invalid for record in records), _retries(records)
    return (
        f"{done} of {inputs} inputs done, {sum(record.frames for record in records)} frames"
        + (f", {invalid} of them invalid" if invalid else "")
        + (f"; {count(retries, 'segment')} done again after a worker was lost" if retries else "")
        + ("; stopped: the same command goes on" if stopped else "")
    )


def _retries(records: Sequence[VideoRecord]) -> int:
    return sum(record.retries for record in records)


def _print_accuracy(out: Place, records: Sequence[VideoRecord], console: Console) -> None:
    for record in records[:CAUSES]:
        numbers = RunVideo(record, RunFolder(out).video(record.id)).accuracy
        if numbers is None:
            continue
        console.print(f"accuracy of {record.id} against truth:", markup=False, highlight=False)
        for task, metrics in numbers.items():
            console.print(
                f"  {task}: " + ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()),
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
