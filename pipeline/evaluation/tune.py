"""`deltascene tune`: the cheapest preset that keeps to a budget of quality on a user's own clips.

Candidates differ in how often rows run, in the refresh, and in the threshold of change. The rows that they compute
are known from the pixels alone, without a model; so they are tried from the cheapest on, some at a time, until one
keeps to the budget. What was measured goes into the preset's own file, as comments.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from deltascene.cache.places import write_whole
from deltascene.errors import ExitCode
from deltascene.pipeline.config import Config, load_config
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.engine.replay import decide_frames, in_segments
from deltascene.pipeline.errors import OutputError, UsageError
from deltascene.pipeline.evaluation.clip_scores import MOVING, REGIONS, WHOLE, Columns, add_up, error_of, mean_of_known
from deltascene.pipeline.evaluation.clip_table import judge
from deltascene.pipeline.evaluation.clips import Clip, open_clip
from deltascene.pipeline.evaluation.walk import EXACT, ByEngine, walk
from deltascene.pipeline.numerics.settle import settle
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import read_frames
from deltascene.pipeline.versions import cpu_name
from deltascene.stages.change import count_rows
from deltascene.stages.metrics import moved_region

Objective = Literal["time", "macs"]

EVERY = (1, 2, 3, 4)
REFRESH = (8, 12, 24, 48)
THRESHOLDS = (8.0, 12.0, 18.0)
AT_ONCE = 4  # candidates that walk together, so that their times can be compared
DEGREES = 90.0  # an angle that counts as all wrong against dense prediction
_BUDGET = re.compile(r"(whole|moved)\.loss<=(\d+\.?\d*|\.\d+)")
_REGION = {"whole": WHOLE, "moved": MOVING}


@dataclass(frozen=True, slots=True)
class TuneRequest:
    """What is asked.

    Attributes:
        sources: clips; truth lies beside them as `<stem>.truth.npz`, beside all or none of them.
        out: file for the preset.
        model: packaged bundle, folder or URL.
        budgets: largest loss by region, 0.05 is five percent.
        objective: what is to be least.
        preset: that the candidates vary.
        frames: at most so many of each clip.
    """

    sources: Sequence[str]
    out: Path
    model: str
    budgets: Mapping[str, float]
    objective: Objective
    preset: str = "balanced"
    frames: int = 150


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate that walked.

    Attributes:
        config: its.
        loss: mean over clips, by region; 0.05 is five percent.
        macs: share of dense prediction's.
        ms: mean time of a frame.
    """

    config: Config
    loss: Mapping[str, float]
    macs: float
    ms: float

    def fits(self, budgets: Mapping[str, float]) -> bool:
        """Whether it keeps to every budget; a region in which nothing moves has nothing to lose."""
        return not any(self.loss[region] > most for region, most in budgets.items())


def parse_budgets(texts: Sequence[str]) -> dict[str, float]:
    """`moved.loss<=0.05` and the like.

    Raises:
        UsageError: one is written otherwise.
    """
    budgets = {}
    for text in texts:
        match = _BUDGET.fullmatch(text.replace(" ", ""))
        if match is None:
            raise UsageError(f"--budget: expected whole.loss<=NUMBER or moved.loss<=NUMBER; found {text!r}")
        budgets[_REGION[match[1]]] = float(match[2])
    return budgets


