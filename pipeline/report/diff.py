"""Comparison of two runs over the same videos, A and B: their settings, their costs, and the drift of B from A.

`build_diff` returns plain values (format 1), from which both the printed tables and the page are made:

    format, a, b      of each run: name, started, model, fingerprint, videos, frames
    headline          what, cost, drift: sentences
    differences       list: group (config, weights, numerics, versions, machine), name, a, b
    videos            list: id, id_b, frames_a, frames_b, common, compared; series: drift over time
    only_a, only_b    ids of videos that only this run has
    tasks, left_out   tasks compared; why others aren't
    policies          a, b: frames by policy
    cost, costs       of all tasks together, and by task: a, b (frames, macs_executed, macs_dense, saved, rows_computed,
                      frame_seconds, stage_seconds: mean of a frame); macs, median, mean: B's share of A's
    drift             by task: see `report.drift.summarise`
    accuracy          list: video, task, metric, a, b; of videos scored in both runs

Costs are of the frames that are valid in both runs. Drift is B's against A's, in the unit of the task's kind.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deltascene.pipeline.report.drift import COMPARED_CAP, TaskDrift, compare_pair, drift_series, summarise
from deltascene.pipeline.report.facts import json_values, run_facts
from deltascene.pipeline.report.numbers import column, frame_table, in_order, seconds_by_stage, spread
from deltascene.pipeline.report.pairs import Pair, common_rows, match_tasks, match_videos
from deltascene.pipeline.report.sentences import diff_headline
from deltascene.pipeline.report.series import ceiling
from deltascene.pipeline.runs.reader import Run

FORMAT = 1


def build_diff(a: Run, b: Run) -> tuple[dict[str, Any], list[Pair]]:
    """Compares two runs.

    Returns:
        The values, and the pairs of videos that were compared.

    Raises:
        UsageError: nothing is common to both, or their predictions have other sizes.
    """
    pairs = match_videos(a, b)
    tasks, left_out = match_tasks(a, b, pairs)
    rows_a, rows_b, policies = _read_ledgers(pairs)
    found = [compare_pair(pair, tasks, max(10, COMPARED_CAP // len(pairs))) for pair in pairs]
    values = {
        "format": FORMAT,
        "a": _about(a),
        "b": _about(b),
        "differences": differences(run_facts(a.config), run_facts(b.config)),
        "videos": [_video(*each) for each in zip(pairs, found, policies, strict=True)],
        "only_a": _without(a, [pair.a.id for pair in pairs]),
        "only_b": _without(b, [pair.b.id for pair in pairs]),
        "tasks": tasks,
        "left_out": left_out,
        "policies": {"a": _policies(rows_a), "b": _policies(rows_b)},
        "cost": compare_costs(rows_a, rows_b),
        "costs": {task: compare_costs(*both) for task, both in _by_task(rows_a, rows_b)},
        "drift": summarise(pairs, found, tasks),
        "accuracy": compare_accuracy(pairs),
    }
    diff: dict[str, Any] = json_values({"headline": diff_headline(values), **values})
    return diff, pairs


def differences(a: Mapping[str, Mapping[str, Any]], b: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Values of two runs' facts that differ, by group and name; null where a run doesn't have a value."""
    return [
        {"group": group, "name": name, "a": a[group].get(name), "b": b[group].get(name)}
        for group in ("config", "weights", "numerics", "versions", "machine")
        for name in dict.fromkeys([*a[group], *b[group]])
        if a[group].get(name) != b[group].get(name)
    ]


def compare_costs(rows_a: pa.Table, rows_b: pa.Table) -> dict[str, Any]:
    """Costs of the same ledger rows in two runs, and B's share of A's."""
    a, b = (_cost(frame_table(rows)) for rows in (rows_a, rows_b))
    times = [cost["frame_seconds"] or {} for cost in (a, b)]
    return {
        "a": a,
        "b": b,
        "macs": _share(a["macs_executed"], b["macs_executed"]),
        "median": _share(*(each.get("median") for each in times)),
        "mean": _share(*(each.get("mean") for each in times)),
    }


def compare_accuracy(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Accuracy against truth of videos that were scored in both runs, side by side."""
    scored = [(pair.a.id, pair.a.accuracy, pair.b.accuracy) for pair in pairs]
    return [
        {"video": video, "task": task, "metric": metric, "a": value, "b": theirs[task][metric]}
        for video, ours, theirs in scored
        if ours is not None and theirs is not None
        for task, metrics in ours.items()
        for metric, value in metrics.items()
        if metric in theirs.get(task, {})
    ]


def _read_ledgers(pairs: Sequence[Pair]) -> tuple[pa.Table, pa.Table, list[list[str]]]:
    """Common rows of both runs' ledgers, and of every pair B's policies by place; each ledger is read once."""
    ours, theirs, policies = list[pa.Table](), list[pa.Table](), list[list[str]]()
    for pair in pairs:
        ledger_b = pair.b.ledger()
        rows_a, rows_b = common_rows(pair.a.ledger(), ledger_b)
        ours.append(rows_a)
        theirs.append(rows_b)
        policies.append([str(policy) for policy in frame_table(ledger_b)["policy"].to_pylist()])
    return pa.concat_tables(ours), pa.concat_tables(theirs), policies


def _cost(frames: pa.Table) -> dict[str, Any]:
    executed, dense, rows = (
        int(column(frames, name).sum()) for name in ("macs_executed", "macs_dense", "rows_computed")
    )
    stages = {stage: seconds / max(1, len(frames)) for stage, seconds in seconds_by_stage(frames).items()}
    return {
        "frames": len(frames),
        "macs_executed": executed,
        "macs_dense": dense,
        "saved": 1 - executed / dense if dense else None,
        "rows_computed": rows,
        "frame_seconds": spread(column(frames, "seconds")),
        "stage_seconds": stages,
    }


def _share(a: float | None, b: float | None) -> float | None:
    return b / a if a and b is not None else None


def _by_task(rows_a: pa.Table, rows_b: pa.Table) -> Iterator[tuple[str, tuple[pa.Table, pa.Table]]]:
    for task in rows_a["task"].unique().to_pylist():
        yield task, (rows_a.filter(pc.equal(rows_a["task"], task)), rows_b.filter(pc.equal(rows_b["task"], task)))


def _policies(rows: pa.Table) -> dict[str, int]:
    counts = Counter(str(policy) for policy in frame_table(rows)["policy"].to_pylist())
    return {policy: counts[policy] for policy in in_order(counts)}


def _about(run: Run) -> dict[str, Any]:
    videos = [video for video in run.videos if len(video)]
    return {
        "name": str(run.folder),
        "started": run.config.get("started"),
        "model": (run.config.get("config") or {}).get("model"),
        "fingerprint": run.config.get("fingerprint"),
        "videos": len(videos),
        "frames": sum(len(video) for video in videos),
    }


def _video(pair: Pair, found: Mapping[str, TaskDrift], policies: Sequence[str]) -> dict[str, Any]:
    series = drift_series(pair, found, policies)
    return {
        "id": pair.a.id,
        "id_b": pair.b.id,
        "frames_a": len(pair.a),
        "frames_b": len(pair.b),
        "common": len(pair.places),
        "compared": max((len(each.drift) for each in found.values()), default=0),
        "series": series | {"tops": {task: ceiling(values) for task, values in series["drift"].items()}},
    }


def _without(run: Run, ids: Sequence[str]) -> list[str]:
    return [video.id for video in run.videos if len(video) and video.id not in ids]
