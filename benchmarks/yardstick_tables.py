"""Rows of `yardsticks.py`, and their tables as Markdown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deltascene.pipeline.evaluation.clip_scores import MOVING, WHOLE

HEAD = (
    "| clip | ours | k | loss whole / moving % @ MACs %: ours | B2 + best k | B3 | ms: ours | B2 + best k | B3 | B2 "
    "| B1 | MACs of B2 + best k's | times faster than B2 + best k | than B3 | than B2 |"
)
MEANS = (
    "| clips | | ours | loss whole / moving % @ MACs %: ours | B2 + best k | B3 | MACs of B2 + best k's, at most "
    "| times faster than B2 + best k, at least | than B3, at least | than the better of both, at least | than B2 |"
)


@dataclass(frozen=True)
class Scored:
    """Loss, cost and time of a policy on a clip.

    Attributes:
        loss: against truth in percent, by region; NaN where nothing moves.
        macs: in percent of dense prediction's.
        ms: mean time of a frame; None where it wasn't measured.
    """

    loss: Mapping[str, float]
    macs: float
    ms: float | None = None


@dataclass(frozen=True)
class Row:
    """A policy of ours on a clip, beside its yardsticks.

    Attributes:
        clip: its name.
        group: of its kind.
        name: of the policy.
        k: of B2 + best k and of B3; 1 is dense.
        ours: the policy.
        warp: B2 + best k.
        gate: B3.
        dense: B2.
        single: B1.
        int8: B2 in int8, if that was wanted.
    """

    clip: str
    group: str
    name: str
    k: int
    ours: Scored
    warp: Scored
    gate: Scored
    dense: Scored
    single: Scored
    int8: Scored | None = None

    def times_faster(self, other: Scored) -> float | None:
        """Time of a yardstick in ours."""
        return None if self.ours.ms is None or other.ms is None else other.ms / self.ours.ms

    def better(self) -> Scored:
        """The faster one of B2 + best k and B3."""
        return min(self.warp, self.gate, key=lambda one: one.ms or 0.0)

    @property
    def macs_share(self) -> float:
        """MACs of ours as a share of those of B2 + best k."""
        return self.ours.macs / self.warp.macs


def table(rows: Sequence[Row]) -> str:
    """A line for every policy on every clip."""
    lines = [HEAD, _rule(HEAD)]
    for row in rows:
        scores = [_scores(one) for one in (row.ours, row.warp, row.gate)]
        times = [_ms(one) for one in (row.ours, row.warp, row.gate, row.dense, row.single)]
        faster = [_times(row.times_faster(one)) for one in (row.warp, row.gate, row.dense)]
        k = "dense" if row.k == 1 else f"{row.k}"
        lines.append(f"| {' | '.join([row.clip, row.name, k, *scores, *times, f'{row.macs_share:.2f}', *faster])} |")
    return "\n".join(lines)


def means(rows: Sequence[Row]) -> str:
    """A line for every policy on every kind of clip: means, geometric ones of ratios, and the worst clip."""
    lines = [MEANS, _rule(MEANS)]
    for group, name in dict.fromkeys((row.group, row.name) for row in rows):
        mine = [row for row in rows if (row.group, row.name) == (group, name)]
        scores = [_scores(mean_scored([choose(row) for row in mine])) for choose in (_ours, _warp, _gate)]
        worst = max(mine, key=lambda row: row.macs_share)
        shares = f"{_geometric([row.macs_share for row in mine]):.2f}, {worst.macs_share:.2f} ({worst.clip})"
        faster = [_with_least(mine, choose) for choose in (_warp, _gate, Row.better)]
        than_dense = _times(_geometric([row.times_faster(row.dense) for row in mine]))
        lines.append(f"| {' | '.join([group, f'{len(mine)}', name, *scores, shares, *faster, than_dense])} |")
    return "\n".join(lines)


def int8_table(rows: Sequence[Row]) -> str:
    """B2 in int8 with its own loss, for each clip."""
    lines = ["| clip | B2 int8: loss whole / moving % | ms | B2 ms |", "|---|---|---|---|"]
    for row in {row.clip: row for row in rows}.values():
        if row.int8 is not None:
            losses = _scores(row.int8).partition(" @")[0]
            lines.append(f"| {row.clip} | {losses} | {_ms(row.int8)} | {_ms(row.dense)} |")
    return "\n".join(lines)


def mean_scored(scored: Sequence[Scored]) -> Scored:
    """Mean over clips; a loss that isn't known doesn't count."""
    loss = {region: _mean_of_known([one.loss[region] for one in scored]) for region in scored[0].loss}
    return Scored(loss, float(np.mean([one.macs for one in scored])))


def _ours(row: Row) -> Scored:
    return row.ours


def _warp(row: Row) -> Scored:
    return row.warp


def _gate(row: Row) -> Scored:
    return row.gate


def _with_least(rows: Sequence[Row], choose: Callable[[Row], Scored]) -> str:
    ratios = {row.clip: row.times_faster(choose(row)) for row in rows}
    known = {clip: ratio for clip, ratio in ratios.items() if ratio is not None}
    if len(known) < len(rows):
        return ""
    worst = min(known, key=lambda clip: known[clip])
    return f"{_times(_geometric(list(known.values())))}, {known[worst]:.2f}× ({worst})"


def _geometric(ratios: Sequence[float | None]) -> float | None:
    known = [ratio for ratio in ratios if ratio is not None]
    return float(np.exp(np.mean(np.log(known)))) if len(known) == len(ratios) else None


def _mean_of_known(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _scores(one: Scored) -> str:
    whole, moving = (_signed(one.loss[region]) for region in (WHOLE, MOVING))
    return f"{whole} / {moving} @ {one.macs:.1f}"


def _signed(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:+z.1f}"


def _ms(one: Scored) -> str:
    return "" if one.ms is None else f"{one.ms:.1f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}×"


def _rule(head: str) -> str:
    return "|" + "---|" * (head.count("|") - 1)
