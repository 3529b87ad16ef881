"""The numerics record: everything about the arithmetic that can change a bit of a result."""

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import torch

from deltascene.cache.keys import first_difference
from deltascene.pipeline.config import Config
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.numerics.dtype import choose_dtype
from deltascene.pipeline.numerics.kernel import choose_kernel, kernel_name
from deltascene.pipeline.numerics.plain_torch import plain_torch
from deltascene.stages.motion import flow_threads, set_flow_threads


def numerics_record(config: Config) -> dict[str, Any]:
    """Everything besides config, weights and input that results depend on: runs with equal records are byte-equal.

    Args:
        config: a resolved and settled config.
    """
    assert config.numerics.dtype != "auto", "a record is of settled numerics"
    return {
        "dtype": config.numerics.dtype,
        "split_dtype": split_dtype(config),
        "kernel": kernel_name() if config.numerics.kernel == "compiled" else "torch",
        "threads": torch.get_num_threads(),
        "packing": "none",
        "deltas": config.numerics.delta,
        "row_buckets": "none",
        "flow_threads": flow_threads(),
        "torch": str(torch.__version__),
        "timm": importlib.metadata.version("timm"),
        "opencv": importlib.metadata.version("opencv-python"),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


@plain_torch()
def settle(config: Config) -> Config:
    """A config whose numerics set to `auto` are chosen for this machine.

    Raises:
        UsageError: it requests a kernel or a type that this machine doesn't have.
    """
    numerics = config.numerics.model_copy(update={"kernel": choose_kernel(config.numerics.kernel)})
    numerics = numerics.model_copy(update={"dtype": choose_dtype(numerics)})
    return config.model_copy(update={"numerics": numerics})


def use_threads(config: Config) -> None:
    """Sets the threads of this process as in a settled config: torch's, and one for optical flow."""
    assert config.numerics.threads is not None, "threads are settled with the executor"
    torch.set_num_threads(config.numerics.threads)
    set_flow_threads(1)


def honour(config: Config, wanted: Mapping[str, Any]) -> None:
    """Sets up this process to compute as in a numerics record.

    Raises:
        UsageError: it can't; the text names the first difference.
    """
    choose_kernel(config.numerics.kernel)
    torch.set_num_threads(int(wanted["threads"]))
    set_flow_threads(int(wanted["flow_threads"]))
    difference = first_difference(wanted, numerics_record(config))
    if difference is not None:
        name, asked, found = difference
        raise UsageError(f"numerics: expected {name} = {asked}, as the run's; this process has {found}")


def split_dtype(config: Config) -> str:
    """Type of activations at a split, `float32` or `bfloat16`; `native` in the config is the type that blocks multiply.

    Args:
        config: a config with settled numerics.
    """
    assert config.numerics.dtype != "auto", "numerics have to be settled"
    asked = config.numerics.split_dtype
    return config.numerics.dtype if asked == "native" else asked
