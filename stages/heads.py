"""Heads: from tokens at the taps to a dense map.

A head works token by token (`cells`): each patch token gives a small square of output cells. `assemble` then lays the
squares out as an image and resizes it to the input's size, the only place where neighbouring tokens meet (bilinear,
one cell wide). So a head can be run again on just the rows that changed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from deltascene.stages.errors import UnsupportedHead
from deltascene.stages.kinds import Activation
from deltascene.stages.types import TokenGrid


class Head(Protocol):
    """What every head offers; a user's own head is a torch module with the same names.

    Attributes:
        receptive_field: tokens on each side that a token's cells depend on; 0 for a token-wise head.
        side: cells along a patch's side, K.
    """

    receptive_field: int
    side: int

    def cells(self, taps_RTD: Tensor) -> Tensor:
        """Output cells of some patch tokens: [R, taps, D] to [R, C*K*K]."""

    def macs_per_token(self) -> int:
        """MACs of `cells` for one token."""


class TokenHead(nn.Module):
    """Norm of each tap, then one linear layer, or two with a GELU between.

    Attributes:
        channels: output channels C.
        side: cells along a patch's side, K.
    """

    receptive_field = 0

    def __init__(self, width: int, taps: int, channels: int, side: int = 4, hidden: int = 0) -> None:
        """Builds an untrained head.

        Args:
            width: D of the residual stream.
            taps: how many taps it reads.
            channels: output channels.
            side: cells along a patch's side.
            hidden: width of the hidden layer; 0 for none.
        """
        super().__init__()
        self.channels, self.side = channels, side
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(taps))
        out = channels * side * side
        self.layers = (
            nn.Sequential(nn.Linear(width * taps, hidden), nn.GELU(), nn.Linear(hidden, out))
            if hidden
            else nn.Sequential(nn.Linear(width * taps, out))
        )

    def cells(self, taps_RTD: Tensor) -> Tensor:
        """Output cells of some patch tokens: [..., taps, D] to [..., C*K*K]."""
        normed = [norm(taps_RTD[..., number, :]) for number, norm in enumerate(self.norms)]
        out: Tensor = self.layers(torch.cat(normed, dim=-1))
        return out

    def forward(self, taps_RTD: Tensor) -> Tensor:
        """As `cells`."""
        return self.cells(taps_RTD)

    def macs_per_token(self) -> int:
        """MACs of the linear layers for one token."""
        return sum(layer.in_features * layer.out_features for layer in self.layers if isinstance(layer, nn.Linear))


def _linear(width: int, taps: int, channels: int, side: int = 4) -> TokenHead:
    return TokenHead(width, taps, channels, side)


def _token_mlp(width: int, taps: int, channels: int, side: int = 4, hidden: int = 256) -> TokenHead:
    return TokenHead(width, taps, channels, side, hidden)


HEADS: Mapping[str, Callable[..., TokenHead]] = {"linear": _linear, "token_mlp": _token_mlp}


def build_head(name: str, width: int, taps: int, channels: int, args: Mapping[str, Any]) -> TokenHead:
    """An untrained head by its name in a bundle.

    Raises:
        UnsupportedHead: no such head, or it doesn't take these arguments.
    """
    if name not in HEADS:
        raise UnsupportedHead(f"head: expected one of {', '.join(HEADS)}; found {name!r}")
    try:
        return HEADS[name](width, taps, channels, **args)
    except TypeError as error:
        raise UnsupportedHead(f"head {name}: {error}") from error


def assemble(cells_NX: Tensor, grid: TokenGrid, channels: int, side: int) -> Tensor:
    """Cells of all patches as a map of the input's size.

    Args:
        cells_NX: cells of every patch token [h*w, C*K*K], channel first.
        grid: token grid of the frame.
        channels: C.
        side: K.

    Returns:
        Map [C, H, W], bilinear between cell centres.
    """
    image = cells_NX.T.reshape(1, channels * side * side, grid.height, grid.width)
    small = functional.pixel_shuffle(image, side)
    return functional.interpolate(small, size=grid.image_size, mode="bilinear", align_corners=False)[0]


def activate(raw_CHW: Tensor, activation: Activation) -> Tensor:
    """A head's map as natural values: ids [H, W], one component [H, W], several [H, W, C]."""
    if activation == "argmax":
        return raw_CHW.max(0).indices  # four times as fast as argmax(0) on a CPU
    if activation == "exp":
        raw_CHW = raw_CHW.exp()
    elif activation == "sigmoid":
        raw_CHW = raw_CHW.sigmoid()
    elif activation == "unit":
        raw_CHW = functional.normalize(raw_CHW, dim=0)
    return raw_CHW[0] if raw_CHW.shape[0] == 1 else raw_CHW.permute(1, 2, 0)


def stack_taps(tapped: Mapping[int, Tensor], taps: Sequence[int], prefix: int) -> Tensor:
    """Patch tokens at a head's taps, prefix left out: [h*w, taps, D]."""
    return torch.stack([tapped[tap][prefix:] for tap in taps], dim=1)
