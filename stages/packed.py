"""A block whose products run in bfloat16 through oneDNN, with weights packed once: what runs without the kernel.

Only the four linear layers change. They take any type and give bfloat16, so queries, keys, values and the hidden layer
are bfloat16; norms and the residual stream stay float32. Everything else is the block's own code in rows.py.
"""

import torch
from torch import Tensor, nn

from deltascene.stages.backbone import Block
from deltascene.stages.folded import copied, is_plain


class PackedLinear(nn.Module):
    """A linear layer in bfloat16, its weight in oneDNN's own order."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight_OI = layer.weight.detach().to(torch.bfloat16)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight_OI, None)
        self.bias = None if layer.bias is None else layer.bias.detach().to(torch.bfloat16)

    def forward(self, x_RI: Tensor) -> Tensor:
        """[R, in] of any type to bfloat16 [R, out]."""
        x_RI = x_RI.to(torch.bfloat16)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x_RI, self.weight, self.bias, "none", [], "")
        return out


def multiplies_bfloat16() -> bool:
    """Whether oneDNN has products of bfloat16 on this processor; they may still be slow."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack_linears(block: Block) -> Block:
    """A block with packed layers, or the block itself where it has parts beside plain attention and a plain MLP."""
    if not is_plain(block):
        return block
    packed, attn, mlp = copied(block), copied(block.attn), copied(block.mlp)
    attn.qkv, attn.proj = PackedLinear(attn.qkv), PackedLinear(attn.proj)
    mlp.fc1, mlp.fc2 = PackedLinear(mlp.fc1), PackedLinear(mlp.fc2)
    packed.attn, packed.mlp = attn, mlp
    done: Block = packed
    return done
