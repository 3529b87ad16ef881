"""Transformer blocks on some rows of frames, against the scene caches of all of them.

Rows meet only in `attend`; everything else is done row by row. So a block can run on the rows that moved, if keys and
values of the others were kept: K[R], V[R] are overwritten, attention of R goes over all K and V. With all rows it is
the plain network. And rows of several streams can go through a block together, each stream's attention over its own
scene. This is the only file that writes into a tensor that it was handed: the scene cache; the compiled kernel
(rows.cpp) does it in its place.

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

PACKED_ROWS = 512  # rows of several streams that go together: more fall out of the cache between two products
ROWS_AT_ONCE = {torch.float32: 32, torch.bfloat16: 128}  # queries whose scores are held: more fall out of the cache


@dataclass(frozen=True, slots=True)
class StreamRows:
    """One stream's rows in a pack.

    Attributes:
        count: how many.
        rows: which tokens they are, increasing int64; None is all of them.
        cache: of the blocks that run; overwritten at `rows`. None keeps nothing, and then all rows have to run.
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
    parts: Sequence[StreamRows] | None = None,
) -> dict[int, Tensor]:
    """Rows of frames through consecutive blocks.

    Args:
        blocks: in order; those after the last tap aren't run.
        x_RD: residual stream of the rows before the first of these blocks, one part after the other [R, D].
        taps: where it is wanted, as the number of the network's blocks run before.
        first: number of the network's blocks before these.
        parts: whose rows they are; None is all of one frame's, and nothing is kept.

    Returns:
        Residual stream of the rows [R, D] at every tap.
    """
    parts = parts or [StreamRows(len(x_RD))]
    tapped: dict[int, Tensor] = {}
    last = max(taps, default=first)
    for number in range(first, last + 1):
        if number in taps:
            tapped[number] = x_RD
        if number < last:
            x_RD = run_block(blocks[number - first], x_RD, parts, number - first)
    return tapped


def run_streams(
    blocks: Sequence[Block | FoldedBlock],
    streams: Sequence[tuple[Tensor, StreamRows]],
    taps: Collection[int],
    *,
    first: int = 0,
) -> list[dict[int, Tensor]]:
    """Rows of several streams through consecutive blocks, packed: one pass over the weights serves them all.

    Args:
        blocks: as of `run_blocks`.
        streams: residual stream of the rows [R, D] of each, and what else is known of them.
        taps: as of `run_blocks`.
        first: as of `run_blocks`.

    Returns:
        For every stream, the residual stream of its rows [R, D] at every tap.
    """
    tapped: list[dict[int, Tensor]] = []
    for pack in _packs(streams):
        parts = [part for _, part in pack]
        packed = run_blocks(blocks, torch.cat([x_RD for x_RD, _ in pack]), taps, first=first, parts=parts)
        split = {tap: torch.split(x_RD, [part.count for part in parts]) for tap, x_RD in packed.items()}
        tapped += [{tap: of_stream[place] for tap, of_stream in split.items()} for place in range(len(pack))]
    return tapped


def run_block(block: Block | FoldedBlock, x_RD: Tensor, parts: Sequence[StreamRows], place: int = 0) -> Tensor:
    """One block on rows of frames.

    Args:
        block: a block that `backbone.refuse_unsupported` let pass, or such a block prepared for the kernel.
        x_RD: residual stream, one part after the other [R, D].
        parts: whose rows they are.
        place: of the block in the parts' caches.

    Returns:
        Residual stream of the rows after the block [R, D].

    Source: timm.models.vision_transformer.Block.forward, restricted to R rows.
    """
    if isinstance(block, FoldedBlock):
        kept = [
            allocate_keys_values(block.keys, part.count) if part.cache is None else part.cache.keys_values[place]
            for part in parts
        ]
        return block(x_RD, [part.count for part in parts], [part.rows for part in parts], kept)
    normed_RD = block.norm1(x_RD)
    z_RD = x_RD + block.ls1(_attention(block, normed_RD, parts, place))
    mixed: Tensor = z_RD + block.ls2(block.mlp(block.norm2(z_RD)))
    return mixed


