"""Scores of policies as Markdown tables and as plain values for JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from deltascene.pipeline.evaluation.clip_scores import MOVING, REGIONS, WHOLE, Columns
from deltascene.pipeline.evaluation.clip_table import Judged, judge, mean_ms
from deltascene.pipeline.evaluation.walk import EXACT

HEAD = (
    "| policy | loss whole % | loss moving % | {tasks} | the same, moving | flicker % | as dense % "
    "| MACs % | ms{eager} | frames |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def markdown(clips: Sequence[Mapping[str, Columns]], eager: str) -> str:
    """Table of policies on a clip, or of their means over several clips.

    Times are divided into that of the policy `eager`; where it wasn't measured, they are those of scoring, marked ~.
    """
    names = [name for name in clips[0] if name != eager]
    judged = {name: judge(clips, name) for name in names}
    reference = mean_ms(clips, eager) if all(eager in clip for clip in clips) else None
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
    """Table of losses and MACs by clip, of the policies whose names don't begin with `leave_out`."""
    first = next(iter(clips.values()))
    names = [name for name in first if "macs" in first[name] and name != EXACT and not name.startswith(leave_out)]
    lines = [f"| clip | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for clip, records in clips.items():
        rows = [judge([records], name) for name in names]
        cells = [f"{row.loss[WHOLE]:+z.1f} / {row.loss[MOVING]:+z.1f} @ {row.macs:.0f}" for row in rows]
        lines.append(f"| {clip} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plain(clips: Sequence[Mapping[str, Columns]], eager: str) -> dict[str, Any]:
    """The scores for JSON, by policy."""
    numbers: dict[str, Any] = {name: asdict(judge(clips, name)) for name in clips[0] if name != eager}
    return numbers | ({eager: {"ms": mean_ms(clips, eager)}} if all(eager in clip for clip in clips) else {})


def _loss_cell(row: Judged, region: str) -> str:
    low, high = row.interval[region]
    return f"{row.loss[region]:+z.1f} [{low:+z.1f}, {high:+z.1f}]"


def _short(error: float) -> str:
    return f"{error:.1f}" if error >= 1 else f"{error:.3f}".lstrip("0")


def _frames(policies: Mapping[str, int]) -> str:
    """Number of frames by policy, the most frequent first."""
    counted: Counter[str] = Counter()
    for name, count in policies.items():
        counted[name.partition("/")[0]] += count
    return ", ".join(f"{count} {name}" for name, count in counted.most_common())
