"""Delta weights from two networks: the difference of a fine-tuned backbone and the base, cut to low rank.

The change of a linear layer's weight, W_k - W_0, is cut to its largest singular values, which is the nearest matrix of
that rank; nothing is trained. Every other tensor's change is kept as it is.

Shape letters besides those of types.py: r rank, I and O width of a layer's input and output, S singular values.

Source: Eckart and Young, "The approximation of one matrix by another of lower rank", Psychometrika 1936.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deltascene.stages.backbone import Backbone, Block
from deltascene.stages.delta import Delta, DeltaWeights, LowRank, linear_weights


@dataclass(frozen=True, slots=True)
class Cut:
    """How many of the largest singular values of a weight's change are kept; exactly one of the two is given.

    Attributes:
        rank: number of values.
        energy: the fewest values that hold this share of the sum of all squares; above 0 and at most 1.
    """

    rank: int | None = None
    energy: float | None = None

    def __post_init__(self) -> None:
        assert (self.rank is None) != (self.energy is None), self

    def __str__(self) -> str:
        return f"energy {self.energy:g}" if self.rank is None else f"rank {self.rank}"

    def rank_of(self, values_S: Tensor) -> int:
        """The rank that a weight's change is cut to.

        Args:
            values_S: singular values of the change, largest first.
        """
        if self.energy is None:
            assert self.rank is not None
            return min(self.rank, len(values_S))
        held_S = values_S.double().square().cumsum(0)
        return min(int((held_S < self.energy * held_S[-1]).sum()) + 1, len(values_S))


@dataclass(frozen=True, slots=True)
class TensorFit:
    """How well a delta holds the change of one tensor. Norms are Frobenius norms.

    Attributes:
        name: name of the base's tensor.
        rank: rank of its delta; None for a dense delta, 0 for none at all.
        parameters: parameters of its delta.
        base: norm of the base's tensor.
        change: norm of the fine-tuned tensor's difference from it.
        lost: norm of the part of that difference that the delta lacks.
    """

    name: str
    rank: int | None
    parameters: int
    base: float
    change: float
    lost: float


def relative_error(fits: Sequence[TensorFit]) -> float:
    """Share of the change that the deltas lack, ||dW - BA|| / ||dW|| over all tensors; 0 without a change."""
    lost, change = math.hypot(*(fit.lost for fit in fits)), math.hypot(*(fit.change for fit in fits))
    return lost / change if change else 0.0


def relative_change(fits: Sequence[TensorFit]) -> float:
    """Size of the change relative to the base, ||dW|| / ||W_0|| over all tensors; infinite where the base is 0."""
    change, base = math.hypot(*(fit.change for fit in fits)), math.hypot(*(fit.base for fit in fits))
    return change / base if base else math.inf if change else 0.0


def truncate(change_OI: Tensor, cut: Cut) -> Delta:
    """A weight's change as a product of two narrow matrices, or unchanged where these have as many parameters.

    Args:
        change_OI: the change [O, I], float32 and finite.
        cut: the rank or energy to keep.

    Returns:
        `LowRank`, with the root of every singular value in each of its factors; or `change_OI` itself.
    """
    out, width = change_OI.shape
    U_OS, values_S, V_SI = torch.linalg.svd(change_OI, full_matrices=False)
    rank = cut.rank_of(values_S)
    if rank * (out + width) >= out * width:
        return change_OI
    root_r = values_S[:rank].sqrt()
    return LowRank(A=root_r[:, None] * V_SI[:rank], B=U_OS[:, :rank] * root_r)


def compress_blocks(
    base: Sequence[Block], tuned: Sequence[Block], first: int, last: int, cut: Cut
) -> tuple[DeltaWeights, list[TensorFit]]:
    """Deltas that turn the base's blocks into fine-tuned ones, up to the cut.

    Args:
        base: all blocks of the base.
        tuned: all blocks of a network of the same architecture.
        first: the split: number of blocks before the first one with deltas.
        last: the last tap of the task's head: number of blocks up to the last one with deltas.
        cut: for the weights of linear layers; other tensors get dense deltas.

    Returns:
        The deltas, none for tensors that don't differ, and the fit of every tensor.
    """
    tensors: dict[str, Delta] = {}
    fits = []
    for number in range(first, last):
        weights, other = linear_weights(base[number]), dict(tuned[number].named_parameters())
        for part, value in base[number].named_parameters():
            name, change = f"blocks.{number}.{part}", (other[part] - value).detach()
            if not change.any():
                fits.append(_fit(name, value, change, None))
                continue
            tensors[name] = truncate(change, cut) if part in weights else change
            fits.append(_fit(name, value, change, tensors[name]))
    return DeltaWeights(tensors), fits


def below_split(base: Backbone, tuned: Backbone, first: int) -> list[TensorFit]:
    """Changes that no delta can hold: those of the embedding and of the blocks before the split.

    The norm after the last block is left out, as heads read the residual stream before it.

    Args:
        base: the base's network.
        tuned: a network of the same architecture.
        first: the split.
    """
    above = {id(value) for block in base.blocks[first:] for value in block.parameters()}
    other = dict(tuned.named_parameters())
    return [
        _fit(name, value, (other[name] - value).detach(), None)
        for name, value in base.read_parameters().items()
        if id(value) not in above
    ]


def _fit(name: str, base: Tensor, change: Tensor, delta: Delta | None) -> TensorFit:
    rank: int | None = 0
    held, parameters = torch.zeros_like(change), 0
    if delta is not None:
        rank, held = (delta.rank, delta.product()) if isinstance(delta, LowRank) else (None, delta)
        parameters = DeltaWeights({name: delta}).parameters
    return TensorFit(name, rank, parameters, _norm(base), _norm(change), _norm(change - held))


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64))