def attend(q_HRd: Tensor, kept: KeysValues) -> Tensor:
    """Softmax attention of some rows over all [H, R, d]."""
    scaled_HRd = q_HRd * q_HRd.shape[-1] ** -0.5
    return torch.cat(
        [
            torch.bmm(torch.bmm(some_HRd, kept.plain_keys).softmax(-1), kept.plain_values)
            for some_HRd in scaled_HRd.split(ROWS_AT_ONCE[q_HRd.dtype], dim=1)
        ],
        dim=1,
    )


def key_shapes(blocks: Sequence[Block | FoldedBlock]) -> list[KeyShape]:
    """What a scene cache of some blocks has to hold."""
    return [
        block.keys
        if isinstance(block, FoldedBlock)
        else KeyShape(block.attn.num_heads, block.attn.head_dim, torch.bfloat16 if _is_packed(block) else torch.float32)
        for block in blocks
    ]


def write_rows(kept_ND: Tensor, rows: Tensor | None, new_RD: Tensor) -> None:
    """Overwrites rows of a kept tensor in place; None is all of them."""
    if rows is None:
        kept_ND.copy_(new_RD)
    else:
        kept_ND.index_copy_(0, rows, new_RD)


def _packs(streams: Sequence[tuple[Tensor, StreamRows]]) -> Iterator[list[tuple[Tensor, StreamRows]]]:
    """Streams in order, as many at a time as have few enough rows together, at least one."""
    pack: list[tuple[Tensor, StreamRows]] = []
    for stream in streams:
        if pack and sum(part.count for _, part in (*pack, stream)) > PACKED_ROWS:
            yield pack
            pack = []
        pack.append(stream)
    if pack:
        yield pack


def _attention(block: Block, normed_RD: Tensor, parts: Sequence[StreamRows], place: int) -> Tensor:
    attn, count = block.attn, normed_RD.shape[0]
    q_HRd, k_HRd, v_HRd = attn.qkv(normed_RD).view(count, 3, attn.num_heads, attn.head_dim).permute(1, 2, 0, 3)
    q_HRd, k_HRd = attn.q_norm(q_HRd), attn.k_norm(k_HRd)
    counts = [part.count for part in parts]
    streams = zip(parts, *(rows_HRd.split(counts, dim=1) for rows_HRd in (q_HRd, k_HRd, v_HRd)), strict=True)
    seen_HRd = torch.cat([_attend_part(block, part, place, *new) for part, *new in streams], dim=1)
    seen_RD = attn.norm(seen_HRd.transpose(0, 1).reshape(count, attn.attn_dim))
    if attn.gate is not None:
        seen_RD = seen_RD * torch.sigmoid(attn.gate(normed_RD))
    projected: Tensor = attn.proj(seen_RD)
    return projected


def _is_packed(block: Block) -> bool:
    return isinstance(block.attn.qkv, PackedLinear)


def _attend_part(block: Block, part: StreamRows, place: int, q_HRd: Tensor, k_HRd: Tensor, v_HRd: Tensor) -> Tensor:
    """One stream's attention; its new keys and values are kept first."""
    kept = KeysValues(k_HRd.transpose(1, 2)[..., None], v_HRd[..., None], part.count)
    if part.cache is not None:
        kept = part.cache.keys_values[place]
        if part.rows is None:
            kept.plain_keys.copy_(k_HRd.transpose(1, 2))
            kept.plain_values.copy_(v_HRd)
        else:
            kept.plain_keys.index_copy_(2, part.rows, k_HRd.transpose(1, 2))
            kept.plain_values.index_copy_(1, part.rows, v_HRd)
    if part.rows is None and not _is_packed(block):  # all rows: faster than ours in float32, much slower in bfloat16
        return functional.scaled_dot_product_attention(q_HRd[None], k_HRd[None], v_HRd[None])[0]
    return attend(q_HRd, kept)
