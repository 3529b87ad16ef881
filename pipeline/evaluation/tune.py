"""The search for the cheapest preset that keeps to a budget of quality on a user's own clips.

Candidates differ in how often rows run, in the refresh, and in the threshold of change. The rows that they compute
are known from the pixels alone, without a model. So the cheapest candidates run first, some at a time, until one keeps
to the budget.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Literal

import numpy as np

from deltascene.pipeline.config import Config, load_config
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.engine.replay import decide_frames, in_segments
from deltascene.pipeline.errors import OutputError, UsageError
from deltascene.pipeline.evaluation.clip_scores import REGIONS, Columns, add_up, error_of, mean_of_known
from deltascene.pipeline.evaluation.clip_table import judge
from deltascene.pipeline.evaluation.clips import Clip, moving_region, open_clip
from deltascene.pipeline.evaluation.phases import over_phases, phases_that_fit, walk_phases
from deltascene.pipeline.evaluation.progress import Progress, unseen
from deltascene.pipeline.evaluation.walk import EXACT, ByEngine, walk
from deltascene.pipeline.numerics.plain_torch import plain_torch
from deltascene.pipeline.numerics.settle import settle
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import read_frames
from deltascene.stages.change import count_rows

Objective = Literal["time", "macs"]

EVERY = (1, 2, 3, 4)
REFRESH = (8, 12, 24, 48)
THRESHOLDS = (8.0, 12.0, 18.0)
AT_ONCE = 4  # candidates that run side by side, so that their times can be compared
DEGREES = 90.0  # an angle that counts as all wrong against dense prediction
_TRYING = "candidates, the cheapest first"


@dataclass(frozen=True, slots=True)
class TuneRequest:
    """Values of `deltascene tune`.

    Attributes:
        sources: clips; truth lies beside all of them as `<stem>.truth.npz`, or beside none.
        out: file for the preset.
        model: packaged bundle, folder or URL.
        budgets: largest loss by region; 0.05 is five percent.
        objective: what is minimised.
        preset: the preset that the candidates vary.
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
    """A candidate that ran.

    Attributes:
        config: its config.
        loss: mean loss over the clips by region; 0.05 is five percent.
        macs: its MACs as a share of dense prediction's.
        ms: mean time of a frame in milliseconds.
    """

    config: Config
    loss: Mapping[str, float]
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
        tried: candidates that ran, those that compute the fewest rows first.
        chosen: the best one that keeps to the budgets; None where none does.
        by_truth: whether losses are against truth; otherwise they are differences from dense prediction.
    """

    request: TuneRequest
    base: Config
    tried: Sequence[Tried]
    chosen: Tried | None
    by_truth: bool


@plain_torch()
def tune(request: TuneRequest, progress: Progress = unseen) -> Tuned:
    """Searches for the cheapest candidate that keeps to the budgets.

    Raises:
        UsageError: only some of the clips have truth.
        OutputError: the preset's file exists.
        SourceError: a clip can't be read.
    """
    if request.out.exists():
        raise OutputError(f"{request.out}: expected a new file; found one; remove it or give another name")
    paths = [Path(str(spec.path)) for spec in find_sources(request.sources)]
    engine = Engine.load(request.model, "exact")
    base = settle(load_config(request.preset, values={"model": request.model}))
    clips = _clips(request, paths, engine, progress)
    costs = rows_computed(request, base, engine, paths, progress)
    order, candidates = sorted(costs, key=lambda place: costs[place]), list(_candidates(base))
    tried: list[Tried] = []
    progress(_TRYING, 0, len(candidates))
    for first in range(0, len(order), AT_ONCE):
        group = order[first : first + AT_ONCE]
        tried += _try([candidates[place] for place in group], clips, engine, request)
        progress(_TRYING, len(tried), len(candidates))
        if any(each.fits(request.budgets) for each in tried):
            break
    fitting = [each for each in tried if each.fits(request.budgets)]
    chosen = min(fitting, key=lambda each: each.ms if request.objective == "time" else each.macs, default=None)
    return Tuned(request, base, tried, chosen, clips[0].by_truth)


@dataclass(frozen=True, slots=True)
class JudgedClip:
    """A clip with the record of dense prediction.

    Attributes:
        clip: the clip with its truth, or with dense prediction in place of truth.
        dense: record of dense prediction.
        by_truth: whether the clip has truth.
    """

    clip: Clip
    dense: Columns
    by_truth: bool


def _clips(request: TuneRequest, paths: Sequence[Path], engine: Engine, progress: Progress) -> list[JudgedClip]:
    with_truth = [path.with_name(f"{path.stem}.truth.npz").is_file() for path in paths]
    if any(with_truth) and not all(with_truth):
        lacking = ", ".join(path.name for path, has in zip(paths, with_truth, strict=True) if not has)
        raise UsageError(f"tune: expected <stem>.truth.npz beside every clip or none; found none beside {lacking}")
    kinds, dense = engine.model.bundle.kinds, settle(load_config("exact", values={"model": request.model}))
    found: list[JudgedClip] = []
    progress("dense prediction", 0, len(paths))
    for path, has in zip(paths, with_truth, strict=True):
        clip = open_clip(path, kinds) if has else _dense_as_truth(path, engine, dense, request.frames)
        record = walk(clip, kinds, {EXACT: ByEngine(engine.model, dense)}, frames=request.frames)[EXACT]
        found.append(JudgedClip(clip, record, has))
        progress("dense prediction", len(found), len(paths))
    return found


def _dense_as_truth(path: Path, engine: Engine, dense: Config, frames: int) -> Clip:
    """A clip with the answers of dense prediction, in stored form, in place of truth."""
    kinds = engine.model.bundle.kinds
    stream, answers = Engine(engine.model, dense).open_stream("dense"), []
    with read_frames(find_sources([str(path)])[0]) as reader:
        fps = float(reader.info.fps)
        for frame in in_segments(islice(reader, frames), stream):
            predictions = stream(frame).predictions
            answers.append({task: kinds[task].stored.encode(made.array) for task, made in predictions.items()})
    truth = {task: np.stack([frame[task] for frame in answers]) for task in engine.model.tasks}
    names = {kind.name: task for task, kind in reversed(list(kinds.items()))}
    if "classes" not in names:
        raise UsageError("tune: expected a model with a task of classes, as its classes show what moves; found none")
    classes = truth[names["classes"]]
    numbers = kinds[names["scalar"]].decode(truth[names["scalar"]]) if "scalar" in names else np.zeros(classes.shape)
    return Clip(path.stem, path, truth, moving_region(classes, numbers, fps))


def _candidates(base: Config) -> Iterator[Config]:
    for every, refresh, threshold in product(EVERY, REFRESH, THRESHOLDS):
        policy = base.policy.model_copy(update={"every": every, "refresh": refresh})
        change = base.change.model_copy(update={"threshold": threshold})
        yield base.model_copy(update={"policy": policy, "change": change})


def rows_computed(
    request: TuneRequest, base: Config, engine: Engine, paths: Sequence[Path], progress: Progress = unseen
) -> dict[int, int]:
    """Number of rows that every candidate would compute, by the candidate's position; the model doesn't run."""
    candidates = list(_candidates(base))
    totals = dict.fromkeys(range(len(candidates)), 0)
    work = "rows of all candidates"
    progress(work, 0, len(paths))
    for number, path in enumerate(paths, 1):
        with read_frames(find_sources([str(path)])[0]) as reader:
            for decided in decide_frames(engine.model, candidates, islice(reader, request.frames)):
                for place, decision in enumerate(decided.decisions):
                    assert decided.grid is not None
                    totals[place] += count_rows(decision.rows, decided.grid)
        progress(work, number, len(paths))
    return totals


def _try(configs: Sequence[Config], clips: Sequence[JudgedClip], engine: Engine, request: TuneRequest) -> list[Tried]:
    """Runs some candidates side by side over all clips."""
    names, kinds = [f"{place}" for place in range(len(configs))], engine.model.bundle.kinds
    records: list[dict[str, Columns]] = []
    for judged in clips:
        starters = {name: partial(ByEngine, engine.model, config) for name, config in zip(names, configs, strict=True)}
        dense, phases = judged.dense["classes"], phases_that_fit(judged.clip, request.frames, request.phases)
        walked = walk_phases(judged.clip, kinds, starters, dense, frames=request.frames, phases=phases)
        records.append({**over_phases({EXACT: judged.dense}, [EXACT], phases), **walked})
    tried = []
    for name, config in zip(names, configs, strict=True):
        row = judge(records, name)
        if clips[0].by_truth:
            loss = {region: row.loss[region] / 100 for region in REGIONS}
        else:
            loss = {region: _difference([record[name] for record in records], engine, region) for region in REGIONS}
        tried.append(Tried(config, loss, row.macs / 100, row.ms))
    return tried


def _difference(records: Sequence[Columns], engine: Engine, region: str) -> float:
    """Mean difference of a candidate from dense prediction in a region, over clips and tasks; 1 is all wrong."""
    kinds, found = engine.model.bundle.kinds, []
    for record in records:
        for name, sums in add_up(record).items():
            task, _, where = name.partition("/")
            if where == region and task in kinds:
                whole = DEGREES if kinds[task].name == "vector" else 1.0
                found.append(float(error_of(sums)) / whole)
    return float(mean_of_known(np.array(found)))
