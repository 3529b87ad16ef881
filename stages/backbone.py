"""Adapter over timm's plain VisionTransformer, the only one: which networks can run by rows, and access to their parts.

Everything that belongs to the model (depth, width, heads, prefix tokens, patch) is read from it. A network that can't
run by rows, because its tokens interact elsewhere than in plain attention, is refused; the error names the part.

Source: timm.models.vision_transformer.VisionTransformer (Apache-2.0), whose modules are called, not copied.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Self

import numpy as np
import timm
import torch
from timm.layers import Attention, GluMlp, PatchEmbed, SwiGLU, resample_abs_pos_embed
from timm.layers import Mlp as Mlp  # exported, as the next two: the other stages don't import timm
from timm.models.vision_transformer import Block as Block
from timm.models.vision_transformer import LayerScale as LayerScale
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from deltascene.stages.cost import BlockShape
from deltascene.stages.errors import UnsupportedBackbone
from deltascene.stages.types import TokenGrid


@dataclass(frozen=True, slots=True)
class Positions:
    """Positions and prefix tokens of a grid, computed once for each input size.

    Attributes:
        prefix_ND: class and register tokens with their positions added [prefix, D].
        patch_ND: position of every patch [h*w, D].
    """

    prefix_ND: Tensor
    patch_ND: Tensor


class Features(nn.Module):
    """A network whose forward is timm's own `forward_features`, the reference for this package's computation."""

    def __init__(self, vit: VisionTransformer) -> None:
        """Wraps a network; its parameters become this module's, too."""
        super().__init__()
        self._network = vit

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Tokens [B, N, D] of normalised images [B, 3, H, W] after the last norm, prefix first."""
        tokens_BND: Tensor = self._network.forward_features(image_BCHW)
        return tokens_BND


class Backbone:
    """A plain vision transformer of timm, with access to its parts.

    Attributes:
        depth: number of blocks.
        width: width of the residual stream.
        patch: side of a patch in pixels.
        prefix: number of class and register tokens.
        blocks: the blocks, in order; timm's own, or prepared for the compiled kernel.
    """

    def __init__(self, vit: nn.Module) -> None:
        """Adapts a network.

        Args:
            vit: a timm VisionTransformer; put into eval mode here.

        Raises:
            UnsupportedBackbone: it can't be run by rows; the text names the part.
        """
        refuse_unsupported(vit)
        assert isinstance(vit, VisionTransformer)
        self._vit = vit.eval()
        self.blocks: Sequence[Block] = list(vit.blocks)
        self._shapes = [_block_shape(block) for block in vit.blocks]
        self.depth, self.width, self.prefix = len(self.blocks), vit.embed_dim, vit.num_prefix_tokens
        self.patch = int(vit.patch_embed.patch_size[0])

    def grid(self, image_size: tuple[int, int]) -> TokenGrid:
        """Token grid of an input size (height, width).

        Raises:
            UnsupportedBackbone: a side isn't a multiple of the patch.
        """
        height, width = image_size
        if height < self.patch or width < self.patch or height % self.patch or width % self.patch:
            raise UnsupportedBackbone(
                f"input size: expected multiples of the patch, {self.patch}; found {height}x{width}"
            )
        return TokenGrid(height // self.patch, width // self.patch, self.patch, self.prefix)

    def positions(self, grid: TokenGrid) -> Positions:
        """Prefix tokens and patch positions for a grid, resampled as timm does."""
        vit = self._vit
        tokens = [token[0] for token in (vit.cls_token, vit.reg_token) if token is not None]
        prefix_ND = torch.cat(tokens) if tokens else torch.zeros(0, self.width)
        if vit.pos_embed is None:
            return Positions(prefix_ND, torch.zeros(grid.patches, self.width))
        placed = 0 if vit.no_embed_class else self.prefix
        position_ND = resample_abs_pos_embed(
            vit.pos_embed,
            new_size=[grid.height, grid.width],
            old_size=list(vit.patch_embed.grid_size),
            num_prefix_tokens=placed,
        )[0]
        if placed:
            prefix_ND = prefix_ND + position_ND[:placed]
        return Positions(prefix_ND, position_ND[placed:])

    def embed(self, image_CHW: Tensor, positions: Positions) -> Tensor:
        """First residual stream of a whole frame.

        Args:
            image_CHW: normalised input [3, H, W].
            positions: positions of its grid.

        Returns:
            Tokens [N, D], prefix first.
        """
        return self.embed_patches(cut_patches(image_CHW, self.patch), positions)

    def embed_patches(self, patches_PX: Tensor, positions: Positions, which: Tensor | None = None) -> Tensor:
        """First residual stream of some patches and of the prefix tokens.

        Args:
            patches_PX: normalised pixels of the patches, as of `cut_patches`.
            positions: positions of the frame's grid.
            which: indices of the patches, increasing int64; None is all of them.

        Returns:
            Tokens [prefix + patches, D], prefix first.
        """
        projection = self._vit.patch_embed.proj
        embedded_PD = functional.linear(patches_PX, projection.weight.flatten(1), projection.bias)
        position_PD = positions.patch_ND if which is None else positions.patch_ND[which]
        x_PD = self._vit.patch_embed.norm(embedded_PD) + position_PD
        stream_RD: Tensor = self._vit.norm_pre(torch.cat([positions.prefix_ND, x_PD]))
        return stream_RD

    def final_norm(self, x_ND: Tensor) -> Tensor:
        """Applies the norm with which timm's `forward_features` ends; heads read the residual stream before it."""
        normed_ND: Tensor = self._vit.norm(x_ND)
        return normed_ND

    def block_shapes(self) -> list[BlockShape]:
        """Shapes of the blocks, from which the MACs of a row follow."""
        return self._shapes

    def with_blocks(self, blocks: Sequence[Block]) -> Self:
        """The same network with these blocks instead of its own, whose memory is freed."""
        other = copy(self)
        other.blocks = list(blocks)
        self._vit.blocks = nn.Sequential()
        return other

    def patch_macs(self) -> int:
        """MACs to embed one patch."""
        return int(self._vit.patch_embed.proj.weight.numel())

    def features(self) -> Features:
        """timm's own forward pass of whole images, with the same weights."""
        return Features(self._vit).eval()

    def dense_taps(self, image_BCHW: Tensor, taps: Sequence[int]) -> dict[int, Tensor]:
        """Patch tokens inside the network, by timm's own forward pass.

        Args:
            image_BCHW: normalised images [B, 3, H, W].
            taps: numbers of blocks run before, each at least 1, increasing.

        Returns:
            The residual stream of the patches [B, h*w, D] at each tap, without prefix tokens.
        """
        assert all(tap > 0 for tap in taps), taps
        found = self._vit.forward_intermediates(
            image_BCHW, indices=[tap - 1 for tap in taps], norm=False, output_fmt="NLC", intermediates_only=True
        )
        return dict(zip(taps, found, strict=True))

    def state_dict(self) -> dict[str, Tensor]:
        """All weights, by timm's names."""
        tensors: dict[str, Tensor] = self._vit.state_dict()
        return tensors

    def load_state_dict(self, state_dict: Mapping[str, Tensor], *, assign: bool = False) -> None:
        """Takes all weights, by timm's names.

        Args:
            state_dict: tensors of the network's own shapes by name.
            assign: True takes the tensors themselves, False copies their values.
        """
        self._vit.load_state_dict(state_dict, assign=assign)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters by timm's names."""
        yield from self._vit.named_parameters()

    def read_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters by timm's names, without those of the last norms: heads read the residual stream before these."""
        return {name: value for name, value in self.named_parameters() if not name.startswith(("norm.", "fc_norm."))}

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of `named_parameters`."""
        yield from self._vit.parameters()

    def requires_grad_(self, requires_grad: bool) -> Self:
        """Sets, in place, whether all parameters are trained."""
        self._vit.requires_grad_(requires_grad)
        return self

    def to(self, target: torch.device | torch.dtype) -> Self:
        """Moves all weights to a device, or converts them to a type, in place."""
        self._vit.to(target)
        return self

    def undecayed_names(self) -> set[str]:
        """Names of the parameters that timm trains without weight decay."""
        return set(self._vit.no_weight_decay())

    @property
    def pretrained_config(self) -> Mapping[str, Any]:
        """timm's description of its weights: `mean` and `std` of their input, perhaps `license` and `hf_hub_id`."""
        config: Mapping[str, Any] = self._vit.pretrained_cfg
        return config

    def trained_size(self) -> tuple[int, int]:
        """Height and width that the network's positions are made for, rounded down to a multiple of the patch."""
        height, width = self._vit.patch_embed.grid_size
        return height * self.patch, width * self.patch

    def trained_side(self, position_shape: Sequence[int]) -> int | None:
        """Side of the square images that some weights were trained at.

        Args:
            position_shape: shape of the tensor `pos_embed` among them, [1, prefix + patches, D].

        Returns:
            Side in pixels; None where it is this network's own size or the positions don't form a square.
        """
        own = self._vit.pos_embed
        if own is None or len(position_shape) != 3 or position_shape[1] == own.shape[1]:
            return None
        placed = 0 if self._vit.no_embed_class else self.prefix
        side = round(max(0, position_shape[1] - placed) ** 0.5)
        return side * self.patch if side and side * side + placed == position_shape[1] else None


