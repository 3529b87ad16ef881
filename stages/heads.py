"""Heads: from tokens at the taps to a dense map.

A head gives each patch token a small square of output cells, from that token alone or from its neighbourhood
(`run_head`). `assemble` draws the squares as pixels, and `lay_out` puts those into a picture. So a head runs again on
just the rows that changed, and only they and their neighbours' rims are drawn again.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
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
        """Output cells of some patch tokens: [R, taps, D] to [R, C*K*K]; [R, (2F+1)^2, taps, D] with a field F."""

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
        self._macs = sum(layer.in_features * layer.out_features for layer in self.linears())

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
        return self._macs

    def linears(self) -> list[nn.Linear]:
        """The linear layers, in order."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]


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


def run_head(head: Head, taps_NTD: Tensor, grid: TokenGrid, patches: Tensor | None) -> Tensor:
    """A head on some patches of a frame.

    Args:
        head: token-wise, or with a receptive field.
        taps_NTD: every patch token of the frame at the head's taps [h*w, taps, D]; for a token-wise head it may be any.
        grid: token grid of the frame.
        patches: which of them to run, increasing int64; None is all that are given.

    Returns:
        Output cells [patches, C*K*K]. A head with a receptive field F gets the (2F+1)^2 tokens around each patch
        [patches, (2F+1)^2, taps, D], zero outside the frame.
    """
    if head.receptive_field == 0:
        return head.cells(taps_NTD if patches is None else taps_NTD[patches])
    return head.cells(_windows(taps_NTD, grid, head.receptive_field, patches))


def touched_patches(patches: Tensor, grid: TokenGrid, reach: int) -> Tensor:
    """Patches within `reach` of some patches, themselves included; numbers, increasing int64."""
    if reach == 0:
        return patches
    flat = torch.zeros(1, 1, grid.height, grid.width)
    flat.view(-1)[patches] = 1
    return functional.max_pool2d(flat, 2 * reach + 1, stride=1, padding=reach).view(-1).nonzero()[:, 0]


def assemble(cells_PX: Tensor, grid: TokenGrid, channels: int, side: int, patches: Tensor | None = None) -> Tensor:
    """Cells as pixels, bilinear between cell centres: the only place where neighbouring tokens of a head meet.

    A patch's pixels depend on its own cells and on those one cell around it, so that a few patches can be drawn again.

    Args:
        cells_PX: cells of every patch of the frame [h*w, C*K*K], channel first.
        grid: token grid of the frame.
        channels: C.
        side: K.
        patches: which to draw, int64; None is all.

    Returns:
        Their pixels [patches, C, patch, patch].
    """
    if patches is None:
        chosen = _all_windows(cells_PX, grid, channels, side)
    else:
        where = _window_cells(grid, channels, side)[patches.numpy(), None] + np.arange(channels)[:, None] * side**2
        chosen = torch.from_numpy(cells_PX.numpy().reshape(-1).take(where, mode="clip"))  # unchecked, as all are inside
    weights = torch.from_numpy(_bilinear(grid.patch, side))
    pixels = functional.linear(chosen.reshape(-1, (side + 2) ** 2), weights)
    return pixels.view(-1, channels, grid.patch, grid.patch)


def _all_windows(cells_PX: Tensor, grid: TokenGrid, channels: int, side: int) -> Tensor:
    """Cells of every patch and those one cell around it [h*w, C, K+2, K+2]; the picture's edge is repeated."""
    squares = cells_PX.view(1, grid.height, grid.width, channels, side, side).permute(0, 3, 1, 4, 2, 5)
    laid_out = squares.reshape(1, channels, grid.height * side, grid.width * side)
    padded = functional.pad(laid_out, (1, 1, 1, 1), mode="replicate")[0]
    return padded.unfold(1, side + 2, side).unfold(2, side + 2, side).permute(1, 2, 0, 3, 4).flatten(0, 1)


def lay_out(
    drawn: NDArray[Any], grid: TokenGrid, onto: NDArray[Any] | None = None, patches: Any = None
) -> NDArray[Any]:
    """Pixels of patches as a picture.

    Args:
        drawn: [patches, patch, patch] or [patches, patch, patch, C].
        grid: token grid of the frame.
        onto: picture [H, W] or [H, W, C] that shows where no patch is drawn; it is left as it is.
        patches: numbers of the patches; None is all.

    Returns:
        A new picture.
    """
    tail, (height, width) = drawn.shape[3:], grid.image_size
    if onto is None:
        squares = drawn.reshape(grid.height, grid.width, grid.patch, grid.patch, *tail)
        return np.ascontiguousarray(squares.swapaxes(1, 2)).reshape(height, width, *tail)
    picture = onto.copy()
    row, column = np.divmod(patches, grid.width)
    picture.reshape(grid.height, grid.patch, grid.width, grid.patch, *tail)[row, :, column] = drawn
    return picture


