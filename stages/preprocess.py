"""Preprocessing of frames for the model: resizing and normalising."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from deltascene.stages.input_plan import InputPlan
from deltascene.stages.types import Image


def resize_frame(image: Image, plan: InputPlan) -> Tensor:
    """A frame at the model's size: RGB uint8 [3, H, W], antialiased bilinear; letterbox margins are 0.

    The frame may be read-only or a flipped view.
    """
    top, left, height, width = plan.content
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)
    if (height, width) != plan.frame_size:
        pixels = functional.interpolate(pixels[None], size=(height, width), mode="bilinear", antialias=True)[0]
    if (height, width) == plan.model_size:
        return torch.from_numpy(np.stack(cv2.split(pixels.permute(1, 2, 0).numpy())))  # torch would wait for threads
    canvas = torch.zeros(3, *plan.model_size, dtype=torch.uint8)
    canvas[:, top : top + height, left : left + width] = pixels
    return canvas


def normalise(pixels_CHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised floats [3, H, W], as the backbone was trained on, of uint8 pixels [3, H, W]."""
    return (pixels_CHW.float() / 255 - _per_colour(mean, 1, 1)) / _per_colour(std, 1, 1)


def normalise_patches(patches_PX: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """As `normalise`, for patches cut from the picture: uint8 [patches, 3 * patch * patch], colour first."""
    by_colour = patches_PX.numpy().reshape(len(patches_PX), 3, -1).astype(np.float32)  # torch would wait for threads
    by_colour /= 255
    by_colour -= np.array(mean, np.float32)[:, None]
    by_colour /= np.array(std, np.float32)[:, None]
    return torch.from_numpy(by_colour).flatten(1)


def _per_colour(values: Sequence[float], *after: int) -> Tensor:
    return torch.tensor(values).view(3, *after)
