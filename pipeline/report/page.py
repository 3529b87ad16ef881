"""Renders `report.html` from the values of `report.json`: one file that loads nothing else.

Every number on the page carries its path in the report (`data-path`) and its format (`data-form`), so that a test can
compare each with `report.json`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from deltascene.pipeline.report import plots
from deltascene.pipeline.runs.ledger import STAGES
from deltascene.pipeline.units import compact, count, drift, duration, milliseconds, share
from deltascene.stages.policy import POLICIES

FORMS: Mapping[str, Callable[[Any], str]] = {
    "count": count,
    "share": share,
    "macs": lambda value: compact(value, "MAC"),
    "ms": milliseconds,
    "duration": duration,
    "moment": lambda value: f"{value:.2f} s",
    "rate": lambda value: f"{value:.3g}",
    "factor": lambda value: f"{value:.2f} ×",
    "metric": lambda value: f"{value:.4g}",
    "drift": lambda value: drift(value, ""),
    "degrees": lambda value: drift(value, "degrees"),
    "points": lambda value: drift(value, "").removesuffix(" %"),
    "amount": lambda value: drift(value, "degrees").removesuffix("°"),
    "money": lambda value: f"{value:.3g}" if value < 100 else f"{value:.0f}",
    "hours": lambda value: f"{value:.3g} h",
    "plain": str,
}

# The per-frame table: the report's column, its heading on the page, and its format.
FRAME_TABLE: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "index": ("frame", str),
    "pts_s": ("time, s", "{:.3f}".format),
    "policy": ("policy", str),
    "reason": ("reason", str),
    "cause": ("cause", str),
    "rows": ("tokens", "{:d}".format),
    "rows_computed": ("computed", "{:d}".format),
    "oldest_s": ("oldest, s", "{:.2f}".format),
    "macs_executed": ("MACs", lambda macs: compact(macs, "")),
    "macs_dense": ("dense MACs", lambda macs: compact(macs, "")),
    "seconds": ("ms", lambda seconds: f"{1e3 * seconds:.1f}"),
    **{f"seconds_{stage}": (stage, lambda seconds: f"{1e3 * seconds:.1f}") for stage in STAGES},
}

# The columns of one task: their heading and their format.
TASK_TABLE: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "tokens": lambda cost: f"{cost['rows_computed']:d}" if cost["rows_computed"] else "",
    "MACs": lambda cost: compact(cost["macs_executed"], ""),
    "dense MACs": lambda cost: compact(cost["macs_dense"], ""),
    "ms": lambda cost: f"{1e3 * cost['seconds']:.1f}",
}

STAGE_COLOURS = 11  # in report.css
ROWS_CAP = 1000  # rows of the table of videos
CAUSE_CAP = 160  # characters of a cause in that table


def render_page(
    report: Mapping[str, Any], pictures: Mapping[str, Mapping[str, Sequence[str]]], overlays: Mapping[str, str]
) -> str:
    """The page of a run.

    Args:
        report: values of `report.json`.
        pictures: data URIs of every video's `pictures` and `film`, by video id.
        overlays: relative links to the overlays, by video id.
    """
    page = environment(report).get_template("report.html.j2")
    return page.render(report=report, pictures=pictures, overlays=overlays, rows=table_rows(report["videos"]))


def table_rows(videos: Sequence[Mapping[str, Any]], most: int = ROWS_CAP) -> list[int]:
    """Places of the videos in the table of videos: all, or the first `most` of them, unfinished ones first."""
    places = range(len(videos))
    if len(videos) <= most:
        return list(places)
    return sorted(places, key=lambda place: videos[place]["status"] in ("done", "waiting"))[:most]


def render_diff(diff: Mapping[str, Any], pictures: Mapping[str, Sequence[str]]) -> str:
    """The page of a comparison of two runs.

    Args:
        diff: values of `report.diff.build_diff`.
        pictures: data URIs of the frames with the largest drift, by task.
    """
    return environment(diff).get_template("diff.html.j2").render(report=diff, pictures=pictures)


def environment(report: Mapping[str, Any]) -> jinja2.Environment:
    """Environment of the page's templates: their folder, and the functions and filters that format values."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("deltascene.pipeline.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"sort_keys": False}  # stages stay in their order
    made.globals |= {
        "number": lambda path, form: number(report, path, form),
        "drift_form": lambda unit: "degrees" if unit == "degrees" else "drift",
        "policy_class": policy_class,
        "edge_class": edge_class,
        "stage_class": stage_class,
        "plots": plots,
        "dict_of": lambda names, values: dict(zip(names, values, strict=True)),
        "frame_cells": frame_cells,
        "task_cells": task_cells,
        "task_heads": list(TASK_TABLE),
        "cause_cap": CAUSE_CAP,
        "frame_heads": [head for head, _ in FRAME_TABLE.values()],
        "frame_marks": [
            Markup(' class="left"') if write is str and name != "index" else ""
            for name, (_, write) in FRAME_TABLE.items()
        ],
    }
    made.filters |= {**FORMS, "text": plain_text, "hover": hover_data}
    return made


def number(report: Mapping[str, Any], path: str, form: str) -> Markup:
    """A formatted value of the report, marked with its path and format; a dash where it is null."""
    value = look_up(report, path)
    if value is None:
        return Markup('<span class="none">–</span>')
    return Markup('<span class="n" data-path="{}" data-form="{}">{}</span>').format(path, form, FORMS[form](value))


def look_up(report: Any, path: str) -> Any:
    """A value by its path: keys and places in lists, separated by `/`."""
    for part in path.split("/"):
        report = report[int(part)] if isinstance(report, Sequence) else report[part]
    return report


def policy_class(policy: str) -> str:
    """CSS class of a policy's colour."""
    return f"p-{policy}" if policy in POLICIES else "p-other"


def edge_class(policy: str) -> str:
    """CSS class of the border of a policy's pictures."""
    return policy_class(policy).replace("p-", "e-", 1)


def stage_class(stage: str) -> str:
    """CSS class of a stage's colour."""
    return f"s{STAGES.index(stage) % STAGE_COLOURS}" if stage in STAGES else "s-other"


def frame_cells(frame: Mapping[str, Any]) -> list[str]:
    """Cells of one frame in the per-frame table."""
    return ["" if frame[name] is None else write(frame[name]) for name, (_, write) in FRAME_TABLE.items()]


def task_cells(cost: Mapping[str, Any]) -> list[str]:
    """Cells of one task of one frame; empty where the task has no values."""
    return ["" if cost["seconds"] is None else write(cost) for write in TASK_TABLE.values()]


def plain_text(value: Any) -> str:
    """A value of a config as it is written in YAML."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def hover_data(series: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a series that the page's script shows for the point under the pointer."""
    names = (
        "frames_per_point",
        "index",
        "pts_s",
        "seconds",
        "seconds_by_stage",
        "macs_executed",
        "macs_dense",
        "rows_share",
        "oldest_s",
        "policy",
        "reason",
        "invalid",
    )
    return {name: series[name] for name in names}
