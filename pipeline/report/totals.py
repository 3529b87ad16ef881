"""Sums over many ledgers, one ledger at a time, in memory that doesn't grow with their number.

A thousand files have tens of millions of rows. Beyond `KEPT` values, percentiles are those of an evenly spaced sample.
"""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deltascene.pipeline.report.audits import DriftSums
from deltascene.pipeline.report.numbers import STAGE_COLUMNS, by_stage, column, frame_table, in_order, spread
from deltascene.pipeline.runs.ledger import split_tasks

KEPT = 1 << 17  # values of a sample; at twice as many, every second one is dropped

Array = NDArray[Any]

FEWEST_DENSE = 5  # frames that a time is compared with


class Values:
    """Count, sum and maximum of numbers that are added in parts, and an evenly spaced sample for percentiles."""

    def __init__(self) -> None:
        self.count, self.sum, self.largest = 0, 0.0, 0.0
        self._every = 1
        self._sample: list[Array] = []

    def add(self, values: Array) -> None:
        """Adds values, none below 0."""
        if not len(values):
            return
        self._sample.append(values[-self.count % self._every :: self._every].copy())
        self.count, self.sum = self.count + len(values), self.sum + float(values.sum())
        self.largest = max(self.largest, float(values.max()))
        while sum(len(each) for each in self._sample) >= 2 * KEPT:
            self._sample, self._every = [np.concatenate(self._sample)[::2]], 2 * self._every

    @property
    def mean(self) -> float:
        """Mean of all values; there must be one."""
        return self.sum / self.count

    @property
    def median(self) -> float:
        """Median of the sample; there must be a value."""
        return float(np.median(np.concatenate(self._sample)))

    def spread(self) -> dict[str, float] | None:
        """Median, 95th percentile and mean; None without values."""
        found = spread(np.concatenate(self._sample)) if self.count else None
        return found and found | {"mean": self.mean}


class _Policy:
    """Sums over the frames of one policy."""

    def __init__(self) -> None:
        self.sums = Counter[str](
            dict.fromkeys(("rows", "rows_computed", "macs_executed", "macs_audit", "macs_dense"), 0)
        )
        self.reasons = Counter[str]()
        self.seconds = Values()

    def add(self, frames: pa.Table) -> None:
        self.sums.update({name: int(column(frames, name).sum()) for name in self.sums})
        self.reasons.update(reason or "" for reason in frames["reason"].to_pylist())
        self.seconds.add(column(frames, "seconds"))


