"""`deltascene eval`: models side by side on labelled images, and a preset against dense prediction on clips."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from deltascene.cache.places import write_whole
from deltascene.errors import ExitCode
from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.evaluation.clip_scores import REGIONS, Columns
from deltascene.pipeline.evaluation.clip_table import Judged, judge
from deltascene.pipeline.evaluation.clips import find_clips, open_clip
from deltascene.pipeline.evaluation.images import ImageScores, Interval, gain, intervals, score_images
from deltascene.pipeline.evaluation.tradeoff import Point, plot_tradeoff
from deltascene.pipeline.evaluation.walk import EXACT, ByEngine, walk
from deltascene.pipeline.numerics.settle import settle
from deltascene.pipeline.training.data import LabelledFolder, open_labelled
from deltascene.stages.metrics import METRICS

STL, FROZEN = "single-task", "frozen-shared"


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """What is to be compared.

    Attributes:
        data: labelled folder; None leaves the images out.
        part: of it.
        models: bundles by the name they are shown under.
        stl: bundles of single-task networks, one a task.
        frozen: bundle whose heads sit on the frozen base.
        clips: folder of videos with `<stem>.truth.npz`; None leaves them out.
        preset: compared with dense prediction on the clips.
        frames: at most so many of each clip.
        out: folder for `eval.json` and the picture.
    """

    data: Path | None
    part: str
    models: Mapping[str, str]
    stl: Sequence[str] = ()
    frozen: str | None = None
    clips: Path | None = None
    preset: str = "balanced"
    frames: int = 10_000
    out: Path | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the comparison on images.

    Attributes:
        measures: every measure of every task.
        intervals: 95 % of the headlines, by task, and of `gain`.
        gain: Delta m against the single-task networks in percent; None where there are none.
        macs: of an image.
        ms: median time of an image.
    """

    measures: Mapping[str, Mapping[str, float]]
    intervals: Mapping[str, Interval]
    gain: float | None
    macs: int
    ms: float


def eval_command(asked: EvalRequest, console: Console) -> int:
    """Runs the comparison, shows it, and writes it down; returns the exit status."""
    if asked.data is None and asked.clips is None:
        raise UsageError("eval: expected a labelled folder DATA, --clips FOLDER, or both; found neither")
    for name in (STL, FROZEN, "part"):
        if name in asked.models:
            raise UsageError(f"--model: expected another name than {name}, which eval.json has; found {name!r}")
    found: dict[str, Any] = {"models": dict(asked.models)}
    if asked.data is not None:
        rows = compare_images(asked, open_labelled(asked.data), console)
        console.print(_images_table(asked, rows))
        found["images"] = {"part": asked.part, **{name: asdict(row) for name, row in rows.items()}}
        if asked.out is not None:
            asked.out.mkdir(parents=True, exist_ok=True)
            points = {
                name: Point(row.macs, row.gain, row.intervals.get("gain"))
                for name, row in rows.items()
                if row.gain is not None
            }
            plot_tradeoff(points, asked.out / "tradeoff.svg")
    if asked.clips is not None:
        for name, model in asked.models.items():
            judged = compare_clips(model, asked, console)
            console.print(_clips_table(f"{name}: {asked.preset} against dense prediction", judged))
            console.print(_tasks_table(f"{name}: error by task, {list(judged)[-1]}", judged[list(judged)[-1]]))
            told = {clip: {policy: asdict(one) for policy, one in of.items()} for clip, of in judged.items()}
            found.setdefault("clips", {})[name] = told
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        write_whole(asked.out / "eval.json", json.dumps(_plain(found), indent=1, allow_nan=False) + "\n")
        console.print(f"{asked.out / 'eval.json'}", markup=False)
    return ExitCode.OK


def compare_images(asked: EvalRequest, data: LabelledFolder, console: Console) -> dict[str, Row]:
    """Scores all candidates on the images of a part; the single-task networks first, if there are any."""
    engines: dict[str, list[Engine]] = {}
    if asked.stl:
        engines[STL] = [Engine.load(model) for model in asked.stl]
    if asked.frozen is not None:
        engines[FROZEN] = [Engine.load(asked.frozen)]
    engines |= {name: [Engine.load(model)] for name, model in asked.models.items()}
    _refuse_unmatched(engines)
    with _bar(console) as bar:
        task = bar.add_task(f"images of {asked.part}", total=None)
        scores = score_images(engines, data, asked.part, lambda done, of: bar.update(task, completed=done, total=of))
    alone = scores.get(STL)
    known = None if alone is not None else _known_single_task(engines)
    return {name: _row(one, alone, known) for name, one in scores.items()}


def _refuse_unmatched(engines: Mapping[str, Sequence[Engine]]) -> None:
    """Every task has one single-task network at most, and everybody has a task in common with them."""
    if STL not in engines:
        return
    alone = [task for engine in engines[STL] for task in engine.model.tasks]
    for task in alone:
        if alone.count(task) > 1:
            raise UsageError(f"--stl: expected one network for each task; found {alone.count(task)} for {task!r}")
    for name, of in engines.items():
        tasks = [task for engine in of for task in engine.model.tasks]
        if not set(tasks).intersection(alone):
            raise UsageError(
                f"--stl: expected networks for tasks of {name}, {', '.join(tasks)}; found {', '.join(alone)}"
            )