def tune_command(asked: TuneRequest, console: Console) -> int:
    """Searches, shows what was tried, and writes the preset; returns the exit status.

    Raises:
        UsageError: truth beside some of the clips only.
        OutputError: the file is there already.
    """
    if asked.out.exists():
        raise OutputError(f"{asked.out}: expected a new file; found one; remove it or give another name")
    paths = [Path(str(spec.path)) for spec in find_sources(asked.sources)]
    engine = Engine.load(asked.model)
    base = settle(load_config(asked.preset, values={"model": asked.model}))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        clips = list(_clips(asked, paths, engine, bar))
        by_truth = clips[0].by_truth
        costs = rows_computed(asked, base, engine, paths, bar)
        found: list[Tried] = []
        order = sorted(costs, key=lambda place: costs[place])
        candidates = list(_candidates(base))
        trying = bar.add_task("candidates, the cheapest first", total=len(candidates))
        for first in range(0, len(order), AT_ONCE):
            group = order[first : first + AT_ONCE]
            found += _try([candidates[place] for place in group], clips, engine, asked.frames)
            bar.advance(trying, len(group))
            if any(tried.fits(asked.budgets) for tried in found):
                break
    fitting = [tried for tried in found if tried.fits(asked.budgets)]
    chosen = min(fitting, key=lambda tried: tried.ms if asked.objective == "time" else tried.macs, default=None)
    console.print(_table(found, chosen, by_truth))
    if chosen is None:
        console.print(
            f"none of {len(found)} candidates keeps to the budget; nothing was written. Allow more, or run exact.",
            highlight=False,
        )
        return ExitCode.INPUT_FAILED
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(asked.out, _preset(asked, base, chosen, found, by_truth))
    console.print(f"{asked.out}: run it with --config {asked.out}", markup=False, highlight=False, soft_wrap=True)
    return ExitCode.OK


@dataclass(frozen=True, slots=True)
class JudgedClip:
    """A clip, and what dense prediction said of it.

    Attributes:
        clip: with truth, or with dense prediction in its place.
        dense: record of dense prediction.
        by_truth: whether it has truth.
    """

    clip: Clip
    dense: Columns
    by_truth: bool


def _clips(asked: TuneRequest, paths: Sequence[Path], engine: Engine, bar: Progress) -> Iterator[JudgedClip]:
    with_truth = [path.with_name(f"{path.stem}.truth.npz").is_file() for path in paths]
    if any(with_truth) and not all(with_truth):
        lacking = ", ".join(path.name for path, has in zip(paths, with_truth, strict=True) if not has)
        raise UsageError(f"tune: expected <stem>.truth.npz beside every clip or none; found none beside {lacking}")
    kinds, dense = engine.model.bundle.kinds, settle(load_config("exact", values={"model": asked.model}))
    task = bar.add_task("dense prediction", total=len(paths))
    for path, has in zip(paths, with_truth, strict=True):
        clip = open_clip(path, kinds) if has else _dense_as_truth(path, engine, dense, asked.frames)
        record = walk(clip, kinds, {EXACT: ByEngine(engine.model, dense)}, frames=asked.frames)[EXACT]
        yield JudgedClip(clip, record, has)
        bar.advance(task)


def _dense_as_truth(path: Path, engine: Engine, dense: Config, frames: int) -> Clip:
    """What dense prediction says of a clip, in stored form."""
    kinds = engine.model.bundle.kinds
    stream, said = Engine(engine.model, dense).open_stream("dense"), []
    with read_frames(find_sources([str(path)])[0]) as reader:
        for frame in in_segments(islice(reader, frames), stream):
            predictions = stream(frame).predictions
            said.append({task: kinds[task].stored.encode(made.array) for task, made in predictions.items()})
    truth = {task: np.stack([frame[task] for frame in said]) for task in engine.model.tasks}
    names = {kind.name: task for task, kind in reversed(list(kinds.items()))}
    if "classes" not in names:
        raise UsageError("tune: expected a model with a task of classes, which tells what moves; found none")
    classes = truth[names["classes"]]
    numbers = kinds[names["scalar"]].decode(truth[names["scalar"]]) if "scalar" in names else np.zeros(classes.shape)
    moving = np.stack([moved_region(classes, numbers, number) for number in range(len(classes))])
    return Clip(path.stem, path, truth, moving)


def _candidates(base: Config) -> Iterator[Config]:
    for every, refresh, threshold in product(EVERY, REFRESH, THRESHOLDS):
        policy = base.policy.model_copy(update={"every": every, "refresh": refresh})
        change = base.change.model_copy(update={"threshold": threshold})
        yield base.model_copy(update={"policy": policy, "change": change})


