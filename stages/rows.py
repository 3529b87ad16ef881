"""A transformer block, run by its rows.

Rows meet only in `attend`; everything else is done row by row, so a block can be run on any of its rows against keys
and values of all of them. Every row of a frame runs here today (a dense pass); running only the moved rows against a
scene cache is the temporal stage's part and isn't written yet.
"""

import torch
from torch import Tensor
from torch.nn import functional

from deltascene.stages.backbone import Block


def run_block(block: Block, x_ND: Tensor) -> Tensor:
    """One block on all rows of a frame.

    Args:
        block: a block that `backbone.refuse_unsupported` let pass.
        x_ND: residual stream [N, D].

    Returns:
        Residual stream after the block [N, D].

    Source: timm.models.vision_transformer.Block.forward.
    """
    normed_ND = block.norm1(x_ND)
    z_ND = x_ND + block.ls1(_attention(block, normed_ND))
    mixed: Tensor = z_ND + block.ls2(block.mlp(block.norm2(z_ND)))
    return mixed


def attend(q_HRd: Tensor, k_HNd: Tensor, v_HNd: Tensor) -> Tensor:
    """Softmax attention of some rows over all, head-major: [heads, R, d] over [heads, N, d] gives [heads, R, d]."""
    return functional.scaled_dot_product_attention(q_HRd[None], k_HNd[None], v_HNd[None])[0]


def _attention(block: Block, normed_ND: Tensor) -> Tensor:
    attn, rows = block.attn, normed_ND.shape[0]
    q_HNd, k_HNd, v_HNd = attn.qkv(normed_ND).view(rows, 3, attn.num_heads, attn.head_dim).permute(1, 2, 0, 3)
    seen_HNd = attend(attn.q_norm(q_HNd), attn.k_norm(k_HNd), v_HNd)
    seen_ND = attn.norm(seen_HNd.transpose(0, 1).reshape(rows, attn.attn_dim))
    if attn.gate is not None:
        seen_ND = seen_ND * torch.sigmoid(attn.gate(normed_ND))
    projected: Tensor = attn.proj(seen_ND)
    return projected
