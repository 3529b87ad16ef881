"""From the ledger's table to the numbers of a report: pure functions, no file and no clock.

`totals` answers the same questions of any part of a ledger: a run, a video, one task.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deltascene.pipeline.ledger import STAGES

Array = NDArray[Any]

_FRAME_FIRSTS = ("pts_s", "valid", "cause", "policy", "rows", "rows_computed")
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
        rows, rows_computed (of the frames' first task); macs_executed, macs_dense; saved (1 - executed / dense, null
        without a valid frame); macs_single_task, sharing (null unless known for every row); seconds,
        seconds_by_stage, frame_seconds (of valid frames), fps; by_policy; seconds_saved (share of time against this
        run's own dense frames); drift (of audited frames).
    """
    frames = frame_table(ledger)
    valid = _column(frames, "valid").astype(bool)
    executed, dense = (int(_column(frames, name).sum()) for name in ("macs_executed", "macs_dense"))
    single = frames["macs_single_task"]
    single_task = None if single.null_count or not len(frames) else pc.sum(single).as_py()
    seconds = _column(frames, "seconds")
    causes = Counter(cause or "invalid" for cause in frames.filter(pc.invert(frames["valid"]))["cause"].to_pylist())
    return {
        "frames": len(frames),
        "invalid": int((~valid).sum()),
        "invalid_by_cause": dict(sorted(causes.items())),
        "predicted": int(pc.sum(ledger["predicted"]).as_py() or 0),
        "policies": dict(Counter(frames["policy"].to_pylist())),
        "rows": int(_column(frames, "rows")[valid].sum()),
        "rows_computed": int(_column(frames, "rows_computed").sum()),
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
    stages = {stage: float(_column(frames, f"seconds_{stage}").sum()) for stage in STAGES}
    other = float(_column(frames, "seconds").sum()) - sum(stages.values())
    return stages | {"other": max(0.0, round(other, 9))}


def stage_spreads(ledger: pa.Table) -> dict[str, dict[str, float] | None]:
    """Median, 95th percentile and mean of every stage's seconds over the valid frames that it ran on; null if none."""
    frames = frame_table(ledger)
    valid = _column(frames, "valid").astype(bool)
    columns = {stage: _column(frames, f"seconds_{stage}")[valid] for stage in STAGES}
    return {stage: spread(seconds[seconds > 0]) for stage, seconds in columns.items()}


def spread(seconds: Array) -> dict[str, float] | None:
    """Median, 95th percentile and mean; None of nothing."""
    if not len(seconds):
        return None
    median, p95 = np.percentile(seconds, [50, 95])
    return {"median": float(median), "p95": float(p95), "mean": float(seconds.mean())}


def by_policy(frames: pa.Table) -> dict[str, dict[str, Any]]:
    """What the frames of each policy cost."""
    out = {}
    for policy in dict.fromkeys(frames["policy"].to_pylist()):
        part = frames.filter(pc.equal(frames["policy"], policy))
        cost = {name: int(_column(part, name).sum()) for name in ("macs_executed", "macs_dense")}
        out[str(policy)] = {"frames": len(part), **cost, "frame_seconds": spread(_column(part, "seconds"))}
    return out


def drift(ledger: pa.Table) -> dict[str, dict[str, float]]:
    """Mean and largest drift of every audited task, and how many frames were audited."""
    audited = ledger.filter(pc.is_valid(ledger["drift"]))
    out = {}
    for task in dict.fromkeys(audited["task"].to_pylist()):
        values = _column(audited.filter(pc.equal(audited["task"], task)), "drift")
        out[str(task)] = {"audits": len(values), "mean": float(values.mean()), "max": float(values.max())}
    return out


def series(frames: pa.Table, points: int) -> dict[str, Any]:
    """A video's frames as at most `points` means, for plots over time.

    Args:
        frames: of `frame_table`, one video.
        points: most points wanted.

    Returns:
        frames_per_point; per point: index and pts_s of its first frame, seconds by stage, macs_executed and macs_dense
        (means of its frames), policy (the most frequent), invalid (number of frames).
    """
    size = max(1, -(-len(frames) // points))
    starts = np.arange(0, len(frames), size)
    counts = np.diff(starts, append=len(frames))

    def mean(name: str, digits: int = 0) -> list[float]:
        sums = np.add.reduceat(_column(frames, name).astype(np.float64), starts) if len(starts) else starts
        return [round(float(value), digits) for value in sums / counts]

    policies = frames["policy"].to_pylist()
    invalid = np.add.reduceat(~_column(frames, "valid").astype(bool), starts, dtype=np.int64) if len(starts) else starts
    return {
        "frames_per_point": size,
        "index": _column(frames, "index")[starts].tolist(),
        "pts_s": _column(frames, "pts_s")[starts].tolist(),
        "seconds": mean("seconds", 6),
        "seconds_by_stage": {stage: mean(f"seconds_{stage}", 6) for stage in STAGES},
        "macs_executed": mean("macs_executed"),
        "macs_dense": mean("macs_dense"),
        "policy": [Counter(policies[start : start + size]).most_common(1)[0][0] for start in starts],
        "invalid": invalid.tolist(),
    }


def listed_frames(frames: pa.Table, cap: int) -> dict[str, Any]:
    """The frames of one video as rows of `FRAME_COLUMNS`: all of them up to `cap`, evenly sampled beyond."""
    chosen = frames.take(pa.array(evenly(len(frames), cap), pa.int64()))
    columns = [chosen[name].to_pylist() for name in FRAME_COLUMNS]
    return {
        "total": len(frames),
        "columns": list(FRAME_COLUMNS),
        "rows": [list(row) for row in zip(*columns, strict=True)],
    }


def evenly(total: int, count: int) -> list[int]:
    """`count` places from 0 to `total` - 1, evenly spread, both ends included; all of them where there are no more."""
    if total <= count:
        return list(range(total))
    return [int(place) for place in np.linspace(0, total - 1, count).round()]


def in_steps(total: int, count: int) -> list[int]:
    """At most `count` places from 0 on at equal steps that come as close to `total` - 1 as they can."""
    return list(range(0, total, max(1, (total - 1) // max(1, count - 1))))[:count]


def accuracy_rows(accuracy: Mapping[str, Mapping[str, float]] | None) -> list[dict[str, Any]]:
    """Accuracy against truth as rows of task, metric, value."""
    pairs = (accuracy or {}).items()
    return [{"task": task, "metric": name, "value": value} for task, found in pairs for name, value in found.items()]


def ceiling(values: Sequence[float]) -> float:
    """The smallest 1, 1.5, 2, 3, 4, 5, 6 or 8 times a power of ten that no value exceeds: the top of an axis."""
    top = max(values, default=0.0)
    if top <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(top))
    return float(next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= top * (1 - 1e-9)))


def _seconds_saved(frames: pa.Table) -> float | None:
    """Share of time that valid frames took less than as many dense ones of the same run; null without a dense one."""
    valid = frames.filter(frames["valid"])
    dense = _column(valid.filter(pc.equal(valid["policy"], "dense")), "seconds")
    if not len(dense) or dense.mean() <= 0:
        return None
    return float(1 - _column(valid, "seconds").mean() / dense.mean()) if len(dense) < len(valid) else 0.0


def _column(table: pa.Table, name: str) -> Array:
    column = table[name].combine_chunks()
    return np.asarray(column.fill_null(pa.scalar(0).cast(column.type)).to_numpy(zero_copy_only=False))
