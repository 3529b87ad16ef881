"""Pure functions from a ledger's table to the numbers of a report."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deltascene.pipeline.runs.ledger import STAGES
from deltascene.stages.policy import POLICIES

Array = NDArray[Any]

_FRAME_FIRSTS = ("pts_s", "valid", "cause", "policy", "reason", "rows", "rows_computed", "oldest_s")
STAGE_COLUMNS = tuple(f"seconds_{stage}" for stage in STAGES)
_FRAME_SUMS = ("macs_executed", "macs_audit", "macs_dense", "macs_single_task", "seconds", *STAGE_COLUMNS)


def frame_table(ledger: pa.Table) -> pa.Table:
    """One row per frame: sums over its tasks, and the values of its first row (the base's) for the frame as a whole.

    The dense cost of an invalid frame is 0, as no prediction was due and nothing can have been saved. A sum of
    single-task costs is null where one of its terms is unknown.
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


def seconds_by_stage(frames: pa.Table) -> dict[str, float]:
    """Seconds of every stage, and `other`: the time measured outside of all stages."""
    return by_stage({name: float(column(frames, name).sum()) for name in ("seconds", *STAGE_COLUMNS)})


def by_stage(sums: Mapping[str, float]) -> dict[str, float]:
    """Seconds of every stage and `other`, from sums of the columns."""
    stages = {name.removeprefix("seconds_"): sums[name] for name in STAGE_COLUMNS}
    return stages | {"other": max(0.0, round(sums["seconds"] - sum(stages.values()), 9))}


def spread(seconds: Array) -> dict[str, float] | None:
    """Median, 95th percentile and mean; None without values."""
    if not len(seconds):
        return None
    median, p95 = np.percentile(seconds, [50, 95])
    return {"median": float(median), "p95": float(p95), "mean": float(seconds.mean())}


def in_order(policies: Iterable[str]) -> list[str]:
    """Policies, the most expensive first; unknown names come last."""
    found = list(policies)
    return [policy for policy in POLICIES if policy in found] + [each for each in found if each not in POLICIES]


def accuracy_rows(accuracy: Mapping[str, Mapping[str, float]] | None) -> list[dict[str, Any]]:
    """Accuracy against truth as rows of task, metric, value."""
    pairs = (accuracy or {}).items()
    return [{"task": task, "metric": name, "value": value} for task, found in pairs for name, value in found.items()]


def column(table: pa.Table, name: str) -> Array:
    """A column of numbers; null becomes 0."""
    values = table[name].combine_chunks()
    return np.asarray(values.fill_null(pa.scalar(0).cast(values.type)).to_numpy(zero_copy_only=False))
