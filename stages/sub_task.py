"""A sub-task's transformer: the base's blocks from the split on, with the sub-task's delta weights."""

from dataclasses import dataclass

from deltascene.stages.backbone import Backbone, Block
from deltascene.stages.cost import BlockShape
from deltascene.stages.delta import DeltaWeights, attach, delta_block_shapes, merge
from deltascene.stages.errors import UnfitDelta


@dataclass(frozen=True, slots=True, eq=False)
class SubTask:
    """Blocks that a sub-task runs on the base's activations at its split.

    Attributes:
        split: number of the base's blocks that are run before.
        blocks: its own blocks after that, in order.
        merged: True if the deltas are added to dense weights; False if they are low-rank products beside the base's.
        shapes: shapes of its blocks as they run, for their MACs.
    """

    split: int
    blocks: tuple[Block, ...]
    merged: bool
    shapes: tuple[BlockShape, ...]


def build_sub_task(backbone: Backbone, split: int, delta: DeltaWeights, merged: bool) -> SubTask:
    """Builds a sub-task's blocks from the base's and a delta; the base isn't changed.

    Args:
        backbone: the base's network.
        split: number of its blocks that the sub-task shares.
        delta: the sub-task's deltas.
        merged: as of `SubTask`.

    Raises:
        UnfitDelta: the delta doesn't fit the backbone, or the backbone ends before the split.
    """
    if not 0 <= split <= backbone.depth:
        raise UnfitDelta(f"split: expected 0 to {backbone.depth} blocks; found {split}")
    blocks = (merge if merged else attach)(backbone.blocks, delta, split)
    return SubTask(split, tuple(blocks), merged, tuple(delta_block_shapes(blocks)))