def compare_clips(model: str, asked: EvalRequest, console: Console) -> dict[str, dict[str, Judged]]:
    """A preset and dense prediction on every clip, by clip and by policy; `mean` is over all clips."""
    assert asked.clips is not None
    paths = find_clips(asked.clips)
    if not paths:
        raise UsageError(f"{asked.clips}: expected videos with <stem>.truth.npz beside them; found none")
    loaded = Engine.load(model).model
    for path in paths:
        open_clip(path, loaded.bundle.kinds)  # a damaged truth is said now, not after an hour
    configs = {name: settle(load_config(name, values={"model": model})) for name in (EXACT, asked.preset)}
    records: dict[str, dict[str, Columns]] = {}
    with _bar(console) as bar:
        task = bar.add_task("clips", total=len(paths))
        for path in paths:
            clip = open_clip(path, loaded.bundle.kinds)
            walkers = {name: ByEngine(loaded, config) for name, config in configs.items()}
            records[path.stem] = walk(clip, loaded.bundle.kinds, walkers, frames=asked.frames)
            bar.advance(task)
    judged = {clip: {name: judge([record], name) for name in configs} for clip, record in records.items()}
    if len(records) > 1:
        judged["mean"] = {name: judge(list(records.values()), name) for name in configs}
    return judged


def _known_single_task(engines: Mapping[str, Sequence[Engine]]) -> dict[str, float] | None:
    """Headlines of the single-task networks that a bundle's own evidence lists."""
    for (engine,) in engines.values():
        told = engine.model.bundle.entry.evidence.get("single_task")
        if isinstance(told, dict):
            kinds, known = engine.model.bundle.kinds, {}
            for task in engine.model.tasks:
                headline = METRICS[kinds[task].name].headline
                if isinstance(told.get(task), dict) and headline in told[task]:
                    known[task] = float(told[task][headline])
            return known or None
    return None


def _row(scores: ImageScores, alone: ImageScores | None, known: Mapping[str, float] | None) -> Row:
    reference = alone.headlines() if alone is not None else known
    is_compared = reference is not None and not set(scores.sums).isdisjoint(reference)
    gained = gain(scores.headlines(), reference, scores.kinds) if reference is not None and is_compared else None
    measures = {task: scores.measures(task) for task in scores.sums}
    return Row(measures, intervals(scores, alone), gained, scores.macs, 1e3 * float(np.median(scores.seconds)))


def _images_table(asked: EvalRequest, rows: Mapping[str, Row]) -> Table:
    first = next(iter(rows.values()))
    headlines = {task: next(iter(of)) for row in rows.values() for task, of in row.measures.items()}
    table = Table(title=f"{asked.part}: headline measure with its 95 % interval")
    table.add_column("", no_wrap=True)
    for column in (*(f"{task} {headline}" for task, headline in headlines.items()), "Δm %", "GMAC", "ms"):
        table.add_column(column, justify="right", overflow="fold")
    for name, row in rows.items():
        cells = [
            _with_interval(row.measures[task][headline], row.intervals[task]) if task in row.measures else ""
            for task, headline in headlines.items()
        ]
        gained = "" if row.gain is None else _gain_cell(row)
        table.add_row(name, *cells, gained, _share(row.macs / 1e9, first.macs / 1e9), _share(row.ms, first.ms))
    return table


def _share(value: float, of: float) -> str:
    digits = 1 if value >= 1 else 4
    return f"{value:.{digits}f}" if value == of else f"{value:.{digits}f} ({100 * value / of:.0f} %)"


def _gain_cell(row: Row) -> str:
    text = f"{row.gain:+z.1f}"
    if "gain" not in row.intervals:
        return text
    low, high = row.intervals["gain"]
    return f"{text}\n[{low:+z.1f}, {high:+z.1f}]"


def _with_interval(value: float, interval: Interval) -> str:
    digits = 3 if abs(value) < 2 else 1
    return f"{value:.{digits}f}\n[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def _clips_table(title: str, judged: Mapping[str, Mapping[str, Judged]]) -> Table:
    table = Table(title=title)
    table.add_column("clip", no_wrap=True)
    for column in ("loss whole %", "loss moving %", "flicker %", "dense %", "MACs %", "ms", "dense ms"):
        table.add_column(column, justify="right", overflow="fold")
    for clip, of in judged.items():
        dense, row = of[EXACT], next(one for name, one in of.items() if name != EXACT)
        losses = [
            f"{row.loss[region]:+z.1f}\n[{row.interval[region][0]:+z.1f}, {row.interval[region][1]:+z.1f}]"
            if math.isfinite(row.loss[region])
            else "–"  # nothing moves
            for region in row.loss
        ]
        shares = (f"{row.flicker:.2f}", f"{dense.flicker:.2f}", f"{row.macs:.1f}", f"{row.ms:.1f}", f"{dense.ms:.1f}")
        table.add_row(clip, *losses, *shares)
    return table


def _tasks_table(title: str, of: Mapping[str, Judged]) -> Table:
    """Share of wrong pixels, mean relative error, mean degrees or 1 - F, dense and by the preset."""
    table = Table(title=title)
    for column in ("", *(f"{region}, {policy}" for region in REGIONS for policy in of)):
        table.add_column(column, justify="right" if column else "left")
    tasks = dict.fromkeys(column.partition("/")[0] for column in of[EXACT].errors)
    for task in tasks:
        errors = (one.errors[f"{task}/{region}"] for region in REGIONS for one in of.values())
        table.add_row(task, *(f"{error:.3f}" if error < 2 else f"{error:.1f}" for error in errors))
    return table


def _plain(found: Any) -> Any:
    """What JSON can say: a number that isn't known is null."""
    if isinstance(found, Mapping):
        return {key: _plain(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_plain(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)
