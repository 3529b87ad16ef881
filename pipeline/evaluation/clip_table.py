"""Scores of a policy from its records: loss, errors, flicker, agreement, costs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deltascene.pipeline.evaluation.clip_scores import (
    REGIONS,
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


@dataclass(frozen=True)
class Judged:
    """Scores of a policy on a clip, or their means over several clips.

    Attributes:
        loss: loss against truth, mean over tasks of error / dense error - 1 in percent, by region.
        interval: its 95 % bootstrap interval, by region.
        errors: of every task by `task/region`: share of wrong pixels, mean relative error, mean degrees, 1 - F.
        flicker: share of the still pixels whose class changes from one frame to the next, in percent.
        agreement: share of pixels with the same class as in dense prediction, in percent.
        macs: MACs executed, in percent of dense prediction's.
        ms: mean time of a frame in milliseconds.
        policies: number of frames by policy and reason.
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
    """Scores of the policy `name` on a clip; for several, means over them and an interval that also draws clips."""
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
        for policy, reason in zip(clip[name]["policy"].flat, clip[name]["reason"].flat, strict=True)
    )

    def mean(column: str, scale: float) -> float:
        return scale * float(mean_of_known(np.stack([error_of(total[column]) for total in totals])))

    errors = {column: mean(column, 1) for column in totals[0] if "/" in column}
    return Judged(
        loss=loss,
        interval=interval,
        errors=errors,
        flicker=mean("flicker", 100),
        agreement=mean("agreement", 100),
        macs=mean("macs", 100),
        ms=mean_ms(clips, name),
        policies=dict(counted.most_common()),
    )


def _loss(mine: Mapping[str, Numbers], dense: Mapping[str, Numbers], *, region: str) -> Numbers:
    return loss_percent(mine, dense, region)


def mean_ms(clips: Sequence[Mapping[str, Columns]], name: str) -> float:
    """Mean time of a frame in milliseconds, equally weighted over clips."""
    return 1e3 * float(np.mean([error_of(add_up(clip[name])["seconds"]) for clip in clips]))
