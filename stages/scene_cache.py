"""The scene cache: keys and values of every block, and the tokens that heads read, of one stream and one transformer.

It is to a video what a key/value cache is to a text: new rows are written in place, all others keep what they had. It
is the only state of the network, it never outlives a segment, and only rows.py writes into it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deltascene.stages.backbone import Block


@dataclass(frozen=True, slots=True)
class SceneCache:
    """Preallocated tensors; their contents are undefined until a dense pass has run.

    Attributes:
        keys_values: of every block, head-major [2, heads, N, d].
        taps: residual stream at every tap [N, D], by the number of blocks run before.
    """

    keys_values: Sequence[Tensor]
    taps: dict[int, Tensor]

    @property
    def size_bytes(self) -> int:
        """Memory that it holds."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.keys_values, *self.taps.values()))


def allocate_cache(blocks: Sequence[Block], tokens: int, width: int, taps: Iterable[int]) -> SceneCache:
    """A cache for some blocks.

    Args:
        blocks: those that will run, in order.
        tokens: N, of a frame.
        width: D of the residual stream.
        taps: where heads read.
    """
    return SceneCache(
        [torch.empty(2, block.attn.num_heads, tokens, block.attn.head_dim) for block in blocks],
        {tap: torch.empty(tokens, width) for tap in sorted(set(taps))},
    )