class Totals:
    """Sums over ledgers."""

    def __init__(self) -> None:
        self._sums = Counter[str]()
        self._single_task: int | None = 0
        self._causes = Counter[str]()
        self._stages = dict.fromkeys(("seconds", *STAGE_COLUMNS), 0.0)
        self._seconds, self._dense, self._oldest = Values(), Values(), Values()  # of valid frames
        self._stage_seconds = {name: Values() for name in STAGE_COLUMNS}
        self._policies: dict[str, _Policy] = {}
        self._drift: dict[str, Values] = {}
        self._audits: dict[str, DriftSums] = {}

    def add(self, ledger: pa.Table) -> "Totals":
        """Adds a ledger; all rows of a frame must be in the same one."""
        frames = frame_table(ledger)
        valid = column(frames, "valid").astype(bool)
        self._sums["frames"] += len(frames)
        self._sums["invalid"] += int((~valid).sum())
        self._sums["predicted"] += int(pc.sum(ledger["predicted"]).as_py() or 0)
        self._sums["rows"] += int(column(frames, "rows")[valid].sum())
        for name in ("rows_computed", "macs_executed", "macs_audit", "macs_dense"):
            self._sums[name] += int(column(frames, name).sum())
        single = frames["macs_single_task"]
        known = self._single_task is not None and not single.null_count
        self._single_task = (self._single_task or 0) + int(pc.sum(single).as_py() or 0) if known else None
        invalid = frames.filter(pc.invert(frames["valid"]))
        self._causes.update(cause or "invalid" for cause in invalid["cause"].to_pylist())
        for name in self._stages:
            self._stages[name] += float(column(frames, name).sum())
        self._seconds.add(column(frames, "seconds")[valid])
        self._oldest.add(np.asarray(frames["oldest_s"].drop_null()))
        for name, values in self._stage_seconds.items():
            seconds = column(frames, name)[valid]
            values.add(seconds[seconds > 0])
        for policy in dict.fromkeys(str(policy) for policy in frames["policy"].to_pylist()):
            part = frames.filter(pc.equal(frames["policy"], policy))
            self._policies.setdefault(policy, _Policy()).add(part)
            if policy == "dense":
                self._dense.add(column(part.filter(part["valid"]), "seconds"))
        audited = ledger.filter(pc.is_valid(ledger["drift"]))
        for task in dict.fromkeys(str(task) for task in audited["task"].to_pylist()):
            drift = column(audited.filter(pc.equal(audited["task"], task)), "drift")
            self._drift.setdefault(task, Values()).add(drift)
        self._sums["reused"] += _reused(ledger)
        for task, rows in split_tasks(ledger.filter(ledger["predicted"])).items():
            self._audits.setdefault(task, DriftSums()).add(rows)
        return self

    def result(self) -> dict[str, Any]:
        """The sums.

        Returns:
            frames, invalid, invalid_by_cause; predicted (ledger rows with a prediction); policies (frames by policy);
            rows, rows_computed (of the frames' first task); oldest_s (median and maximum over valid frames of the
            age of the oldest patch); macs_executed, macs_dense; saved (1 - executed / dense, null without a valid
            frame), saved_unaudited (the same without audits); macs_audit (part of executed); reused (frames whose
            outputs come from another picture); macs_single_task, sharing
            (null unless known for every row); seconds, seconds_by_stage, frame_seconds (of valid frames), fps;
            by_policy; seconds_saved (share of time that a valid frame takes less than a dense one of this run, by mean
            and by median; null where fewer than `FEWEST_DENSE` ran); drift (plain numbers of the audited frames);
            audits (estimates for all frames by task, see `DriftSums.result`).
        """
        sums, dense, single = self._sums, self._sums["macs_dense"], self._single_task if self._sums["frames"] else None
        seconds = self._stages["seconds"]
        return {
            "frames": sums["frames"],
            "invalid": sums["invalid"],
            "invalid_by_cause": dict(sorted(self._causes.items())),
            "predicted": sums["predicted"],
            "policies": {policy: each.seconds.count for policy, each in self._policies.items()},
            "rows": sums["rows"],
            "rows_computed": sums["rows_computed"],
            "oldest_s": {"median": self._oldest.median, "max": self._oldest.largest} if self._oldest.count else None,
            "macs_executed": sums["macs_executed"],
            "macs_audit": sums["macs_audit"],
            "reused": sums["reused"],
            "macs_dense": dense,
            "saved": 1 - sums["macs_executed"] / dense if dense else None,
            "saved_unaudited": 1 - (sums["macs_executed"] - sums["macs_audit"]) / dense if dense else None,
            "macs_single_task": single,
            "sharing": single / dense if single and dense else None,
            "seconds": seconds,
            "seconds_by_stage": by_stage(self._stages),
            "frame_seconds": self._seconds.spread(),
            "fps": self._seconds.count / seconds if seconds > 0 else None,
            "by_policy": self._by_policy(),
            "seconds_saved": self._seconds_saved(),
            "drift": {
                task: {"audits": values.count, "mean": values.mean, "max": values.largest}
                for task, values in self._drift.items()
            },
            "audits": {task: found for task, sums in self._audits.items() if (found := sums.result()) is not None},
        }

    def stage_spreads(self) -> dict[str, dict[str, float] | None]:
        """Median, 95th percentile and mean of every stage's seconds over the valid frames that it ran on; null if
        none."""
        return {name.removeprefix("seconds_"): values.spread() for name, values in self._stage_seconds.items()}

    def _by_policy(self) -> dict[str, dict[str, Any]]:
        """Frames, reasons, rows and costs of each policy."""
        parts = {policy: self._policies[policy] for policy in in_order(self._policies)}
        return {
            policy: {
                "frames": part.seconds.count,
                "share": part.seconds.count / self._sums["frames"],
                "reasons": dict(part.reasons.most_common()),
                **part.sums,
                "frame_seconds": part.seconds.spread(),
            }
            for policy, part in parts.items()
        }

    def _seconds_saved(self) -> dict[str, float] | None:
        """Share of time that a valid frame took less than a dense one of the same run; None where these are few.

        Means are compared with means and medians with medians: the slow first frame of a run counts in both means and
        in neither median. Of a few dense frames it would be most of the mean, and the saving would look larger than it
        is.
        """
        if self._dense.count and self._dense.count == self._seconds.count:
            return {"mean": 0.0, "median": 0.0}
        if self._dense.count < FEWEST_DENSE or self._dense.median <= 0:
            return None
        return {
            "mean": 1 - self._seconds.mean / self._dense.mean,
            "median": 1 - self._seconds.median / self._dense.median,
        }


def _reused(ledger: pa.Table) -> int:
    """Number of frames whose outputs come from another picture: neither dense, nor held in a run that compares none."""
    first = ledger.filter(pc.equal(ledger["task"], ledger["task"][0])) if len(ledger) else ledger
    same = pc.and_(
        pc.equal(first["policy"], "held"), pc.and_(pc.is_null(first["patches_moved"]), pc.is_valid(first["macs_audit"]))
    )
    kept = pc.or_(pc.equal(first["policy"], "dense"), same)
    return int(pc.sum(pc.and_not(first["valid"], kept)).as_py() or 0)


class TaskTotals:
    """Sums over ledgers by task, with the time of every stage."""

    def __init__(self) -> None:
        self._tasks: dict[str, Totals] = {}

    def add(self, ledger: pa.Table) -> "TaskTotals":
        """Adds a ledger; all rows of a frame must be in the same one."""
        for task in dict.fromkeys(str(task) for task in ledger["task"].to_pylist()):
            self._tasks.setdefault(task, Totals()).add(ledger.filter(pc.equal(ledger["task"], task)))
        return self

    def result(self) -> dict[str, dict[str, Any]]:
        """By task: `Totals.result` and `stage_seconds`."""
        return {task: each.result() | {"stage_seconds": each.stage_spreads()} for task, each in self._tasks.items()}


def totals(ledger: pa.Table) -> dict[str, Any]:
    """`Totals.result` of one ledger."""
    return Totals().add(ledger).result()


def task_totals(ledger: pa.Table) -> dict[str, dict[str, Any]]:
    """`TaskTotals.result` of one ledger."""
    return TaskTotals().add(ledger).result()
