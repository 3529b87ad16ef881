"""`deltascene run`: runs a model over inputs, writes the report, and prints how it ended."""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from deltascene.cache.places import Place
from deltascene.errors import ExitCode
from deltascene.pipeline.batch.batch_run import BatchRun
from deltascene.pipeline.batch.choose_config import Choice
from deltascene.pipeline.batch.choose_executor import settle_executor
from deltascene.pipeline.batch.failed_inputs import failed_inputs
from deltascene.pipeline.batch.flow import run_batch
from deltascene.pipeline.batch.inputs import find_inputs
from deltascene.pipeline.batch.keys import result_key
from deltascene.pipeline.batch.resume import claim_folder, recorded_key, refuse_foreign, refuse_other
from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.commands.dry_run import dry_run_command
from deltascene.pipeline.commands.max_drift import (
    audited,
    choose_by_pilot,
    needs_pilot,
    paced,
    recorded_pilot,
    tightened,
)
from deltascene.pipeline.commands.progress import JsonEvents, bars_of, choose_events
from deltascene.pipeline.commands.stop import stoppable
from deltascene.pipeline.commands.summary import RunResult, print_json, print_result
from deltascene.pipeline.commands.terminal import print_line
from deltascene.pipeline.commands.truth import read_truths, write_scores
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.evaluation.bounds import Goal
from deltascene.pipeline.evaluation.pilot import plan_pilot
from deltascene.pipeline.numerics.settle import settle
from deltascene.pipeline.numerics.threads import describe, seconds_lost
from deltascene.pipeline.report.build import drift_line, write_report
from deltascene.pipeline.runs.accuracy import Truth
from deltascene.pipeline.runs.archives import archived_bytes
from deltascene.pipeline.runs.folder import RunFolder
from deltascene.pipeline.runs.lock import locked, refuse_busy
from deltascene.pipeline.runs.reader import open_run
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.workers.open_pool import open_pool

_log = logging.getLogger(__name__)

# What is said of the preset that is taken where nobody chose one.
_NOT_CHOSEN = (
    "preset %s, as none was chosen: its mean loss against full compute is at most 1 %% over the whole frame and 5 %%"
    " where something moves, on validation clips with a still camera; --preset exact computes every frame in full"
)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Values of `deltascene run` that aren't config.

    Attributes:
        sources: SOURCE… as typed.
        out: folder of the results.
        force: replace what an earlier run left there.
        dry_run: print what would be done, and do nothing.
        json: print one event a line instead of progress.
        truth: an npz file for a single input, or a folder with `<id>.truth.npz`.
        allow_code: let a bundle import its own head class.
        only_failed: run only those inputs that failed in `out` or were left unfinished there.
        goal: bounds on drift or time, for which a pilot chooses the numbers of the policy.
        tighten: replace the run in `out` by one with the next stricter numbers of its pilot.
    """

    sources: Sequence[str]
    out: Place
    force: bool = False
    dry_run: bool = False
    json: bool = False
    truth: Path | None = None
    allow_code: bool = False
    only_failed: bool = False
    goal: Goal = field(default_factory=Goal)
    tighten: bool = False


def run_command(choice: Choice, options: RunOptions, console: Console) -> ExitCode:
    """Runs the model over all inputs.

    Args:
        choice: resolved config, and how it was chosen.
        options: the other values of the command.
        console: where to print.

    Raises:
        DeltasceneError: the run can't begin or go on; its class has the exit code.
    """
    if options.only_failed:
        specs = failed_inputs(options.out, options.sources)
    else:
        specs = find_inputs(options.out, options.sources, afresh=options.force)
    if options.only_failed and not specs:
        return _none_failed(options, console)
    truths = read_truths(specs, options.truth)
    folder = RunFolder(options.out)
    if not options.dry_run:
        refuse_busy(folder.root)
    if options.tighten:
        choice = tightened(choice, recorded_pilot(folder), options.out)
    if options.dry_run:
        return _dry_run(choice, options, specs, console)
    if not options.force:
        refuse_foreign(folder)
    if needs_pilot(choice, folder, options.goal, force=options.force):
        how = {"allow_code": options.allow_code, "as_json": options.json}
        choice = choose_by_pilot(choice, options.goal, specs, console, **how)
    config, model = settle_executor(settle(choice.config), specs, allow_code=options.allow_code)
    if lost_s := seconds_lost():
        _log.warning("%s", describe(lost_s))
    result = _run(replace(choice, config=config), model, options, specs, truths, console)
    if options.json:
        print_json(result)
    else:
        print_result(console, result)
    return result.exit_code


def _dry_run(choice: Choice, options: RunOptions, specs: Sequence[SourceSpec], console: Console) -> ExitCode:
    engine, folder = Engine.from_config(choice.config, allow_code=options.allow_code), RunFolder(options.out)
    if not options.force and (before := recorded_key(folder)):
        refuse_other(folder, result_key(engine.config, engine.model, before), choice.typed, all_=False)
    if not choice.chosen:
        _log.warning(_NOT_CHOSEN, choice.preset)
    if needs_pilot(choice, folder, options.goal, force=options.force):
        print_line(console, f"pilot for {options.goal}: {plan_pilot(engine.config, specs)}")
    return dry_run_command(engine, specs, console)


def _run(
    choice: Choice,
    model: SceneModel,
    options: RunOptions,
    specs: Sequence[SourceSpec],
    truths: dict[str, Truth],
    console: Console,
) -> RunResult:
    """Computes all inputs, scores them and writes the report, while the folder is locked."""
    folder, config = RunFolder(options.out), choice.config
    with_ray = config.run.executor == "ray"
    events = choose_events(console, len(specs), as_json=options.json)
    with locked(folder.root) as fence, stoppable(config.segment.frames) as stop:
        key = result_key(config, model, {} if options.force else recorded_key(folder))
        claim_folder(folder, choice, key, force=options.force)
        if not choice.chosen:
            _log.warning(_NOT_CHOSEN, choice.preset)
        budget = None if config.archive.budget_gb is None else round(config.archive.budget_gb * 1e9)
        began_s = time.perf_counter()
        if with_ray and not options.json:
            print_line(console, "Ray: workers are starting")
        with ThreadPoolExecutor(1) as aside:
            pool = open_pool(model, config, allow_code=options.allow_code)
            try:
                if with_ray:
                    events.workers_ready(pool.workers, time.perf_counter() - began_s)
                run = BatchRun(model, config, pool, folder, key, fence, events, stop, budget)
                run.archived = archived_bytes(folder)
                with bars_of(events):
                    records = run_batch(run, specs)
            finally:
                closed = aside.submit(pool.close)  # actors end while the report is written
            write_scores(folder, records, truths)
            report, _ = write_report(open_run(options.out))
            bound = [audited(report), paced(report)]
            closed.result()
    drift = "\n".join(line for line in (drift_line(report), *bound) if line)
    return RunResult(options.out, records, len(specs), stop.asked, run.over_budget, run.archived, drift)


def _none_failed(options: RunOptions, console: Console) -> ExitCode:
    if options.json:
        JsonEvents().say("run_ended", out=str(options.out), exit_code=ExitCode.OK, failed=[])
        return ExitCode.OK
    which = "none of these inputs failed in it" if options.sources else "none of its inputs failed"
    print_line(console, f"{options.out}: {which}; nothing to do")
    return ExitCode.OK
