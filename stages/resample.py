"""Resizing of predictions to the frame's own size."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from deltascene.stages.input_plan import InputPlan
from deltascene.stages.kinds import Kind, Resample, unit_vectors


def to_frame_size(value: NDArray[Any], kind: Kind, plan: InputPlan) -> NDArray[Any]:
    """Crops natural values at the model's size to the frame's picture, and resizes them to the frame.

    Args:
        value: natural values [H, W] or [H, W, components].
        kind: the task's kind, which determines the interpolation.
        plan: how the frame became the model's input.

    Returns:
        The same values at `plan.frame_size`; unit vectors are renormalised.
    """
    resized = resize_map(value, plan, kind.resample)
    return unit_vectors(resized).astype(value.dtype) if kind.activation == "unit" else resized


def resize_map(value: NDArray[Any], plan: InputPlan, resample: Resample) -> NDArray[Any]:
    """Crops and resizes a map at the model's size to the frame: nearest neighbour, or bilinear."""
    top, left, height, width = plan.content
    cut = value[top : top + height, left : left + width]
    if plan.frame_size == (height, width):
        return cut
    planes = (
        torch.from_numpy(np.require(cut, requirements=["C", "W"]))
        .float()
        .reshape(height, width, -1)
        .permute(2, 0, 1)[None]
    )
    mode = "nearest-exact" if resample == "nearest" else "bilinear"
    resized = functional.interpolate(planes, size=plan.frame_size, mode=mode)[0].permute(1, 2, 0)
    return resized.reshape(*plan.frame_size, *value.shape[2:]).numpy().astype(value.dtype)
