"""Delta weights: the difference between a sub-task's blocks and the base's, W = W_0 + dW.

The delta of a linear layer's weight is a product of two narrow matrices (`LowRank`); every other tensor of a block
(norms, biases, LayerScale, or a whole weight) has a dense delta of its own shape. Tensors have the network's names,
`blocks.7.attn.qkv.weight`; a tensor without a delta is the base's. No block below the split has a delta.

Shape letters besides those of types.py: r rank, I and O width of a layer's input and output.
"""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor, nn
from torch.nn import functional

from deltascene.stages.backbone import Block
from deltascene.stages.cost import BlockShape
from deltascene.stages.errors import UnfitDelta

_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """The delta B A of a linear layer's weight [O, I].

    Attributes:
        A: factor [r, I].
        B: factor [O, r].
    """

    A: Tensor
    B: Tensor

    @property
    def rank(self) -> int:
        """Rank r, the number of columns of B."""
        return self.B.shape[1]

    def product(self) -> Tensor:
        """The delta itself [O, I]."""
        return self.B @ self.A


Delta = LowRank | Tensor


@dataclass(frozen=True, slots=True, eq=False)
class DeltaWeights:
    """All deltas of a sub-task.

    Attributes:
        tensors: deltas by the name of the base's tensor that they are added to.
    """

    tensors: Mapping[str, Delta]

    @classmethod
    def from_tensors(cls, flat: Mapping[str, Tensor]) -> "DeltaWeights":
        """Deltas from named tensors: `NAME.A` and `NAME.B` make one low-rank delta, any other `NAME` is a dense one.

        Raises:
            UnfitDelta: A or B is missing, or the same tensor has a dense delta, too.
        """
        tensors: dict[str, Delta] = {}
        for name, tensor in flat.items():
            whole, half = name[:-2], name[-2:]
            if half not in (".A", ".B"):
                tensors[name] = tensor
                continue
            other = f"{whole}{'.B' if half == '.A' else '.A'}"
            if other not in flat:
                raise UnfitDelta(f"delta {whole}: expected {whole}.A and {whole}.B; found only {name}")
            if whole in flat:
                raise UnfitDelta(f"delta {whole}: expected either a dense or a low-rank delta; found both")
            tensors[whole] = LowRank(flat[f"{whole}.A"], flat[f"{whole}.B"])
        return cls(tensors)

    def to_tensors(self) -> dict[str, Tensor]:
        """The deltas as named tensors, the inverse of `from_tensors`."""
        flat: dict[str, Tensor] = {}
        for name, delta in self.tensors.items():
            flat |= {f"{name}.A": delta.A, f"{name}.B": delta.B} if isinstance(delta, LowRank) else {name: delta}
        return flat

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(tensor.numel() for tensor in self.to_tensors().values())


