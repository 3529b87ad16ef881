"""Losses on cells, one for each kind of task.

Shape letters: R tokens, Q cells of a token, C channels.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from deltascene.stages.kinds import Kind

Loss = Callable[[Tensor, Tensor, Kind], Tensor]


def cell_loss(raw_RX: Tensor, truth: Tensor, kind: Kind) -> Tensor:
    """Loss of a head's raw cells.

    Args:
        raw_RX: head output [R, C*Q], channel first.
        truth: stored form [R, Q] or [R, Q, components].
        kind: of the task.

    Returns:
        The loss, a scalar; cells without truth don't count.
    """
    raw_RCQ = raw_RX.view(raw_RX.shape[0], kind.channels, -1)
    return LOSSES[kind.name](raw_RCQ, truth, kind)


def _classes(raw_RCQ: Tensor, truth_RQ: Tensor, kind: Kind) -> Tensor:
    return functional.cross_entropy(raw_RCQ, truth_RQ.long(), ignore_index=int(kind.stored.fill))


def _scalar(raw_RCQ: Tensor, truth_RQ: Tensor, kind: Kind) -> Tensor:
    value = truth_RQ.float() / kind.stored.scale
    known = torch.isfinite(value) & (
        value > 0 if kind.activation == "exp" else torch.ones_like(value, dtype=torch.bool)
    )
    if kind.activation != "exp":
        return _mean((raw_RCQ[:, 0] - value).abs(), known)
    off = raw_RCQ[:, 0] - value.clamp_min(1e-3).log()
    return _mean(off.abs() + 0.5 * (off.clamp_max(2).exp() - 1).abs(), known)  # the second term is the relative error


def _vector(raw_RCQ: Tensor, truth_RQC: Tensor, kind: Kind) -> Tensor:
    value = truth_RQC.float().movedim(-1, 1) / kind.stored.scale
    known = value.norm(dim=1) > 0.5 if kind.activation == "unit" else torch.isfinite(value).all(1)
    if kind.activation != "unit":
        return _mean((raw_RCQ - value).abs().mean(1), known)
    cosine = functional.cosine_similarity(raw_RCQ, value, dim=1)
    return _mean((1 - cosine) + 0.5 * (1 - cosine).clamp_min(1e-6).sqrt(), known)


def _heatmaps(raw_RCQ: Tensor, truth: Tensor, kind: Kind) -> Tensor:
    value = truth.float() / kind.stored.scale
    wanted = value.movedim(-1, 1) if kind.components > 1 else value[:, None]
    known = torch.isfinite(wanted)
    return _mean(functional.binary_cross_entropy_with_logits(raw_RCQ, wanted.nan_to_num(), reduction="none"), known)


def _mean(loss: Tensor, known: Tensor) -> Tensor:
    return (loss * known).sum() / known.sum().clamp_min(1)


LOSSES: Mapping[str, Loss] = {"classes": _classes, "scalar": _scalar, "vector": _vector, "heatmaps": _heatmaps}
