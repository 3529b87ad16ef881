"""From a frame to the model's input: where its pixels land, resizing, normalising."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from deltascene.stages.errors import StageError
from deltascene.stages.types import Image

ResizeMode = Literal["stretch", "letterbox"]


@dataclass(frozen=True, slots=True)
class InputPlan:
    """How frames of one size become model input.

    Attributes:
        frame_size: height and width of the frame in pixels.
        model_size: height and width of the model's input, multiples of the patch.
        content: top, left, height and width of the frame's picture inside the input; all of it unless letterboxed.
    """

    frame_size: tuple[int, int]
    model_size: tuple[int, int]
    content: tuple[int, int, int, int]


def plan_input(
    frame_size: tuple[int, int], patch: int, *, size: tuple[int, int] | None, short_side: int | None, resize: ResizeMode
) -> InputPlan:
    """Chooses the model's input size for a frame size.

    Args:
        frame_size: height and width of the frame.
        patch: side of a patch; sizes are rounded to its multiples.
        size: wanted height and width, or None.
        short_side: without `size`, the wanted length of the shorter side; the other follows the frame's shape. With
            neither, the frame's own size.
        resize: `stretch` fills the input; `letterbox` keeps the shape and pads.

    Raises:
        StageError: the frame is smaller than one patch.
    """
    if min(frame_size) < patch:
        raise StageError(
            f"frame: expected at least one patch, {patch}x{patch} pixels; found {frame_size[0]}x{frame_size[1]}"
        )
    enlarged = (short_side or min(frame_size)) / min(frame_size)
    wanted = size or (frame_size[0] * enlarged, frame_size[1] * enlarged)
    height, width = (max(patch, round(side / patch) * patch) for side in wanted)
    if resize == "stretch":
        return InputPlan(frame_size, (height, width), (0, 0, height, width))
    scale = min(height / frame_size[0], width / frame_size[1])
    inner = max(1, round(frame_size[0] * scale)), max(1, round(frame_size[1] * scale))
    return InputPlan(frame_size, (height, width), ((height - inner[0]) // 2, (width - inner[1]) // 2, *inner))


def resize_frame(image: Image, plan: InputPlan) -> Tensor:
    """A frame at the model's size: RGB uint8 [3, H, W], antialiased bilinear; letterbox margins are 0.

    The frame may be read-only or a flipped view; it is never shared with the result.
    """
    top, left, height, width = plan.content
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)
    if (height, width) != plan.frame_size:
        pixels = functional.interpolate(pixels[None], size=(height, width), mode="bilinear", antialias=True)[0]
    if (height, width) == plan.model_size:
        return pixels.contiguous()
    canvas = torch.zeros(3, *plan.model_size, dtype=torch.uint8)
    canvas[:, top : top + height, left : left + width] = pixels
    return canvas


def normalise(pixels_CHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 pixels [3, H, W] to the floats that the backbone was trained on."""
    return (pixels_CHW.float() / 255 - _per_colour(mean, 1, 1)) / _per_colour(std, 1, 1)


def normalise_patches(patches_PX: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The same for patches cut from the picture, uint8 [patches, 3 * patch * patch], colour first."""
    by_colour = patches_PX.view(patches_PX.shape[0], 3, -1)
    return ((by_colour.float() / 255 - _per_colour(mean, 1)) / _per_colour(std, 1)).flatten(1)


def _per_colour(values: Sequence[float], *after: int) -> Tensor:
    return torch.tensor(values).view(3, *after)