def create_backbone(name: str, args: Mapping[str, Any] | None = None, *, pretrained: bool = False) -> Backbone:
    """Creates a backbone by its timm name.

    Args:
        name: model name of timm.
        args: more arguments for `timm.create_model`, e.g. `img_size` of the weights.
        pretrained: True downloads timm's weights.

    Raises:
        UnsupportedBackbone: timm doesn't know the name, or the network can't be run by rows.
    """
    if not timm.is_model(name):
        near = get_close_matches(name.split(".")[0], timm.list_models(), 3)
        hint = f"; similar names: {', '.join(near)}" if near else ""
        raise UnsupportedBackbone(f"backbone: timm {timm.__version__} has no model {name!r}{hint}")
    family = timm.models.model_entrypoint(name).__module__.rsplit(".", 1)[-1]
    if family not in ("vision_transformer", "deit", "beit3"):
        raise UnsupportedBackbone(
            f"{name}: expected a plain vision transformer (timm's vision_transformer or deit family); "
            f"found family {family}"
        )
    options = {"num_classes": 0, "dynamic_img_size": True, **(args or {})}
    try:
        vit = timm.create_model(name, pretrained=pretrained, **options)
    except (TypeError, ValueError, KeyError, AssertionError, RuntimeError) as error:
        raise UnsupportedBackbone(f"{name}: timm can't build it with {options}: {error}") from error
    return Backbone(vit)


