"""The only translator between the network's rows and stored ones: float32 tensors, numpy arrays of a stored type.

What crosses a split is encoded once; whoever comes after it takes the decoded value, in this process, in another actor,
or on another day. So all of them compute the same.
"""

import numpy as np
import torch
from torch import Tensor

from deltascene.cache.segment import Array, decoded, encoded


def encode_rows(x_RD: Tensor, dtype: str) -> Array:
    """Rows [R, D] as float32, or as uint16 that holds the bits of bfloat16, rounded to nearest even."""
    return encoded(x_RD.numpy(), dtype)


def decode_rows(stored: Array) -> Tensor:
    """Stored rows as float32 [R, D]; what is read-only is copied."""
    values = decoded(stored, "bfloat16" if stored.dtype == np.uint16 else "float32")
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))
