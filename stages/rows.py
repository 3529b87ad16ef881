"""Transformer blocks on some rows of a frame, against the scene cache of all of them.

Rows meet only in `attend`; everything else is done row by row. So a block can run on the rows that moved, if keys and
values of the others were kept: K[R], V[R] are overwritten, attention of R goes over all K and V. With all rows it is
the plain network. This is the only file that writes into a tensor that it was handed: the scene cache.

Shape letters: N tokens of a frame, R rows being computed, D width, H heads, d width of a head.
"""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from deltascene.stages.backbone import Block
from deltascene.stages.scene_cache import SceneCache


def run_blocks(
    blocks: Sequence[Block],
    x_RD: Tensor,
    taps: Collection[int],
    *,
    first: int = 0,
    rows: Tensor | None = None,
    cache: SceneCache | None = None,
) -> dict[int, Tensor]:
    """Some rows of a frame through consecutive blocks.

    Args:
        blocks: in order; those after the last tap aren't run.
        x_RD: residual stream of the rows before the first of these blocks [R, D].
        taps: where it is wanted, as the number of the network's blocks run before.
        first: number of the network's blocks before these.
        rows: which tokens they are, increasing int64 [R]; None is all N of them.
        cache: of these blocks; overwritten at `rows`. None keeps nothing, and then all rows have to run.

    Returns:
        Residual stream of the rows [R, D] at every tap.
    """
    assert rows is None or cache is not None, "some rows alone need the keys and values of the others"
    tapped: dict[int, Tensor] = {}
    last = max(taps, default=first)
    for number in range(first, last + 1):
        if number in taps:
            tapped[number] = x_RD
        if number < last:
            kept = None if cache is None else cache.keys_values[number - first]
            x_RD = run_block(blocks[number - first], x_RD, rows, kept)
    return tapped


def run_block(block: Block, x_RD: Tensor, rows: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
    """One block on some rows.

    Args:
        block: a block that `backbone.refuse_unsupported` let pass.
        x_RD: residual stream [R, D].
        rows: which tokens they are; None is all of them.
        kept: keys and values of all tokens [2, H, N, d], overwritten at `rows`.

    Returns:
        Residual stream of the rows after the block [R, D].

    Source: timm.models.vision_transformer.Block.forward, restricted to R rows.
    """
    normed_RD = block.norm1(x_RD)
    z_RD = x_RD + block.ls1(_attention(block, normed_RD, rows, kept))
    mixed: Tensor = z_RD + block.ls2(block.mlp(block.norm2(z_RD)))
    return mixed


def attend(q_HRd: Tensor, k_HNd: Tensor, v_HNd: Tensor) -> Tensor:
    """Softmax attention of some rows over all, head-major: [heads, R, d] over [heads, N, d] gives [heads, R, d]."""
    return functional.scaled_dot_product_attention(q_HRd[None], k_HNd[None], v_HNd[None])[0]


def write_rows(kept_ND: Tensor, rows: Tensor | None, new_RD: Tensor) -> None:
    """Overwrites rows of a kept tensor in place; None is all of them."""
    if rows is None:
        kept_ND.copy_(new_RD)
    else:
        kept_ND.index_copy_(0, rows, new_RD)


def _attention(block: Block, normed_RD: Tensor, rows: Tensor | None, kept: Tensor | None) -> Tensor:
    attn, count = block.attn, normed_RD.shape[0]
    q_HRd, k_HRd, v_HRd = attn.qkv(normed_RD).view(count, 3, attn.num_heads, attn.head_dim).permute(1, 2, 0, 3)
    q_HRd, k_HRd = attn.q_norm(q_HRd), attn.k_norm(k_HRd)
    seen_HRd = attend(q_HRd, *_over_all(k_HRd, v_HRd, rows, kept))
    seen_RD = attn.norm(seen_HRd.transpose(0, 1).reshape(count, attn.attn_dim))
    if attn.gate is not None:
        seen_RD = seen_RD * torch.sigmoid(attn.gate(normed_RD))
    projected: Tensor = attn.proj(seen_RD)
    return projected


def _over_all(k_HRd: Tensor, v_HRd: Tensor, rows: Tensor | None, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """Keys and values of all tokens, those of the rows being computed new; writes the new ones into `kept`."""
    if kept is None:
        return k_HRd, v_HRd
    for place, new_HRd in enumerate((k_HRd, v_HRd)):
        if rows is None:
            kept[place].copy_(new_HRd)
        else:
            kept[place].index_copy_(1, rows, new_HRd)
    return (k_HRd, v_HRd) if rows is None else (kept[0], kept[1])
