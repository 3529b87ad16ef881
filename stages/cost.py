"""Multiply-accumulates (MACs) as integer functions of shapes.

Only matrix products are counted: linear layers, attention scores and attention sums. Norms, activations, softmax,
additions and resampling are elementwise and aren't counted, as is usual in the field.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlockShape:
    """Shapes that the MACs of one block depend on.

    Attributes:
        linear: MACs of all its linear layers for one row.
        attention: width of the attention, heads x head width.
    """

    linear: int
    attention: int


@dataclass(frozen=True, slots=True)
class Macs:
    """MACs of one task on one frame, by stage."""

    embed: int = 0
    blocks: int = 0
    head: int = 0

    def __add__(self, other: "Macs") -> "Macs":
        """Sum by stage."""
        return Macs(self.embed + other.embed, self.blocks + other.blocks, self.head + other.head)

    def __mul__(self, times: int) -> "Macs":
        """The same several times, by stage."""
        return Macs(self.embed * times, self.blocks * times, self.head * times)

    @property
    def total(self) -> int:
        """Sum over all stages."""
        return self.embed + self.blocks + self.head


def embed_macs(patches: int, patch_macs: int) -> int:
    """MACs of embedding `patches` patches at `patch_macs` each."""
    return patches * patch_macs


def block_macs(shape: BlockShape, rows: int, tokens: int) -> int:
    """MACs of one block on `rows` of `tokens` rows: linear layers, and attention of the rows to all tokens."""
    return rows * shape.linear + 2 * rows * tokens * shape.attention


def blocks_macs(shapes: Sequence[BlockShape], rows: int, tokens: int) -> int:
    """MACs of several blocks on the same rows."""
    return sum(block_macs(shape, rows, tokens) for shape in shapes)
