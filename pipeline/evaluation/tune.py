"""The search for the cheapest preset that keeps to a budget of quality on a user's own clips.

Candidates are the steps of a ladder: a preset with its times and its price of a dense frame scaled together. They run
from the cheapest on, some at a time, until one keeps to the budget. Where none does, the strictest one is the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import nan
from pathlib import Path
from typing import Literal

from deltascene.pipeline.config import Config, load_config
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.engine.replay import decide_frames
from deltascene.pipeline.errors import OutputError, UsageError
from deltascene.pipeline.evaluation.bounds import MEAN
from deltascene.pipeline.evaluation.clip_scores import REGIONS, Columns
from deltascene.pipeline.evaluation.clip_table import judge
from deltascene.pipeline.evaluation.clips import Clip, open_clip
from deltascene.pipeline.evaluation.excess import Excess, Measured, add_up, compare
from deltascene.pipeline.evaluation.ladder import Step, falling, ladder
from deltascene.pipeline.evaluation.phases import APART, over_phases, phases_of, phases_that_fit, walk_phases
from deltascene.pipeline.evaluation.progress import Progress, unseen
from deltascene.pipeline.evaluation.walk import EXACT, ByEngine, walk
from deltascene.pipeline.numerics.plain_torch import plain_torch
from deltascene.pipeline.numerics.settle import settle
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import probe, read_frames
from deltascene.stages.change import count_rows

Objective = Literal["time", "macs"]

AT_ONCE = 3  # candidates that run side by side, so that their times can be compared
_TRYING = "steps, the cheapest first"


@dataclass(frozen=True, slots=True)
class TuneRequest:
    """Values of `deltascene tune`.

    Attributes:
        sources: clips; truth lies beside all of them as `<stem>.truth.npz`, or beside none.
        out: file for the preset.
        model: packaged bundle, folder or URL.
        budgets: largest loss by region, or excess drift where there is no truth; 0.05 is five percent.
        objective: what is minimised.
        preset: the preset whose steps are tried.
        frames: largest number of frames that are read of each clip.
        phases: number of first frames from which every clip is run.
    """

    sources: Sequence[str]
    out: Path
    model: str
    budgets: Mapping[str, float]
    objective: Objective
    preset: str = "balanced"
    frames: int = 150
    phases: int = 2


@dataclass(frozen=True, slots=True)
class Tried:
    """A step that ran.

    Attributes:
        step: the step.
        loss: by region, 0.05 is five percent: mean loss over the clips, or excess drift where there is no truth; NaN in
            a region in which nothing moves.
        drift: by region, drift with its floor and excess, means over the tasks; None where losses are against truth.
        macs: its MACs as a share of dense prediction's.
        ms: mean time of a frame in milliseconds.
    """

    step: Step
    loss: Mapping[str, float]
    drift: Mapping[str, Excess] | None
    macs: float
    ms: float

    def fits(self, budgets: Mapping[str, float]) -> bool:
        """Whether it keeps to every budget; a region in which nothing moves has no loss."""
        return not any(self.loss[region] > most for region, most in budgets.items())


@dataclass(frozen=True, slots=True)
class Tuned:
    """Result of a search.

    Attributes:
        request: the values it was made for.
        base: the preset that was varied, with settled numerics.
        tried: steps that ran, the strictest first.
        chosen: the best one that keeps to the budgets; the strictest where none does.
        kept: whether it keeps to the budgets.
        by_truth: whether losses are against truth; otherwise they are excess drift.
    """

    request: TuneRequest
    base: Config
    tried: Sequence[Tried]
    chosen: Tried
    kept: bool
    by_truth: bool


@plain_torch()
def tune(request: TuneRequest, progress: Progress = unseen) -> Tuned:
    """Searches for the cheapest step that keeps to the budgets.

    Raises:
        UsageError: only some of the clips have truth, or the preset's rows don't go by time.
        OutputError: the preset's file exists.
        SourceError: a clip can't be read.
    """
    if request.out.exists():
        raise OutputError(f"{request.out}: expected a new file; found one; remove it or give another name")
    paths = [Path(str(spec.path)) for spec in find_sources(request.sources)]
    by_truth = _have_truth(paths)
    engine = Engine.load(request.model, "exact")
    base = settle(load_config(request.preset, values={"model": request.model}))
    steps = ladder(base, max(float(probe(find_sources([str(path)])[0]).fps) for path in paths))
    steps = falling(steps, rows_computed(request, steps, engine, paths, progress))
    dense = settle(load_config("exact", values={"model": request.model}))
    clips = _clips(request, paths, engine, dense, progress) if by_truth else []
    tried: list[Tried] = []
    progress(_TRYING, 0, len(steps))
    for last in range(len(steps), 0, -AT_ONCE):
        group = steps[max(0, last - AT_ONCE) : last]
        if by_truth:
            tried = _against_truth(group, clips, engine, request) + tried
        else:
            tried = _against_dense(group, paths, engine, dense, request) + tried
        progress(_TRYING, len(tried), len(steps))
        if any(each.fits(request.budgets) for each in tried):
            break
    fitting = [each for each in tried if each.fits(request.budgets)]
    chosen = min(fitting, key=lambda each: each.ms if request.objective == "time" else each.macs, default=tried[0])
    return Tuned(request, base, tried, chosen, bool(fitting), by_truth)


@dataclass(frozen=True, slots=True)
class JudgedClip:
    """A clip with its truth, and with the record of dense prediction."""

    clip: Clip
    dense: Columns


def _have_truth(paths: Sequence[Path]) -> bool:
    with_truth = [path.with_name(f"{path.stem}.truth.npz").is_file() for path in paths]
    if any(with_truth) and not all(with_truth):
        lacking = ", ".join(path.name for path, has in zip(paths, with_truth, strict=True) if not has)
        raise UsageError(f"tune: expected <stem>.truth.npz beside every clip or none; found none beside {lacking}")
    return all(with_truth)


def _clips(
    request: TuneRequest, paths: Sequence[Path], engine: Engine, dense: Config, progress: Progress
) -> list[JudgedClip]:
    kinds, found = engine.model.bundle.kinds, list[JudgedClip]()
    progress("dense prediction", 0, len(paths))
    for path in paths:
        clip = open_clip(path, kinds)
        record = walk(clip, kinds, {EXACT: ByEngine(engine.model, dense)}, frames=request.frames)[EXACT]
        found.append(JudgedClip(clip, record))
        progress("dense prediction", len(found), len(paths))
    return found


def rows_computed(
    request: TuneRequest, steps: Sequence[Step], engine: Engine, paths: Sequence[Path], progress: Progress = unseen
) -> list[int]:
    """Number of rows that every step would compute; the model doesn't run."""
    configs, totals = [step.config for step in steps], [0] * len(steps)
    work = "rows of all steps"
    progress(work, 0, len(paths))
    for number, path in enumerate(paths, 1):
        with read_frames(find_sources([str(path)])[0]) as reader:
            for decided in decide_frames(engine.model, configs, islice(reader, request.frames)):
                for place, decision in enumerate(decided.decisions):
                    assert decided.grid is not None
                    totals[place] += count_rows(decision.rows, decided.grid)
        progress(work, number, len(paths))
    return totals


