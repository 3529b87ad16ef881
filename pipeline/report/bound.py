"""What the pilot of a run predicted, and what audits found of it: values of the report's `bound`.

All drifts are shares, 1 is all wrong (degrees count as shares of 90°), so that a mean over tasks has a meaning.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deltascene.pipeline.report.series import ceiling
from deltascene.pipeline.runs.pilot_record import MEAN, PARTS
from deltascene.stages.kinds import ALL_WRONG

SUFFIX = {"moved": "_moved", "whole": ""}  # by region, of the names in `DriftSums.result`
NAMES = ("drift", "floor", "excess")
LEFT_OUT = ("decode", "audit", "write", "archive")  # stages that a bound on time isn't about

Estimate = Mapping[str, float | None]
ByTask = Mapping[str, Mapping[str, Any]]


def bound_report(pilot: Any, whole: Mapping[str, Any], kinds: Mapping[str, str]) -> dict[str, Any] | None:
    """Predicted and audited drift of a run that began with a pilot; None for another.

    Args:
        pilot: the pilot's record in `run.yaml`, if there is one (see `evaluation.pilot.Pilot.record`).
        whole: result of `totals` for the run.
        kinds: name of every task's kind.

    Returns:
        max_drift: the bounds; empty for a pilot with another goal.
        frames, of_frames, windows (their number), kept, chosen (scale of its step), tightened: of the pilot.
        steps: of every step, the strictest first, scale, numbers, macs, chosen (whether it is), and by region (moved,
            whole) and task drift, floor, excess and at_most as predicted; `MEAN` is the mean over tasks.
        audited: by region and task drift, floor and excess, each with mean, low and high, or null; see `_mean_of`.
        limits: of every bound and region of, region, at_most, audited (null where there were too few audits), over.
        max_ms: the bound on time; null for a pilot with another goal.
        ms: mean time of computing a valid frame of this run, with resizing, without audits; null without one.
        macs: what this run executed without audits, as a share of dense prediction's.
        plotted: names of those tasks whose excess is plotted; tops: upper ends of the axes macs, moved and whole.
    """
    if not isinstance(pilot, Mapping) or not pilot:
        return None
    bounds, chosen = dict(pilot.get("max_drift") or {}), pilot.get("chosen")
    steps = [{**step, "chosen": step.get("scale") == chosen} for step in pilot.get("steps") or ()]
    found = {region: _audited(whole["audits"], kinds, suffix) for region, suffix in SUFFIX.items()}
    limits = [_limit(of, region, PARTS[region] * most, found) for of, most in bounds.items() for region in PARTS]
    executed = whole["macs_executed"] - whole["macs_audit"]
    macs = executed / whole["macs_dense"] if whole["macs_dense"] else None
    plotted = list(bounds) or [MEAN]
    tops = {region: ceiling(_heights(region, plotted, steps, found, limits)) for region in PARTS}
    return {
        "max_drift": bounds,
        "max_ms": pilot.get("max_ms"),
        "ms": _ms_per_frame(whole),
        **{name: pilot.get(name) for name in ("frames", "of_frames", "kept", "chosen")},
        "windows": len(pilot.get("windows") or ()),
        "tightened": bool(pilot.get("tightened")),
        "steps": steps,
        "audited": found,
        "limits": limits,
        "macs": macs,
        "plotted": plotted,
        "tops": {"macs": ceiling([macs or 0.0, *(step.get("macs") or 0.0 for step in steps)]), **tops},
    }


def _ms_per_frame(whole: Mapping[str, Any]) -> float | None:
    frames = whole["frames"] - whole["invalid"]
    if not frames:
        return None
    left_out = sum(whole["seconds_by_stage"][stage] for stage in LEFT_OUT)
    return float(1e3 * (whole["seconds"] - left_out) / frames)


def _audited(audits: ByTask, kinds: Mapping[str, str], suffix: str) -> dict[str, dict[str, Estimate | None]]:
    """Drift, floor and excess in a region as shares, of the mean over tasks and of every task; empty without audits."""
    tasks = {
        task: {name: _as_share(each[f"{name}{suffix}"], ALL_WRONG.get(kinds.get(task, ""), 1.0)) for name in NAMES}
        for task, each in audits.items()
    }
    return {MEAN: _mean_of(list(tasks.values())), **tasks} if tasks else {}


def _mean_of(tasks: Sequence[Mapping[str, Estimate | None]]) -> dict[str, Estimate | None]:
    """The mean over the tasks whose excess has an interval; where none has one, over those that have an excess at all.

    Its interval goes from the mean of the lower ends to that of the upper ends. That is as wide as if all tasks erred
    in the same direction, so too wide rather than too narrow.
    """
    known = [each for each in tasks if each["excess"]]
    sure = [each for each in known if each["excess"] and each["excess"]["low"] is not None]
    of = sure or known or tasks
    return {name: _mean([each[name] for each in of]) for name in NAMES}


def _mean(estimates: Sequence[Estimate | None]) -> Estimate | None:
    known = [each for each in estimates if each]
    if not known:
        return None
    ends = {end: [value for each in known if (value := each[end]) is not None] for end in ("mean", "low", "high")}
    return {end: sum(values) / len(known) if len(values) == len(known) else None for end, values in ends.items()}


def _as_share(estimate: Estimate | None, all_wrong: float) -> Estimate | None:
    if estimate is None:
        return None
    return {end: None if value is None else value / all_wrong for end, value in estimate.items()}


def _limit(of: str, region: str, at_most: float, found: Mapping[str, ByTask]) -> dict[str, Any]:
    """A bound in a region, and what audits say of it."""
    excess = found[region].get(of, {}).get("excess")
    audited = excess["mean"] if excess and excess["low"] is not None else None
    over = audited is not None and audited > at_most
    return {"of": of, "region": region, "at_most": at_most, "audited": audited, "over": over}


def _heights(
    region: str,
    plotted: Sequence[str],
    steps: Sequence[Mapping[str, Any]],
    found: Mapping[str, ByTask],
    limits: Sequence[Mapping[str, Any]],
) -> list[float]:
    """All that a region's plots show."""
    heights = [each["at_most"] for each in limits if each["region"] == region]
    for step in steps:
        heights += [step.get(region, {}).get(of, {}).get(name) for of in plotted for name in ("excess", "at_most")]
    for each in (found[region].get(of, {}).get("excess") for of in plotted):
        heights += [each["mean"], each["high"]] if each else []
    return [height for height in heights if height is not None]
