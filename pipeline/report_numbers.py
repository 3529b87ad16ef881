"""From the ledger's table to the numbers of a report: pure functions, no file and no clock.

`totals` answers the same questions of any part of a ledger: a run, a video, one task.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deltascene.pipeline.ledger import STAGES
from deltascene.stages.policy import POLICIES

Array = NDArray[Any]

_FRAME_FIRSTS = ("pts_s", "valid", "cause", "policy", "reason", "rows", "rows_computed", "oldest_s")
_FRAME_SUMS = ("macs_executed", "macs_dense", "macs_single_task", "seconds", *(f"seconds_{stage}" for stage in STAGES))
FRAME_COLUMNS = ("index", *_FRAME_FIRSTS, *(name for name in _FRAME_SUMS if name != "macs_single_task"))


def frame_table(ledger: pa.Table) -> pa.Table:
    """One row per frame: sums over its tasks, and what its first row (the base's) says of the frame as a whole.

    The dense cost of an invalid frame is 0: nothing was due there, so nothing can have been saved. A sum of single-task
    costs is null where one of its terms is unknown.
    """
    for name in ("macs_dense", "macs_single_task"):
        due = pc.if_else(ledger["valid"], ledger[name], pa.scalar(0, pa.int64()))
        ledger = ledger.set_column(ledger.column_names.index(name), name, due)
    known = pc.ScalarAggregateOptions(skip_nulls=False)
    firsts = [(name, "first") for name in _FRAME_FIRSTS]
    sums = [(name, "sum", known if name == "macs_single_task" else None) for name in _FRAME_SUMS]
    grouped = ledger.group_by(["source", "index"], use_threads=False).aggregate([*firsts, *sums])
    names = [name.removesuffix("_first").removesuffix("_sum") for name in grouped.column_names]
    return grouped.rename_columns(names).sort_by([("source", "ascending"), ("index", "ascending")])


def totals(ledger: pa.Table) -> dict[str, Any]:
    """What some rows of a ledger add up to.

    Returns:
        frames, invalid, invalid_by_cause; predicted (rows that have a prediction); policies (frames by policy);
        rows, rows_computed (of the frames' first task); oldest_s (how long the patch that waited longest had waited,
        over valid frames); macs_executed, macs_dense; saved (1 - executed / dense, null without a valid frame);
        macs_single_task, sharing (null unless known for every row); seconds, seconds_by_stage, frame_seconds (of valid
        frames), fps; by_policy; seconds_saved (share of time against this run's own dense frames); drift (of audited
        frames).
    """
    frames = frame_table(ledger)
    valid = column(frames, "valid").astype(bool)
    executed, dense = (int(column(frames, name).sum()) for name in ("macs_executed", "macs_dense"))
    single = frames["macs_single_task"]
    single_task = None if single.null_count or not len(frames) else pc.sum(single).as_py()
    seconds = column(frames, "seconds")
    causes = Counter(cause or "invalid" for cause in frames.filter(pc.invert(frames["valid"]))["cause"].to_pylist())
    return {
        "frames": len(frames),
        "invalid": int((~valid).sum()),
        "invalid_by_cause": dict(sorted(causes.items())),
        "predicted": int(pc.sum(ledger["predicted"]).as_py() or 0),
        "policies": dict(Counter(frames["policy"].to_pylist())),
        "rows": int(column(frames, "rows")[valid].sum()),
        "rows_computed": int(column(frames, "rows_computed").sum()),
        "oldest_s": longest_wait(frames),
        "macs_executed": executed,
        "macs_dense": dense,
        "saved": 1 - executed / dense if dense else None,
        "macs_single_task": single_task,
        "sharing": single_task / dense if single_task and dense else None,
        "seconds": float(seconds.sum()),
        "seconds_by_stage": seconds_by_stage(frames),
        "frame_seconds": spread(seconds[valid]),
        "fps": float(valid.sum() / seconds.sum()) if seconds.sum() > 0 else None,
        "by_policy": by_policy(frames),
        "seconds_saved": _seconds_saved(frames),
        "drift": drift(ledger),
    }


def seconds_by_stage(frames: pa.Table) -> dict[str, float]:
    """Seconds of every stage, and `other`: what was measured outside them."""
    stages = {stage: float(column(frames, f"seconds_{stage}").sum()) for stage in STAGES}
    other = float(column(frames, "seconds").sum()) - sum(stages.values())
    return stages | {"other": max(0.0, round(other, 9))}


def stage_spreads(ledger: pa.Table) -> dict[str, dict[str, float] | None]:
    """Median, 95th percentile and mean of every stage's seconds over the valid frames that it ran on; null if none."""
    frames = frame_table(ledger)
    valid = column(frames, "valid").astype(bool)
    columns = {stage: column(frames, f"seconds_{stage}")[valid] for stage in STAGES}
    return {stage: spread(seconds[seconds > 0]) for stage, seconds in columns.items()}


def spread(seconds: Array) -> dict[str, float] | None:
    """Median, 95th percentile and mean; None of nothing."""
    if not len(seconds):
        return None
    median, p95 = np.percentile(seconds, [50, 95])
    return {"median": float(median), "p95": float(p95), "mean": float(seconds.mean())}


def longest_wait(frames: pa.Table) -> dict[str, float] | None:
    """Median and largest age of the oldest patch of a frame in seconds; null where nothing was predicted."""
    waited = frames["oldest_s"].drop_null()
    return {"median": float(np.median(waited)), "max": float(pc.max(waited).as_py())} if len(waited) else None


def by_policy(frames: pa.Table) -> dict[str, dict[str, Any]]:
    """How often each policy was chosen and why, how many rows ran under it, and what it cost."""
    found = dict.fromkeys(str(policy) for policy in frames["policy"].to_pylist())
    parts = {policy: frames.filter(pc.equal(frames["policy"], policy)) for policy in in_order(found)}
    sums = ("rows", "rows_computed", "macs_executed", "macs_dense")
    return {
        policy: {
            "frames": len(part),
            "share": len(part) / len(frames),
            "reasons": dict(Counter(reason or "" for reason in part["reason"].to_pylist()).most_common()),
            **{name: int(column(part, name).sum()) for name in sums},
            "frame_seconds": spread(column(part, "seconds")),
        }
        for policy, part in parts.items()
    }


def in_order(policies: Iterable[str]) -> list[str]:
    """Policies from the dearest on; what isn't known as one comes last."""
    found = list(policies)
    return [policy for policy in POLICIES if policy in found] + [each for each in found if each not in POLICIES]


def drift(ledger: pa.Table) -> dict[str, dict[str, float]]:
    """Mean and largest drift of every audited task, and how many frames were audited."""
    audited = ledger.filter(pc.is_valid(ledger["drift"]))
    out = {}
    for task in dict.fromkeys(audited["task"].to_pylist()):
        values = column(audited.filter(pc.equal(audited["task"], task)), "drift")
        out[str(task)] = {"audits": len(values), "mean": float(values.mean()), "max": float(values.max())}
    return out


def accuracy_rows(accuracy: Mapping[str, Mapping[str, float]] | None) -> list[dict[str, Any]]:
    """Accuracy against truth as rows of task, metric, value."""
    pairs = (accuracy or {}).items()
    return [{"task": task, "metric": name, "value": value} for task, found in pairs for name, value in found.items()]


def _seconds_saved(frames: pa.Table) -> float | None:
    """Share of time that valid frames took less than as many dense ones of the same run; null without a dense one.

    The dense frame is the median one: the first of a run is slow, and a saving must not be claimed against that.
    """
    valid = frames.filter(frames["valid"])
    dense = column(valid.filter(pc.equal(valid["policy"], "dense")), "seconds")
    if not len(dense) or np.median(dense) <= 0:
        return None
    return float(1 - column(valid, "seconds").mean() / np.median(dense)) if len(dense) < len(valid) else 0.0


def column(table: pa.Table, name: str) -> Array:
    """A column of numbers; null is 0."""
    values = table[name].combine_chunks()
    return np.asarray(values.fill_null(pa.scalar(0).cast(values.type)).to_numpy(zero_copy_only=False))