class DeltaLinear(nn.Module):
    """A linear layer with an unmerged delta: W_0 x + b + B (A x). W_0 is the base's own tensor, not a copy."""

    def __init__(self, base: nn.Linear, delta: LowRank) -> None:
        """Wraps a layer.

        Args:
            base: the layer with weight and bias.
            delta: delta of its weight.
        """
        super().__init__()
        self.in_features, self.out_features, self.rank = base.in_features, base.out_features, delta.rank
        self.weight, self.bias = base.weight, base.bias
        self.A, self.B = nn.Parameter(delta.A), nn.Parameter(delta.B)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [..., I] to [..., O]."""
        narrow = functional.linear(x, self.A)
        return functional.linear(x, self.weight, self.bias) + functional.linear(narrow, self.B)

    def macs_per_row(self) -> int:
        """MACs of both products for one row."""
        return self.in_features * self.out_features + self.rank * (self.in_features + self.out_features)


def merge(blocks: Sequence[Block], delta: DeltaWeights, first: int) -> list[Block]:
    """A sub-task's blocks with the deltas added to their weights; they cost as much as the base's.

    Args:
        blocks: all blocks of the base; they aren't changed.
        delta: the sub-task's deltas.
        first: the split: number of blocks that the sub-task shares with the base.

    Returns:
        New blocks from the split on; tensors without a delta are the base's own.

    Raises:
        UnfitDelta: a delta's name, shape or block doesn't fit.
    """
    check_delta(blocks, delta, first)
    built = [_clone(block) for block in blocks[first:]]
    for name, change in delta.tensors.items():
        number, part = _place(name)
        _add(built[number - first], part, change.product() if isinstance(change, LowRank) else change)
    return built


def attach(blocks: Sequence[Block], delta: DeltaWeights, first: int) -> list[Block]:
    """A sub-task's blocks with unmerged low-rank deltas; they share the memory of the base's weights.

    Arguments and errors are those of `merge`; the outputs are the same up to rounding. Dense deltas are added.

    Returns:
        New blocks from the split on, whose layers with a low-rank delta are `DeltaLinear`.
    """
    check_delta(blocks, delta, first)
    built = [_clone(block) for block in blocks[first:]]
    for name, change in delta.tensors.items():
        if not isinstance(change, LowRank):
            number, part = _place(name)
            _add(built[number - first], part, change)
    for name, change in delta.tensors.items():
        if isinstance(change, LowRank):
            number, part = _place(name)
            where = part.rpartition(".")[0]
            built[number - first].set_submodule(where, DeltaLinear(built[number - first].get_submodule(where), change))
    return built


def difference(built: Sequence[Block], blocks: Sequence[Block], first: int) -> DeltaWeights:
    """The deltas between a sub-task's blocks and the base's, the inverse of `attach`.

    Args:
        built: the sub-task's blocks, from the split on.
        blocks: all blocks of the base.
        first: the split.

    Returns:
        Low-rank deltas of `DeltaLinear` layers, and dense deltas of all tensors that aren't the base's own.
    """
    tensors: dict[str, Delta] = {}
    for number, block in enumerate(built, start=first):
        base = dict(blocks[number].named_parameters())
        for name, layer in block.named_modules():
            if isinstance(layer, DeltaLinear):
                tensors[f"blocks.{number}.{name}.weight"] = LowRank(layer.A.detach(), layer.B.detach())
        for name, value in block.named_parameters():
            if name in base and value is not base[name]:
                tensors[f"blocks.{number}.{name}"] = (value - base[name]).detach()
    return DeltaWeights(tensors)


def start_delta(blocks: Sequence[Block], first: int, rank: int, generator: torch.Generator) -> DeltaWeights:
    """A trainable delta that is zero: low-rank with B zero for every linear weight, dense for every other tensor.

    Args:
        blocks: all blocks of the base.
        first: the split.
        rank: rank of each weight's delta, at most the weight's own.
        generator: random numbers for A.

    Source: Hu et al., "LoRA", ICLR 2022: one factor random, the other zero.
    """
    tensors: dict[str, Delta] = {}
    for number, block in enumerate(blocks[first:], start=first):
        weights = linear_weights(block)
        for part, base in block.named_parameters():
            if part not in weights:
                tensors[f"blocks.{number}.{part}"] = torch.zeros_like(base)
                continue
            out, width = base.shape
            kept = min(rank, out, width)
            A_rI = torch.randn(kept, width, generator=generator) * width**-0.5
            tensors[f"blocks.{number}.{part}"] = LowRank(A_rI, torch.zeros(out, kept))
    return DeltaWeights(tensors)


def delta_block_shapes(blocks: Sequence[Block]) -> list[BlockShape]:
    """Shapes of a sub-task's blocks, including low-rank products that aren't merged."""
    return [
        BlockShape(
            linear=sum(_layer_macs(layer) for layer in block.modules()),
            attention=block.attn.num_heads * block.attn.head_dim,
        )
        for block in blocks
    ]


def check_delta(blocks: Sequence[Block], delta: DeltaWeights, first: int) -> None:
    """Compares a delta's names and shapes with the base's blocks; tensors may be without memory.

    Args:
        blocks: all blocks of the base.
        delta: the sub-task's deltas.
        first: the split.

    Raises:
        UnfitDelta: a name isn't a tensor of the blocks, its block lies below the split, or its shape differs.
    """
    known = {
        f"blocks.{number}.{part}": tuple(tensor.shape)
        for number, block in enumerate(blocks)
        for part, tensor in block.named_parameters()
    }
    for name, change in delta.tensors.items():
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UnfitDelta(f"delta {name}: expected a tensor of the backbone's blocks; found none of that name{hint}")
        number, part = _place(name)
        if number < first:
            raise UnfitDelta(f"delta {name}: expected a block from the split on, {first} or later; found {number}")
        _check_shape(name, change, known[name], part in linear_weights(blocks[number]))


def linear_weights(block: Block) -> set[str]:
    """Names, within a block, of the weights that may have a low-rank delta: those of linear layers."""
    return {f"{name}.weight" for name, layer in block.named_modules() if isinstance(layer, nn.Linear)}


def _check_shape(name: str, change: Delta, shape: tuple[int, ...], is_linear: bool) -> None:
    if not isinstance(change, LowRank):
        if tuple(change.shape) != shape:
            raise UnfitDelta(f"delta {name}: expected shape {shape}; found {tuple(change.shape)}")
        return
    if not is_linear:
        raise UnfitDelta(f"delta {name}: expected a dense delta, as it isn't a linear layer's weight; found A and B")
    found_A, found_B = tuple(change.A.shape), tuple(change.B.shape)
    rank = found_A[0] if found_A else 0
    if rank < 1 or found_A != (rank, shape[1]):
        raise UnfitDelta(f"delta {name}.A: expected shape (rank, {shape[1]}); found {found_A}")
    if found_B != (shape[0], rank):
        raise UnfitDelta(f"delta {name}.B: expected shape {(shape[0], rank)}; found {found_B}")


def _place(name: str) -> tuple[int, str]:
    match = _BLOCK.fullmatch(name)
    assert match, name
    return int(match[1]), match[2]


def _clone(block: Block) -> Block:
    """A copy of a block's modules that shares its tensors."""
    shared = {id(tensor): tensor for tensor in (*block.parameters(), *block.buffers())}
    return deepcopy(block, shared)


def _add(block: Block, part: str, change: Tensor) -> None:
    where, _, leaf = part.rpartition(".")
    owner = block.get_submodule(where)
    base = getattr(owner, leaf)
    setattr(owner, leaf, nn.Parameter((base + change).detach(), requires_grad=base.requires_grad))


def _layer_macs(layer: nn.Module) -> int:
    if isinstance(layer, DeltaLinear):
        return layer.macs_per_row()
    return layer.in_features * layer.out_features if isinstance(layer, nn.Linear) else 0
