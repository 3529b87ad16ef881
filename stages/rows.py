"""Transformer blocks on some rows of frames, with a scene cache for the other rows.

Rows interact only in `attend`; everything else is computed row by row. So a block can run on the rows that changed if
the keys and values of the others were kept: K[R] and V[R] are overwritten, and the R queries attend to all of K and V.
With all rows this is the plain network. Rows of several streams can go through a block together; each stream attends to
its own scene cache. This is the only file that writes into a tensor that it was handed, the scene cache; the compiled
kernel (rows.cpp) does so in its place.

Shape letters: N tokens of a frame, R rows being computed, D width, H heads, d width of a head.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from deltascene.stages.backbone import Block
from deltascene.stages.folded import FoldedBlock
from deltascene.stages.packed import PackedLinear
from deltascene.stages.scene_cache import KeyShape, KeysValues, SceneCache, allocate_keys_values

# Rows of several streams in one pack: with more, activations leave the processor's cache between two products.
PACKED_ROWS = 512
# Queries whose scores are held at a time: with more, the scores leave the processor's cache.
ROWS_AT_ONCE = {torch.float32: 32, torch.bfloat16: 128}


@dataclass(frozen=True, slots=True)
class StreamRows:
    """One stream's rows in a pack.

    Attributes:
        count: number of rows R.
        rows: tokens that the rows belong to, increasing int64 [R]; None is all of the frame's.
        cache: scene cache of the blocks that run; overwritten at `rows`. With None nothing is kept, and all rows run.
    """

    count: int
    rows: Tensor | None = None
    cache: SceneCache | None = None

    def __post_init__(self) -> None:
        assert self.rows is None or self.cache is not None, "some rows alone need the keys and values of the others"


def run_blocks(
    blocks: Sequence[Block | FoldedBlock],
    x_RD: Tensor,
    taps: Collection[int],
    *,
    first: int = 0,
    stream_rows: Sequence[StreamRows] | None = None,
) -> dict[int, Tensor]:
    """Runs rows of frames through consecutive blocks.

    Args:
        blocks: in order; those after the last tap aren't run.
        x_RD: residual stream of the rows before the first of these blocks, one stream after the other [R, D].
        taps: points where the residual stream is wanted, as numbers of the network's blocks run before.
        first: number of the network's blocks before these.
        stream_rows: of each stream, in the same order; None is all rows of one frame, and nothing is kept.

    Returns:
        Residual stream of the rows [R, D] at every tap.
    """
    stream_rows = stream_rows or [StreamRows(len(x_RD))]
    tapped: dict[int, Tensor] = {}
    last = max(taps, default=first)
    for number in range(first, last + 1):
        if number in taps:
            tapped[number] = x_RD
        if number < last:
            x_RD = run_block(blocks[number - first], x_RD, stream_rows, number - first)
    return tapped


def run_streams(
    blocks: Sequence[Block | FoldedBlock],
    streams: Sequence[tuple[Tensor, StreamRows]],
    taps: Collection[int],
    *,
    first: int = 0,
) -> list[dict[int, Tensor]]:
    """Runs rows of several streams through consecutive blocks, packed: one pass over the weights serves all of them.

    Args:
        blocks: as of `run_blocks`.
        streams: of each, the residual stream of its rows [R, D], and which rows they are.
        taps: as of `run_blocks`.
        first: as of `run_blocks`.

    Returns:
        For every stream, the residual stream of its rows [R, D] at every tap.
    """
    tapped: list[dict[int, Tensor]] = []
    for pack in _packs(streams):
        stream_rows = [each for _, each in pack]
        packed = run_blocks(blocks, torch.cat([x_RD for x_RD, _ in pack]), taps, first=first, stream_rows=stream_rows)
        split = {tap: torch.split(x_RD, [each.count for each in stream_rows]) for tap, x_RD in packed.items()}
        tapped += [{tap: of_stream[place] for tap, of_stream in split.items()} for place in range(len(pack))]
    return tapped


def run_block(block: Block | FoldedBlock, x_RD: Tensor, stream_rows: Sequence[StreamRows], place: int = 0) -> Tensor:
    """Runs one block on rows of frames.

    Args:
        block: a block that `backbone.refuse_unsupported` let pass, or such a block prepared for the kernel.
        x_RD: residual stream of the rows, one stream after the other [R, D].
        stream_rows: of each stream, in the same order.
        place: index of the block in the streams' caches.

    Returns:
        Residual stream of the rows after the block [R, D].

    Source: timm.models.vision_transformer.Block.forward, restricted to R rows.
    """
    if isinstance(block, FoldedBlock):
        kept = [
            allocate_keys_values(block.keys, each.count) if each.cache is None else each.cache.keys_values[place]
            for each in stream_rows
        ]
        return block(x_RD, [each.count for each in stream_rows], [each.rows for each in stream_rows], kept)
    normed_RD = block.norm1(x_RD)
    z_RD = x_RD + block.ls1(_attention(block, normed_RD, stream_rows, place))
    mixed: Tensor = z_RD + block.ls2(block.mlp(block.norm2(z_RD)))
    return mixed


def attend(q_HRd: Tensor, kept: KeysValues) -> Tensor:
    """Softmax attention of some rows to all tokens; returns [H, R, d]."""
    scaled_HRd = q_HRd * q_HRd.shape[-1] ** -0.5
    return torch.cat(
        [
            torch.bmm(torch.bmm(some_HRd, kept.plain_keys).softmax(-1), kept.plain_values)
            for some_HRd in scaled_HRd.split(ROWS_AT_ONCE[q_HRd.dtype], dim=1)
        ],
        dim=1,
    )


def key_shapes(blocks: Sequence[Block | FoldedBlock]) -> list[KeyShape]:
    """Shapes of the keys and values of some blocks, for their scene cache."""
    return [
        block.keys
        if isinstance(block, FoldedBlock)
        else KeyShape(block.attn.num_heads, block.attn.head_dim, torch.bfloat16 if _is_packed(block) else torch.float32)
        for block in blocks
    ]


def write_rows(kept_ND: Tensor, rows: Tensor | None, new_RD: Tensor) -> None:
    """Overwrites rows of a kept tensor [N, D] in place with new ones [R, D]; None is all rows."""
    if rows is None:
        kept_ND.copy_(new_RD)
    else:
        kept_ND.index_copy_(0, rows, new_RD)


def _packs(streams: Sequence[tuple[Tensor, StreamRows]]) -> Iterator[list[tuple[Tensor, StreamRows]]]:
    """Groups of consecutive streams with at most `PACKED_ROWS` rows together; at least one stream each."""
    pack: list[tuple[Tensor, StreamRows]] = []
    for stream in streams:
        if pack and sum(each.count for _, each in (*pack, stream)) > PACKED_ROWS:
            yield pack
            pack = []
        pack.append(stream)
    if pack:
        yield pack


def _attention(block: Block, normed_RD: Tensor, stream_rows: Sequence[StreamRows], place: int) -> Tensor:
    attn, count = block.attn, normed_RD.shape[0]
    q_HRd, k_HRd, v_HRd = attn.qkv(normed_RD).view(count, 3, attn.num_heads, attn.head_dim).permute(1, 2, 0, 3)
    q_HRd, k_HRd = attn.q_norm(q_HRd), attn.k_norm(k_HRd)
    counts = [each.count for each in stream_rows]
    streams = zip(stream_rows, *(rows_HRd.split(counts, dim=1) for rows_HRd in (q_HRd, k_HRd, v_HRd)), strict=True)
    seen_HRd = torch.cat([_attend_stream(block, each, place, *new) for each, *new in streams], dim=1)
    seen_RD = attn.norm(seen_HRd.transpose(0, 1).reshape(count, attn.attn_dim))
    if attn.gate is not None:
        seen_RD = seen_RD * torch.sigmoid(attn.gate(normed_RD))
    projected: Tensor = attn.proj(seen_RD)
    return projected


def _is_packed(block: Block) -> bool:
    return isinstance(block.attn.qkv, PackedLinear)


def _attend_stream(block: Block, stream: StreamRows, place: int, q_HRd: Tensor, k_HRd: Tensor, v_HRd: Tensor) -> Tensor:
    """Attention of one stream's rows, after their new keys and values were written into its cache."""
    kept = KeysValues(k_HRd.transpose(1, 2)[..., None], v_HRd[..., None], stream.count)
    if stream.cache is not None:
        kept = stream.cache.keys_values[place]
        if stream.rows is None:
            kept.plain_keys.copy_(k_HRd.transpose(1, 2))
            kept.plain_values.copy_(v_HRd)
        else:
            kept.plain_keys.index_copy_(2, stream.rows, k_HRd.transpose(1, 2))
            kept.plain_values.index_copy_(1, stream.rows, v_HRd)
    if stream.rows is None and not _is_packed(block):  # faster than `attend` in float32, much slower in bfloat16
        return functional.scaled_dot_product_attention(q_HRd[None], k_HRd[None], v_HRd[None])[0]
    return attend(q_HRd, kept)
