"""The only translator between the network's rows and stored ones: float32 tensors, numpy arrays of a stored type.

What crosses a split is encoded once; whoever comes after it takes the decoded value, in this process, in another actor,
or on another day. So all of them compute the same.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deltascene.pipeline.config import Config

Array = NDArray[Any]


def split_dtype(config: Config) -> str:
    """What activations are handed on as, `float32` or `bfloat16`; `native` is the engine's own type."""
    asked = config.numerics.split_dtype
    return config.numerics.dtype if asked == "native" else asked


def encode_rows(x_RD: Tensor, dtype: str) -> Array:
    """Rows [R, D] as float32, or as uint16 that holds the bits of bfloat16, rounded to nearest even."""
    if dtype == "bfloat16":
        return x_RD.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    return x_RD.numpy()


def decode_rows(stored: Array) -> Tensor:
    """Stored rows as float32 [R, D]."""
    own = torch.from_numpy(np.require(stored, requirements=["C", "W"]).view(_SAME_SIZE.get(stored.dtype, stored.dtype)))
    return own.view(torch.bfloat16).float() if stored.dtype == np.uint16 else own


_SAME_SIZE = {np.dtype(np.uint16): np.dtype(np.int16)}