def activate(raw: Tensor, activation: Activation) -> Tensor:
    """A head's output [..., C, H, W] as natural values: ids [..., H, W], one component likewise, several last."""
    if activation == "argmax":
        return raw.max(-3).indices  # four times as fast as argmax on a CPU
    if activation == "exp":
        raw = raw.exp()
    elif activation == "sigmoid":
        raw = raw.sigmoid()
    elif activation == "unit":
        length = raw.square().sum(-3, keepdim=True).sqrt()
        raw = raw / length.clamp_min(1e-12)  # as functional.normalize, in a tenth of its time over three channels
    return raw.squeeze(-3) if raw.shape[-3] == 1 else raw.movedim(-3, -1)


def natural_values(raw: Tensor, activation: Activation) -> NDArray[Any]:
    """The numbers of `activate`, bit for bit, with ids in a type of their own; faster, but no part of a torch graph."""
    if activation == "argmax" and raw.shape[-3] < 256:
        return _first_largest(raw.numpy())
    if activation == "unit" and raw.shape[-3] > 1:
        return _unit_vectors(raw.numpy())
    return np.asarray(activate(raw, activation).numpy())


def stack_taps(tapped: Mapping[int, Tensor], taps: Sequence[int], prefix: int) -> Tensor:
    """Patch tokens at a head's taps, prefix left out: [h*w, taps, D]."""
    return torch.stack([tapped[tap][prefix:] for tap in taps], dim=1)


def _windows(taps_NTD: Tensor, grid: TokenGrid, reach: int, patches: Tensor | None) -> Tensor:
    """Tokens around each patch [patches, (2*reach+1)^2, taps, D], zero outside the frame."""
    image = taps_NTD.view(grid.height, grid.width, *taps_NTD.shape[1:])
    padded = functional.pad(image, (0, 0, 0, 0, reach, reach, reach, reach))
    chosen = torch.arange(grid.patches) if patches is None else patches
    row, column = chosen // grid.width, chosen % grid.width
    steps = torch.arange(2 * reach + 1)
    around = padded[(row[:, None] + steps)[:, :, None], (column[:, None] + steps)[:, None, :]]
    return around.flatten(1, 2)


def _first_largest(raw: NDArray[Any]) -> NDArray[np.uint8]:
    """The channel of the largest value [..., C, H, W], of equal ones the first, as torch's max; at most 255 channels.

    Torch looks for value and place in one pass, number by number: on one thread this is as fast as that on three.
    """
    lost = (raw < raw.max(-3, keepdims=True)).view(np.uint8)
    np.negative(lost, out=lost)  # 255 where another channel has more
    lost |= np.arange(raw.shape[-3], dtype=np.uint8)[:, None, None]
    return np.asarray(lost.min(-3))


def _unit_vectors(raw: NDArray[Any]) -> NDArray[Any]:
    """Vectors of length 1 along the channels [..., C, H, W], which become the last axis."""
    length = torch.from_numpy(np.square(raw).sum(-3)).sqrt().numpy()  # torch rounds roots in its own way
    np.maximum(length, 1e-12, out=length)
    unit = np.empty((*length.shape, raw.shape[-3]), raw.dtype)
    for channel in range(raw.shape[-3]):
        np.divide(raw[..., channel, :, :], length, out=unit[..., channel])
    return unit


@cache
def _window_cells(grid: TokenGrid, channels: int, side: int) -> NDArray[np.intp]:
    """Where the first channel's cells of `_all_windows` are among the cells of every patch [h*w, (K+2)^2]."""
    numbers = torch.arange(grid.patches * channels * side**2, dtype=torch.float64).view(grid.patches, -1)
    return _all_windows(numbers, grid, channels, side)[:, 0].flatten(1).numpy().astype(np.intp)


@cache
def _bilinear(patch: int, side: int) -> NDArray[np.float32]:
    """Weights of the cells of a patch, and of one cell all around, for its pixels [patch^2, (side + 2)^2].

    Rows and columns in one product: many tiny ones, one a patch and channel, take several times as long.
    """
    centre = (np.arange(patch, dtype=np.float32) + 0.5) * np.float32(side / patch) + 0.5  # in coordinates of the cells
    along = np.clip(1 - np.abs(centre[:, None] - np.arange(side + 2, dtype=np.float32)), 0, None)
    return np.asarray(np.kron(along, along), np.float32)
