"""Blocks and heads prepared for the compiled kernel: norms and LayerScale folded into the weights, weights packed once.

    qkv(gamma * n + beta) = (W gamma) n + (b + W beta)          n: the rows at mean 0 and variance 1
    ls * proj(x)          = (ls W) x + ls b

and the queries' scale is folded into their part of qkv. Weights are float32 or bfloat16; everything outside the
products is float32. The kernel (rows.cpp) is compiled on request and loaded by pipeline/numerics/kernel.py; everything
works without it.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deltascene.stages.backbone import Block, LayerScale, Mlp
from deltascene.stages.heads import TokenHead
from deltascene.stages.scene_cache import KeyShape, KeysValues


@dataclass(frozen=True, slots=True, eq=False)
class FoldedBlock:
    """A block in the form that the kernel runs.

    Attributes:
        keys: shape of its keys and values.
        eps: epsilon of both norms.
        tensors: packed weight and bias of qkv, proj, fc1 and fc2.
    """

    keys: KeyShape
    eps: tuple[float, float]
    tensors: tuple[Tensor, ...]

    def __call__(
        self, x_RD: Tensor, counts: Sequence[int], rows: Sequence[Tensor | None], kept: Sequence[KeysValues]
    ) -> Tensor:
        """Runs rows of several streams through the block; each stream's keys and values are overwritten at its rows.

        Args:
            x_RD: residual stream of the rows, one stream after the other [R, D].
            counts: number of rows of each stream.
            rows: tokens of each stream's rows, int64; None is all of them.
            kept: keys and values of all tokens of each stream.

        Returns:
            Residual stream after the block [R, D].
        """
        keys, values, tokens = ([pair[half] for pair in kept] for half in range(3))
        mixed: Tensor = torch.ops.deltascene.run_block(
            x_RD, self.tensors, *self.eps, counts, rows, tokens, keys, values
        )
        return mixed


@torch.no_grad()
def fold(block: Block, dtype: torch.dtype = torch.float32) -> Block | FoldedBlock:
    """A block for the loaded kernel, or the block itself where it has a part that the kernel doesn't support.

    Args:
        block: a float32 block.
        dtype: of weights, keys and values in the products: float32, or bfloat16 where the kernel was compiled for it.
    """
    if not fits(block, torch.ops.deltascene.panel()):
        return block
    attn, mlp = block.attn, block.mlp
    qkv, bias = _behind_norm(attn.qkv, block.norm1)
    scale = torch.ones(len(qkv))
    scale[: attn.attn_dim] = attn.scale
    layers = (
        (qkv * scale[:, None], bias * scale),
        _before_scale(attn.proj, block.ls1),
        _behind_norm(mlp.fc1, block.norm2),
        _before_scale(mlp.fc2, block.ls2),
    )
    tensors = [
        part for weight, bias in layers for part in (torch.ops.deltascene.pack(weight.to(dtype)), bias.contiguous())
    ]
    keys = KeyShape(attn.num_heads, attn.head_dim, dtype, 4 // dtype.itemsize)
    return FoldedBlock(keys, (block.norm1.eps, block.norm2.eps), tuple(tensors))


class FoldedLinear(nn.Module):
    """A linear layer in the kernel."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        missing = -layer.out_features % torch.ops.deltascene.panel()  # columns to a whole panel
        weight_OI = nn.functional.pad(layer.weight.detach(), (0, 0, 0, missing))
        bias_O = torch.zeros(layer.out_features) if layer.bias is None else layer.bias.detach()
        self.weight = torch.ops.deltascene.pack(weight_OI.to(dtype))
        self.bias = nn.functional.pad(bias_O, (0, missing))

    def forward(self, x_RI: Tensor) -> Tensor:
        """float32 [R, in] to float32 [R, out]."""
        out_RO: Tensor = torch.ops.deltascene.linear(x_RI, self.weight, self.bias)
        return out_RO[:, : self.out_features]


def fold_head(head: TokenHead, dtype: torch.dtype = torch.float32) -> TokenHead:
    """A head whose layers run in the loaded kernel; a user's own head, or one of odd widths, is returned as it is.

    Args:
        head: a float32 head.
        dtype: as of `fold`.
    """
    lane = 4 // dtype.itemsize
    if type(head) is not TokenHead or any(layer.in_features % lane for layer in head.linears()):
        return head
    folded: TokenHead = copied(head)
    folded.layers = nn.Sequential(
        *(FoldedLinear(layer, dtype) if isinstance(layer, nn.Linear) else layer for layer in head.layers)
    )
    return folded


def copied(module: nn.Module) -> Any:
    """A shallow copy of a module, whose parts can be replaced without changing the original."""
    other = copy(module)
    other._modules = dict(module._modules)
    return other


def fits(block: Block, panel: int) -> bool:
    """Whether the kernel can run a block: it is plain, and its widths are multiples of a panel."""
    if not is_plain(block):
        return False
    attn, mlp = block.attn, block.mlp
    return all(
        width % panel == 0 for width in (attn.qkv.in_features, attn.head_dim, attn.attn_dim, mlp.fc1.out_features)
    )


def is_plain(block: Block) -> bool:
    """Whether a block is plain attention and an MLP of two layers with a GELU, each after a norm, and nothing else."""
    attn, mlp = block.attn, block.mlp
    return (
        all(type(part) is nn.Identity for part in (attn.q_norm, attn.k_norm, attn.norm))
        and attn.gate is None
        and type(mlp) is Mlp
        and type(mlp.norm) is nn.Identity
        and isinstance(mlp.act, nn.GELU)
        and mlp.act.approximate == "none"
        and all(isinstance(norm, nn.LayerNorm) and norm.weight is not None for norm in (block.norm1, block.norm2))
        and all(type(part) in (nn.Identity, LayerScale) for part in (block.ls1, block.ls2))
        and all(type(layer) is nn.Linear for layer in (attn.qkv, attn.proj, mlp.fc1, mlp.fc2))
    )


def _behind_norm(layer: nn.Linear, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    bias = layer.weight @ norm.bias if norm.bias is not None else torch.zeros(layer.out_features)
    return layer.weight * norm.weight, bias if layer.bias is None else bias + layer.bias


def _before_scale(layer: nn.Linear, scale: nn.Module) -> tuple[Tensor, Tensor]:
    bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias
    if isinstance(scale, LayerScale):
        return layer.weight * scale.gamma[:, None], bias * scale.gamma
    return layer.weight, bias
