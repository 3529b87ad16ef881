"""From records to the numbers of a table, and the table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deltascene.pipeline.evaluation.clip_scores import (
    MOVING,
    REGIONS,
    WHOLE,
    Columns,
    Numbers,
    add_up,
    bootstrap,
    error_of,
    loss_percent,
    mean_of_known,
)
from deltascene.pipeline.evaluation.walk import EXACT

Interval = tuple[float, float]
HEAD = (
    "| policy | loss whole % | loss moving % | {tasks} | the same, moving | flicker % | as dense % "
    "| MACs % | ms{eager} | frames |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Judged:
    """What a policy is worth on a clip, or on the mean of several.

    Attributes:
        loss: mean over tasks of error / dense error - 1 in percent, by region.
        interval: its 95 % bootstrap interval, by region.
        errors: of every task by `task/region`: share of wrong pixels, mean relative error, mean degrees, 1 - F.
        flicker: share of the still pixels that change their class from one frame to the next, in percent.
        agreement: share of pixels of the same class as dense, in percent.
        macs: executed, in percent of dense.
        ms: mean time of a frame.
        policies: frames by what was done and why.
    """

    loss: Mapping[str, float]
    interval: Mapping[str, Interval]
    errors: Mapping[str, float]
    flicker: float
    agreement: float
    macs: float
    ms: float
    policies: Mapping[str, int]


def judge(clips: Sequence[Mapping[str, Columns]], name: str) -> Judged:
    """A policy on a clip, or on several: means of the clips' numbers, an interval that draws clips, too."""
    interval, loss = {}, {}
    for region in REGIONS:
        pairs = [(clip[name], clip[EXACT]) for clip in clips]
        sums = [(add_up(mine), add_up(dense)) for mine, dense in pairs]
        loss[region] = float(mean_of_known(np.stack([_loss(*both, region=region) for both in sums])))
        each, of_mean = bootstrap(pairs, lambda *both, region=region: _loss(*both, region=region))
        interval[region] = each[0] if len(clips) == 1 else of_mean
    totals = [add_up(clip[name]) for clip in clips]
    counted = Counter(
        f"{policy}/{reason}" if reason else str(policy)
        for clip in clips
        for policy, reason in zip(clip[name]["policy"], clip[name]["reason"], strict=True)
    )

    def mean(column: str, scale: float) -> float:
        return scale * float(mean_of_known(np.stack([error_of(total[column]) for total in totals])))

    errors = {column: mean(column, 1) for column in totals[0] if "/" in column}
    shares = (mean("flicker", 100), mean("agreement", 100), mean("macs", 100), _ms(clips, name))
    return Judged(loss, interval, errors, *shares, dict(counted.most_common()))


def _loss(mine: Mapping[str, Numbers], dense: Mapping[str, Numbers], *, region: str) -> Numbers:
    return loss_percent(mine, dense, region)


def markdown(clips: Sequence[Mapping[str, Columns]], eager: str) -> str:
    """A table of policies on a clip, or of their means over several.

    Times are compared with the one that `eager` names; where it wasn't taken they are from a scoring run, marked ~.
    """
    names = [name for name in clips[0] if name != eager]
    judged = {name: judge(clips, name) for name in names}
    reference = _ms(clips, eager) if all(eager in clip for clip in clips) else None
    tasks = [column.removesuffix(f"/{WHOLE}") for column in judged[EXACT].errors if column.endswith(WHOLE)]
    lines = [HEAD.format(tasks=" / ".join(tasks), eager="" if reference is None else f" ({eager} {reference:.0f})")]
    for name, row in judged.items():
        losses = ["0" if name == EXACT else _loss_cell(row, region) for region in REGIONS]
        errors = [" / ".join(_short(row.errors[f"{task}/{region}"]) for task in tasks) for region in REGIONS]
        time = f"~{row.ms:.0f}" if reference is None else f"{row.ms:.1f} ({reference / row.ms:.1f}×)"
        shares = [f"{row.flicker:.2f}", f"{row.agreement:.1f}", f"{row.macs:.1f}", time]
        lines.append("| " + " | ".join([name, *losses, *errors, *shares, _frames(row.policies)]) + " |")
    return "\n".join(lines)


def overview(clips: Mapping[str, Mapping[str, Columns]], leave_out: str) -> str:
    """A line for each clip: both losses and MACs of each policy whose name doesn't begin with `leave_out`."""
    first = next(iter(clips.values()))
    names = [name for name in first if "macs" in first[name] and name != EXACT and not name.startswith(leave_out)]
    lines = [f"| clip | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for clip, records in clips.items():
        rows = [judge([records], name) for name in names]
        cells = [f"{row.loss[WHOLE]:+z.1f} / {row.loss[MOVING]:+z.1f} @ {row.macs:.0f}" for row in rows]
        lines.append(f"| {clip} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plain(clips: Sequence[Mapping[str, Columns]], eager: str) -> dict[str, Any]:
    """The same numbers for JSON, by policy."""
    numbers: dict[str, Any] = {name: asdict(judge(clips, name)) for name in clips[0] if name != eager}
    return numbers | ({eager: {"ms": _ms(clips, eager)}} if all(eager in clip for clip in clips) else {})


def _ms(clips: Sequence[Mapping[str, Columns]], name: str) -> float:
    return 1e3 * float(np.mean([error_of(add_up(clip[name])["seconds"]) for clip in clips]))


def _loss_cell(row: Judged, region: str) -> str:
    low, high = row.interval[region]
    return f"{row.loss[region]:+z.1f} [{low:+z.1f}, {high:+z.1f}]"


def _short(error: float) -> str:
    return f"{error:.1f}" if error >= 1 else f"{error:.3f}".lstrip("0")


def _frames(policies: Mapping[str, int]) -> str:
    """Frames by policy alone, most frequent first."""
    counted: Counter[str] = Counter()
    for name, count in policies.items():
        counted[name.partition("/")[0]] += count
    return ", ".join(f"{count} {name}" for name, count in counted.most_common())
