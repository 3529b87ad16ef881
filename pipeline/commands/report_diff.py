"""`deltascene report diff`: compares two runs, as tables on the screen, a page with pictures, or JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deltascene.cache.damage import reraise_damage
from deltascene.cache.places import Place, write_whole
from deltascene.errors import ExitCode
from deltascene.pipeline.commands.terminal import print_line
from deltascene.pipeline.errors import OutputError, UsageError
from deltascene.pipeline.report.diff import build_diff
from deltascene.pipeline.report.facts import decoder_timeout_s
from deltascene.pipeline.report.page import FORMS, plain_text, render_diff
from deltascene.pipeline.report.pairs import Pair
from deltascene.pipeline.report.pictures import draw_difference, read_images
from deltascene.pipeline.runs.reader import open_run


def diff_command(a: Place, b: Place, html: Path | None, console: Console, *, as_json: bool) -> ExitCode:
    """Compares two runs, prints the comparison, and writes the page where one is asked for.

    Args:
        a: folder of the run to compare with.
        b: folder of the run that is compared.
        html: file for the page; None writes none.
        console: where to print.
        as_json: print one JSON object instead of tables.

    Raises:
        UsageError: the runs have nothing in common, or there is no folder for the page.
        OutputError: a folder isn't a run's, or its files are damaged.
    """
    if html is not None and not html.absolute().parent.is_dir():
        raise UsageError(f"--html {html}: expected an existing folder; found no {html.absolute().parent}")
    with reraise_damage(OutputError, f"{a} or {b}", "run its command again with --force"):
        runs = open_run(a), open_run(b)
        diff, pairs = build_diff(*runs)
        timeouts_s = [decoder_timeout_s(run.config) for run in runs]
        page = "" if html is None else render_diff(diff, draw_worst(diff, pairs, timeouts_s))
    if html is not None:
        write_whole(html, page)
    if as_json:
        print(json.dumps(diff, indent=1, allow_nan=False, ensure_ascii=False))
        return ExitCode.OK
    print_diff(console, diff)
    if html is not None:
        print_line(console, f"page: {html}")
    return ExitCode.OK


def draw_worst(diff: Mapping[str, Any], pairs: Sequence[Pair], timeouts_s: Sequence[float]) -> dict[str, list[str]]:
    """Pictures of the frames where two runs differ most, by task: data URIs of A, B and their difference.

    Args:
        diff: first result of `build_diff`.
        pairs: second result of `build_diff`.
        timeouts_s: time limits of the decoder for A's sources and for B's, in seconds.
    """
    wanted: dict[int, set[int]] = {}
    for drift in diff["drift"].values():
        for worst in drift["worst"]:
            wanted.setdefault(worst["pair"], set()).add(worst["index"])
    images = {number: _source_images(pairs[number], sorted(indices), timeouts_s) for number, indices in wanted.items()}
    pictures: dict[str, list[str]] = {}
    for task, drift in diff["drift"].items():
        names = (f"A  {task}", f"B  {task}", "difference")
        for worst in drift["worst"]:
            pair = pairs[worst["pair"]]
            ours, theirs = pair.places[worst["where"]]
            values = [pair.a.frame(ours)[task], pair.b.frame(theirs)[task]]
            image = images[worst["pair"]].get(worst["index"])
            pictures.setdefault(task, []).append(draw_difference(image, values, pair.a.kinds[task], names))
    return pictures


def print_diff(console: Console, diff: Mapping[str, Any]) -> None:
    """Prints what differs between the runs, their costs, and the drift of their predictions."""
    heads = [f"{run.upper()}  {diff[run]['name']}" for run in "ab"]
    notes = [f"only in {run.upper()}: {', '.join(diff[f'only_{run}'])}" for run in "ab" if diff[f"only_{run}"]]
    notes += [f"{task}: not compared: {why}" for task, why in diff["left_out"].items()]
    for line in [*heads, *diff["headline"].values(), *notes]:
        print_line(console, line)
    for title, columns, rows in _tables(diff):
        if rows:
            print_line(console, f"\n{title}")
            console.print(_table(columns, rows))


def _tables(diff: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[str], list[list[str]]]]:
    """Title, heads and rows of every table; each has few columns, so that it fits a narrow screen."""
    differs = [[each["group"], each["name"], *(plain_text(each[run]) for run in "ab")] for each in diff["differences"]]
    yield "What differs", ("what", "name", "A", "B"), differs
    policies = list(dict.fromkeys([*diff["policies"]["a"], *diff["policies"]["b"]]))
    counts = [[name, *(str(diff["policies"][run].get(name, 0)) for run in "ab")] for name in policies]
    yield "Policies, frames", ("policy", "A", "B"), counts
    costs = {**diff["costs"], "all": diff["cost"]}
    macs = [
        [task, *(_form(cost[run]["macs_executed"], "macs") for run in "ab"), _form(cost["macs"], "share")]
        for task, cost in costs.items()
    ]
    yield "MACs executed", ("task", "A", "B", "B of A"), macs
    times = [[task, *_times(cost, "median"), *_times(cost, "mean")] for task, cost in costs.items()]
    yield "Time of a frame", ("task", "median A", "B", "B of A", "mean A", "B", "B of A"), times
    drifts = [[task, *_drift_cells(each)] for task, each in diff["drift"].items()]
    yield "Drift of B from A", ("task", "mean", "95 %", "largest", "in frame", "pixels equal", "unit"), drifts
    scores = [
        [each["video"], each["task"], each["metric"], *(_form(each[run], "metric") for run in "ab")]
        for each in diff["accuracy"]
    ]
    yield "Accuracy against truth", ("video", "task", "metric", "A", "B"), scores


def _times(cost: Mapping[str, Any], measure: str) -> list[str]:
    seconds = [(cost[run]["frame_seconds"] or {}).get(measure) for run in "ab"]
    return [*(_form(each, "ms") for each in seconds), _form(cost[measure], "share")]


def _drift_cells(drift: Mapping[str, Any]) -> list[str]:
    numbers = [_form(drift[name], "metric") for name in ("mean", "p95", "max")]
    where = f"{drift['worst'][0]['video']} #{drift['worst'][0]['index']}" if drift["worst"] else "–"
    return [*numbers, where, _form(drift["equal"], "share"), drift["unit"]]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for place, head in enumerate(heads):
        number = all(row[place][:1].isdigit() or row[place] in "–<>" for row in rows)
        table.add_column(head, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _form(value: Any, form: str) -> str:
    return "–" if value is None else FORMS[form](value)


def _source_images(pair: Pair, indices: Sequence[int], timeouts_s: Sequence[float]) -> dict[int, Any]:
    """Frames of the source, read from the path that A has, else from B's."""
    in_a, in_b = timeouts_s
    return read_images(pair.a, indices, in_a) or read_images(pair.b, indices, in_b)
