"""`deltascene eval`: compares models on labelled images and clips, and prints the comparison."""

import math
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from deltascene.errors import ExitCode
from deltascene.pipeline.commands.terminal import bars, print_line
from deltascene.pipeline.evaluation.clip_scores import REGIONS
from deltascene.pipeline.evaluation.clip_table import Judged
from deltascene.pipeline.evaluation.compare import (
    ClipScores,
    Comparison,
    EvalRequest,
    Row,
    check_request,
    compare_clips,
    compare_images,
    write_comparison,
    write_tradeoff,
)
from deltascene.pipeline.evaluation.images import Interval
from deltascene.pipeline.evaluation.walk import EXACT
from deltascene.pipeline.training.data import open_labelled


def eval_command(request: EvalRequest, console: Console) -> ExitCode:
    """Compares the models; each table is printed as soon as its numbers are known.

    Raises:
        DeltasceneError: there is nothing to compare, or an input or a model can't be used.
    """
    check_request(request)
    images: dict[str, Row] = {}
    if request.data is not None:
        data = open_labelled(request.data)
        with bars(console) as progress:
            images = compare_images(request, data, progress)
        console.print(_images_table(request.part, images))
        if request.out is not None:
            write_tradeoff(request.out, images)
    clips: dict[str, ClipScores] = {}
    for name, model in request.models.items() if request.clips is not None else ():
        with bars(console) as progress:
            clips[name] = compare_clips(model, request, progress)
        _print_clips(console, name, request.preset, clips[name])
    if request.out is not None:
        print_line(console, str(write_comparison(request.out, Comparison(request, images, clips))))
    return ExitCode.OK


def _print_clips(console: Console, name: str, preset: str, scores: ClipScores) -> None:
    last = list(scores)[-1]
    console.print(_clips_table(f"{name}: {preset} against dense prediction", scores))
    console.print(_tasks_table(f"{name}: error by task, {last}", scores[last]))


def _images_table(part: str, rows: Mapping[str, Row]) -> Table:
    first = next(iter(rows.values()))
    headlines = {task: next(iter(of)) for row in rows.values() for task, of in row.measures.items()}
    table = Table(title=f"{part}: headline measure with its 95 % interval")
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


def _clips_table(title: str, judged: ClipScores) -> Table:
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
    """Errors of every task, dense and by the preset: share of wrong pixels, relative error, degrees, or 1 - F."""
    table = Table(title=title)
    for column in ("", *(f"{region}, {policy}" for region in REGIONS for policy in of)):
        table.add_column(column, justify="right" if column else "left")
    tasks = dict.fromkeys(column.partition("/")[0] for column in of[EXACT].errors)
    for task in tasks:
        errors = (one.errors[f"{task}/{region}"] for region in REGIONS for one in of.values())
        table.add_row(task, *(f"{error:.3f}" if error < 2 else f"{error:.1f}" for error in errors))
    return table
