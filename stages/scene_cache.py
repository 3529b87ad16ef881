"""The scene cache: keys and values of every block, and the tokens that heads read, of one stream and one transformer.

It is for a video what a key/value cache is for a text: new rows are written in place, all others keep their values. It
is the only state of the network, it is dropped at the end of a segment, and only rows.py writes into it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

PANEL = (
    32  # largest number of tokens that a compiled product reads at a time; a row of keys is padded to a multiple of it
)


class KeyShape(NamedTuple):
    """Shape and type of one block's keys and values.

    Attributes:
        heads: attention heads.
        head_dim: width of one head.
        dtype: of keys and values.
        lane: consecutive numbers that a product reads together: 2 where the compiled kernel takes pairs of bfloat16.
    """

    heads: int
    head_dim: int
    dtype: torch.dtype = torch.float32
    lane: int = 1


class KeysValues(NamedTuple):
    """Keys and values of all tokens of a frame in one block, in lanes of l numbers along the axis that is summed over.

    Attributes:
        keys_HdNl: keys, transposed, so that scores of some rows are a plain product [heads, d / l, padded, l].
        values_HNdl: values [heads, ceil(N / l), d, l].
        tokens: number of tokens N.
    """

    keys_HdNl: Tensor
    values_HNdl: Tensor
    tokens: int

    @property
    def plain_keys(self) -> Tensor:
        """Keys without lanes and padding [heads, d, N]; a view where a lane is one number."""
        return self.keys_HdNl.transpose(2, 3).flatten(1, 2)[..., : self.tokens]

    @property
    def plain_values(self) -> Tensor:
        """Values without lanes [heads, N, d]; a view where a lane is one number."""
        return self.values_HNdl.transpose(2, 3).flatten(1, 2)[:, : self.tokens]


@dataclass(frozen=True, slots=True)
class SceneCache:
    """Preallocated tensors; their contents are undefined until a dense pass has run.

    Attributes:
        keys_values: keys and values of every block.
        taps: residual stream at every tap [N, D], by the number of blocks run before.
    """

    keys_values: Sequence[KeysValues]
    taps: dict[int, Tensor]


def allocate_cache(shapes: Sequence[KeyShape], tokens: int, width: int, taps: Iterable[int]) -> SceneCache:
    """A cache for some blocks.

    Args:
        shapes: keys of the blocks that will run, in order.
        tokens: tokens of a frame, N.
        width: width of the residual stream, D.
        taps: points whose tokens are kept for heads, as numbers of blocks run before.
    """
    return SceneCache(
        [allocate_keys_values(shape, tokens) for shape in shapes],
        {tap: torch.empty(tokens, width) for tap in sorted(set(taps))},
    )


def padded_tokens(tokens: int) -> int:
    """Length of a row of keys: an odd number of whole panels, so that neighbouring rows fall into different sets of the
    processor's cache."""
    panels = -(-tokens // PANEL)
    return PANEL * (panels + 1 - panels % 2)


def allocate_keys_values(shape: KeyShape, tokens: int) -> KeysValues:
    """Uninitialised keys and values of one block."""
    heads, head_dim, dtype, lane = shape
    keys_HdNl = torch.empty(heads, head_dim // lane, padded_tokens(tokens), lane, dtype=dtype)
    values_HNdl = torch.zeros(
        heads, -(-tokens // lane), head_dim, lane, dtype=dtype
    )  # the last lane may be longer than the tokens
    return KeysValues(keys_HdNl, values_HNdl, tokens)