def rows_computed(
    asked: TuneRequest, base: Config, engine: Engine, paths: Sequence[Path], bar: Progress
) -> dict[int, int]:
    """Rows that every candidate computes, by its place, from the pixels alone."""
    candidates = list(_candidates(base))
    totals = dict.fromkeys(range(len(candidates)), 0)
    task = bar.add_task("rows of all candidates", total=len(paths))
    for path in paths:
        with read_frames(find_sources([str(path)])[0]) as reader:
            for decided in decide_frames(engine.model, candidates, islice(reader, asked.frames)):
                for place, decision in enumerate(decided.decisions):
                    assert decided.grid is not None
                    totals[place] += count_rows(decision.rows, decided.grid)
        bar.advance(task)
    return totals


def _try(configs: Sequence[Config], clips: Sequence[JudgedClip], engine: Engine, frames: int) -> list[Tried]:
    """Some candidates through all clips, side by side."""
    names, kinds = [f"{place}" for place in range(len(configs))], engine.model.bundle.kinds
    records: list[dict[str, Columns]] = []
    for judged in clips:
        walkers = {name: ByEngine(engine.model, config) for name, config in zip(names, configs, strict=True)}
        walked = walk(judged.clip, kinds, walkers, judged.dense["classes"], frames=frames)
        records.append({EXACT: judged.dense, **walked})
    tried = []
    for name, config in zip(names, configs, strict=True):
        row = judge(records, name)
        if clips[0].by_truth:
            loss = {region: row.loss[region] / 100 for region in REGIONS}
        else:
            loss = {region: _apart([record[name] for record in records], engine, region) for region in REGIONS}
        tried.append(Tried(config, loss, row.macs / 100, row.ms))
    return tried


def _apart(records: Sequence[Columns], engine: Engine, region: str) -> float:
    """Mean over clips and tasks of how far a candidate is from dense prediction."""
    kinds, found = engine.model.bundle.kinds, []
    for record in records:
        for name, sums in add_up(record).items():
            task, _, where = name.partition("/")
            if where == region and task in kinds:
                whole = DEGREES if kinds[task].name == "vector" else 1.0
                found.append(float(error_of(sums)) / whole)
    return float(mean_of_known(np.array(found)))


def _table(found: Sequence[Tried], chosen: Tried | None, by_truth: bool) -> Table:
    against = "loss against truth, more than dense prediction's" if by_truth else "difference to dense prediction"
    table = Table(title=f"{against}; the cheapest first")
    for column in ("every", "refresh", "threshold", "whole %", "moved %", "MACs %", "ms", ""):
        table.add_column(column, justify="right")
    for tried in found:
        table.add_row(*_cells(tried), "chosen" if tried is chosen else "")
    return table


def _cells(tried: Tried) -> list[str]:
    policy, change = tried.config.policy, tried.config.change
    losses = [f"{100 * tried.loss[region]:+z.1f}" for region in (WHOLE, MOVING)]
    settings = [f"{policy.every}", f"{policy.refresh}", f"{change.threshold:g}"]
    return [*settings, *losses, f"{100 * tried.macs:.1f}", f"{tried.ms:.1f}"]


def _preset(asked: TuneRequest, base: Config, chosen: Tried, found: Sequence[Tried], by_truth: bool) -> str:
    """The preset's file, with the evidence as comments."""
    wanted = ", ".join(f"{region} loss at most {100 * most:g} %" for region, most in asked.budgets.items())
    against = "truth, relative to dense prediction" if by_truth else "dense prediction"
    names = ", ".join(Path(str(spec.path)).name for spec in find_sources(asked.sources))
    lines = [
        f"# Tuned by `deltascene tune` for {wanted}; least {asked.objective}; losses against {against}.",
        f"# Clips: {names}; at most {asked.frames} frames of each. Model: {base.model}. Machine: {cpu_name()}.",
        "#",
        "# every  refresh  threshold  whole %  moved %  MACs %      ms",
    ]
    widths = (7, 9, 11, 9, 9, 8, 8)
    for tried in found:
        cells = "".join(f"{cell:>{width}}" for cell, width in zip(_cells(tried), widths, strict=True))
        lines.append(f"#{cells}{'   <- chosen' if tried is chosen else ''}")
    policy, change = chosen.config.policy, chosen.config.change
    lines += [f"extends: {asked.preset}", "policy:", f"  every: {policy.every}", f"  refresh: {policy.refresh}"]
    return "\n".join([*lines, "change:", f"  threshold: {change.threshold}"]) + "\n"