def refuse_unsupported(vit: nn.Module) -> None:
    """Refuses a network that can't run by rows.

    Raises:
        UnsupportedBackbone: it can't; the text names the part that keeps it from that.
    """
    kind = type(vit).__name__
    if type(vit) is not VisionTransformer:
        raise UnsupportedBackbone(f"{kind}: expected timm's plain VisionTransformer; found {kind}")
    for where, part, expected in _parts(vit):
        if type(part) not in expected:
            names = " or ".join(part_type.__name__ for part_type in expected)
            raise UnsupportedBackbone(
                f"{kind}.{where}: expected {names}, so that rows meet only in attention; found {type(part).__name__}"
            )
    plain: VisionTransformer = vit
    sides = plain.patch_embed.patch_size
    if sides[0] != sides[1]:
        raise UnsupportedBackbone(f"{kind}.patch_embed: expected square patches; found {sides}")
    if plain.in_chans != 3:
        raise UnsupportedBackbone(f"{kind}: expected 3 input channels; found {plain.in_chans}")


def _parts(vit: VisionTransformer) -> Iterator[tuple[str, object, tuple[type, ...]]]:
    """Places where tokens could interact: path, module found there, and types that are supported."""
    yield "patch_embed", vit.patch_embed, (PatchEmbed,)
    yield "patch_drop", vit.patch_drop, (nn.Identity,)
    for number, block in enumerate(vit.blocks):
        yield f"blocks.{number}", block, (Block,)
        yield f"blocks.{number}.attn", block.attn, (Attention,)
        yield f"blocks.{number}.mlp", block.mlp, (Mlp, GluMlp, SwiGLU)


def _block_shape(block: Block) -> BlockShape:
    layers = (part for part in block.modules() if isinstance(part, nn.Linear))
    linear = sum(layer.in_features * layer.out_features for layer in layers)
    return BlockShape(linear, block.attn.num_heads * block.attn.head_dim)


def cut_patches(image_CHW: Tensor, patch: int, which: Tensor | None = None) -> Tensor:
    """Pixels of patches in reading order [patches, 3 * patch * patch], colour first; `which` are their numbers."""
    colours, height, width = image_CHW.shape
    squares = image_CHW.view(colours, height // patch, patch, width // patch, patch).permute(1, 3, 0, 2, 4)
    if which is not None:  # numpy picks them in a quarter of torch's time
        squares = torch.from_numpy(squares.numpy()[np.divmod(which.numpy(), width // patch)])
    return squares.reshape(-1, colours * patch * patch)
