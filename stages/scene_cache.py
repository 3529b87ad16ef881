"""The scene cache: keys and values of every block, and the tokens that heads read, of one stream and one transformer.

It is to a video what a key/value cache is to a text: new rows are written in place, all others keep what they had. It
is the only state of the network, it never outlives a segment, and only rows.py writes into it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

PANEL = 32  # tokens that a compiled product reads at a time, at most: every row of keys takes whole ones


class KeyShape(NamedTuple):
    """What a block needs to know to be given a cache.

    Attributes:
        heads: attention heads.
        head_dim: width of one.
        dtype: of keys and values.
        lane: numbers that lie side by side: 2 where a compiled product takes pairs of bfloat16.
    """

    heads: int
    head_dim: int
    dtype: torch.dtype = torch.float32
    lane: int = 1


class KeysValues(NamedTuple):
    """Of all tokens of a frame in one block, in lanes of l numbers along what a product sums over.

    Attributes:
        keys_HdNl: keys, token after width, so that scores of some rows are a plain product [heads, d / l, padded, l].
        values_HNdl: values [heads, ceil(N / l), d, l].
        tokens: N.
    """

    keys_HdNl: Tensor
    values_HNdl: Tensor
    tokens: int

    @property
    def plain_keys(self) -> Tensor:
        """Keys without lanes and the room at the end [heads, d, N]; a view where lanes are of one."""
        return self.keys_HdNl.transpose(2, 3).flatten(1, 2)[..., : self.tokens]

    @property
    def plain_values(self) -> Tensor:
        """Values without lanes [heads, N, d]; a view where lanes are of one."""
        return self.values_HNdl.transpose(2, 3).flatten(1, 2)[:, : self.tokens]


@dataclass(frozen=True, slots=True)
class SceneCache:
    """Preallocated tensors; their contents are undefined until a dense pass has run.

    Attributes:
        keys_values: of every block.
        taps: residual stream at every tap [N, D], by the number of blocks run before.
    """

    keys_values: Sequence[KeysValues]
    taps: dict[int, Tensor]


def allocate_cache(shapes: Sequence[KeyShape], tokens: int, width: int, taps: Iterable[int]) -> SceneCache:
    """A cache for some blocks.

    Args:
        shapes: of those that will run, in order.
        tokens: N, of a frame.
        width: D of the residual stream.
        taps: where heads read.
    """
    return SceneCache(
        [allocate_keys_values(shape, tokens) for shape in shapes],
        {tap: torch.empty(tokens, width) for tap in sorted(set(taps))},
    )


def padded_tokens(tokens: int) -> int:
    """Tokens that a row of keys has room for: whole panels, an odd number of them, so that neighbouring rows don't
    compete for the same places of a processor's cache."""
    panels = -(-tokens // PANEL)
    return PANEL * (panels + 1 - panels % 2)


def allocate_keys_values(shape: KeyShape, tokens: int) -> KeysValues:
    """Room for one block's keys and values."""
    heads, head_dim, dtype, lane = shape
    keys_HdNl = torch.empty(heads, head_dim // lane, padded_tokens(tokens), lane, dtype=dtype)
    values_HNdl = torch.zeros(heads, -(-tokens // lane), head_dim, lane, dtype=dtype)  # a lane's end may have no token
    return KeysValues(keys_HdNl, values_HNdl, tokens)
