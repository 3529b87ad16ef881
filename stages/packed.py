"""Blocks in bfloat16 without the compiled kernel: products through oneDNN, with weights packed once.

Only the four linear layers change. They take any type and return bfloat16, so queries, keys, values and the hidden
layer are bfloat16; norms and the residual stream stay float32. Everything else runs in rows.py as for other blocks.
"""

import torch
from torch import Tensor, nn

from deltascene.stages.backbone import Block
from deltascene.stages.folded import copied, is_plain


class PackedLinear(nn.Module):
    """A linear layer in bfloat16 whose weight is in oneDNN's packed order."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight_OI = layer.weight.detach().to(torch.bfloat16)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight_OI, None)
        self.bias = None if layer.bias is None else layer.bias.detach().to(torch.bfloat16)

    def forward(self, x_RI: Tensor) -> Tensor:
        """Maps [R, in] of any type to [R, out] in bfloat16."""
        x_RI = x_RI.to(torch.bfloat16)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x_RI, self.weight, self.bias, "none", [], "")
        return out


def multiplies_bfloat16() -> bool:
    """Whether oneDNN multiplies bfloat16 on this processor; it may still be slow."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack_linears(block: Block) -> Block:
    """A block with packed layers, or the block itself where it isn't plain attention and a plain MLP."""
    if not is_plain(block):
        return block
    packed, attn, mlp = copied(block), copied(block.attn), copied(block.mlp)
    attn.qkv, attn.proj = PackedLinear(attn.qkv), PackedLinear(attn.proj)
    mlp.fc1, mlp.fc2 = PackedLinear(mlp.fc1), PackedLinear(mlp.fc2)
    packed.attn, packed.mlp = attn, mlp
    done: Block = packed
    return done
