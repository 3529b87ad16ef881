"""The numerics record: everything about the arithmetic that may change a bit of a result."""

import importlib.metadata
from typing import Any

import torch

from deltascene.pipeline.config import Config


def numerics_record(config: Config) -> dict[str, Any]:
    """What results depend on beside config, weights and input: two runs with equal records are byte-equal.

    Args:
        config: resolved config.
    """
    return {
        "dtype": config.numerics.dtype,
        "kernel": "torch eager",
        "threads": torch.get_num_threads(),
        "packing": "none",
        "torch": str(torch.__version__),
        "timm": importlib.metadata.version("timm"),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
