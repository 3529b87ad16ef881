"""Conversion between rows of the network, float32 tensors, and their stored form, numpy arrays of a stored type.

Activations at a split are encoded once, and all tasks compute on the decoded values: in this process, in another actor,
or later from the archive. So all of them compute the same.
"""

import numpy as np
import torch
from torch import Tensor

from deltascene.cache.segment import Array, decoded, encoded


def encode_rows(x_RD: Tensor, dtype: str) -> Array:
    """Rows [R, D] as float32, or as uint16 that holds the bits of bfloat16, rounded to nearest even."""
    return encoded(x_RD.numpy(), dtype)


def decode_rows(stored: Array) -> Tensor:
    """Stored rows as float32 [R, D]; a read-only array is copied."""
    values = decoded(stored, "bfloat16" if stored.dtype == np.uint16 else "float32")
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))