def _against_truth(
    steps: Sequence[Step], clips: Sequence[JudgedClip], engine: Engine, request: TuneRequest
) -> list[Tried]:
    """Runs some steps side by side over all clips."""
    names, kinds = [f"{step.scale:g}" for step in steps], engine.model.bundle.kinds
    records: list[dict[str, Columns]] = []
    for judged in clips:
        starters = {name: partial(ByEngine, engine.model, step.config) for name, step in zip(names, steps, strict=True)}
        dense, phases = judged.dense["classes"], phases_that_fit(judged.clip, request.frames, request.phases)
        walked = walk_phases(judged.clip, kinds, starters, dense, frames=request.frames, phases=phases)
        records.append({**over_phases({EXACT: judged.dense}, [EXACT], phases), **walked})
    tried = []
    for name, step in zip(names, steps, strict=True):
        row = judge(records, name)
        loss = {region: row.loss[region] / 100 for region in REGIONS}
        tried.append(Tried(step, loss, None, row.macs / 100, row.ms))
    return tried


def _against_dense(
    steps: Sequence[Step], paths: Sequence[Path], engine: Engine, dense: Config, request: TuneRequest
) -> list[Tried]:
    """Runs some steps and dense prediction side by side over all clips, from several first frames on."""
    configs, parts = [step.config for step in steps], list[list[Measured]]()
    for path in paths:
        with read_frames(find_sources([str(path)])[0]) as reader:
            phases = phases_of(min(request.frames, len(reader.wanted)), request.phases)
            frames, starts = islice(reader, request.frames), range(0, APART * phases, APART)
            parts.append(compare(engine.model, configs, dense, frames, starts))
    tried = []
    for step, mine in zip(steps, zip(*parts, strict=True), strict=True):
        total = add_up(mine)
        drift = {region: tasks[MEAN] for region, tasks in total.excess(engine.model.bundle.kinds).items()}
        loss = {region: found.excess for region, found in drift.items()}
        ms = 1e3 * total.seconds / total.frames if total.frames else nan
        tried.append(Tried(step, loss, drift, total.macs / max(1, total.macs_dense), ms))
    return tried
