"""What audits found: the mean drift of every task with its interval, over all frames, by hour, over time, at worst.

Drift is the distance from dense prediction, the floor what dense prediction itself changes from frame to frame where
nothing moved, and excess the difference of their means, not below 0. All three are always told side by side. Dense
frames count as 0 in each.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deltascene.pipeline.report.numbers import Array, column
from deltascene.pipeline.report.series import ceiling
from deltascene.pipeline.runs.ledger import split_tasks
from deltascene.stages.sampled_mean import Estimate, SampledMean

HOUR_S = 3600.0
APART_S = 1.0  # between two of the worst frames


class DriftSums:
    """Sums over one task's rows of ledgers."""

    def __init__(self) -> None:
        self._whole, self._moved = SampledMean(), SampledMean()

    def add(self, rows: pa.Table) -> "DriftSums":
        """Adds a task's rows, in time order. Those of a video in which nothing could be drawn are left out."""
        drawn, dense = _known(rows, "audit_p"), _known(rows, "patches_moved") & _equal(rows, "policy", "dense")
        if not drawn.any() and not dense.all():
            return self
        region = column(rows, "patches_moved") > 0
        for sums, name, where in ((self._whole, "drift", True), (self._moved, "drift_moved", region)):
            there = drawn & where
            measured = there & _known(rows, name)
            floor = np.where(_known(rows, "floor"), column(rows, "floor"), np.nan)[measured]
            sums.add(
                column(rows, name)[measured],
                floor,
                column(rows, "audit_p")[measured],
                open_=int(there.sum()),
                zero=int((dense & where).sum()),
            )
        return self

    def result(self) -> dict[str, Any] | None:
        """Estimates; None where no frame was audited.

        Returns:
            audits, floors (audits that measured it too), frames (that the means are over), dense (of them); drift,
            floor, excess, and drift_moved, floor_moved, excess_moved of the patches that moved lately, means over the
            frames that have such: each with mean, low and high (of the 95 % interval), or null.
        """
        whole, moved = self._whole, self._moved
        if not whole.measured:
            return None
        counts = {"audits": whole.measured, "floors": whole.measured_second}
        return {
            **counts,
            "frames": whole.open + whole.zero,
            "dense": whole.zero,
            **_estimates(whole, ""),
            **_estimates(moved, "_moved"),
        }


def estimates(ledger: pa.Table) -> dict[str, dict[str, Any]]:
    """`DriftSums.result` of every task that was audited."""
    found = {task: DriftSums().add(rows).result() for task, rows in split_tasks(ledger).items()}
    return {task: result for task, result in found.items() if result is not None}


def by_hour(ledger: pa.Table) -> list[dict[str, Any]]:
    """Estimates of every hour of a video: start_s and tasks; none for a video of an hour or less."""
    hours = column(ledger, "pts_s") // HOUR_S
    if not len(hours) or hours.max() < 1:
        return []
    return [
        {"start_s": float(hour * HOUR_S), "tasks": estimates(ledger.filter(pa.array(hours == hour)))}
        for hour in np.unique(hours)
    ]


def drift_over_time(ledger: pa.Table, starts: Array) -> dict[str, Any]:
    """Drift for plots: by task the largest of each point's audits, 0 where there is none, and the axis's upper end.

    Args:
        ledger: of one video, all tasks; every task has the same frames.
        starts: places of the points' first frames.
    """
    found = {}
    for task, rows in split_tasks(ledger).items():
        if not (known := _known(rows, "drift")).any():
            continue
        drift = np.where(known, column(rows, "drift"), 0)[np.argsort(column(rows, "index"), kind="stable")]
        values = np.maximum.reduceat(drift, starts).tolist()
        found[task] = {"values": values, "top": ceiling(values)}
    return found


def worst_frames(ledger: pa.Table, count: int) -> list[dict[str, Any]]:
    """The audited frames with the largest drift: of each task in turn the largest that isn't close to one before.

    Args:
        ledger: of one video.
        count: maximum number of frames.

    Returns:
        Of each its place among the processed frames, index, pts_s, policy, reason, the task, and that task's drift,
        drift_moved and floor.
    """
    places = {index: place for place, index in enumerate(sorted(set(ledger["index"].to_pylist())))}
    names = ("index", "pts_s", "policy", "reason", "drift", "drift_moved", "floor")
    queues = []
    for task, rows in split_tasks(ledger).items():
        audited = rows.filter(pc.is_finite(pc.fill_null(rows["drift"], float("nan")))).select(names).to_pylist()
        ranked = sorted(audited, key=lambda row: -row["drift"])
        queues.append([{"place": places[row["index"]], "task": task, **row} for row in ranked if row["drift"] > 0])
    taken: list[dict[str, Any]] = []
    while len(taken) < count and any(queues):
        for queue in queues:
            while queue and any(abs(queue[0]["pts_s"] - other["pts_s"]) < APART_S for other in taken):
                queue.pop(0)
            if queue and len(taken) < count:
                taken.append(queue.pop(0))
    return taken


def _estimates(sums: SampledMean, suffix: str) -> dict[str, Any]:
    found = {"drift": sums.first(), "floor": sums.second(), "excess": sums.difference()}
    return {f"{name}{suffix}": _plain(estimate) for name, estimate in found.items()}


def _plain(estimate: Estimate | None) -> dict[str, float | None] | None:
    return None if estimate is None else asdict(estimate)


def _known(rows: pa.Table, name: str) -> Array:
    """Where a column is a finite number [rows]."""
    values = np.asarray(rows[name].cast(pa.float64()).fill_null(float("nan")).to_numpy(), np.float64)
    return np.isfinite(values)


def _equal(rows: pa.Table, name: str, value: str) -> Array:
    return np.asarray(pc.equal(rows[name], value).to_numpy(), bool)
