"""Baselines: dense networks in eager PyTorch, and the same networks compiled by OpenVINO.

B1 is one whole network per task; B2 is the bundle's own dense network, in which tasks share the base's blocks
(docs/benchmarks.md has the method). Both use this package's dense code path, which is as fast as timm's
(`benchmarks/dense.py`), with the same heads.
"""

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deltascene.pipeline.bundles.bundle import Bundle
from deltascene.pipeline.bundles.scene_model import SceneModel, load_model
from deltascene.pipeline.errors import UsageError
from deltascene.stages.heads import activate, assemble, stack_taps
from deltascene.stages.rows import run_blocks
from deltascene.stages.types import TokenGrid

Precision = Literal["f32", "bf16"]
Compiled = Literal[Precision, "int8"]
Network = Callable[[Tensor], Sequence[NDArray[Any]]]


class DenseNetwork(nn.Module):
    """Dense prediction of an image by the base, the tasks' own blocks and their heads, as a module."""

    def __init__(self, model: SceneModel, grid: TokenGrid) -> None:
        """Takes a model as returned by `load_model`, not prepared for the kernel."""
        super().__init__()
        model.backbone.requires_grad_(False)
        self._model, self._grid, self._positions = model, grid, model.backbone.positions(grid)
        self._base = model.backbone.features()  # so that its weights are part of this module
        self._heads = nn.ModuleDict(model.heads)
        self._own = nn.ModuleList(block for sub in model.sub_tasks.values() for block in sub.blocks)

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Outputs by task, in the model's order, of a normalised image [1, 3, H, W]."""
        model, grid = self._model, self._grid
        x_ND = model.backbone.embed(image_BCHW[0], self._positions).to(image_BCHW.dtype)  # positions are float32
        own = {task: sub.split for task, sub in model.sub_tasks.items()}
        read = {tap for task in model.tasks if task not in own for tap in model.bundle.entry.tasks[task].taps}
        shared = run_blocks(model.backbone.blocks, x_ND, read | set(own.values()))
        outputs = []
        for task in model.tasks:
            taps, tapped = model.bundle.entry.tasks[task].taps, shared
            kind, head = model.bundle.kinds[task], model.heads[task]
            if task in own:
                tapped = run_blocks(model.sub_tasks[task].blocks, shared[own[task]], set(taps), first=own[task])
            cells = head.cells(stack_taps(tapped, taps, grid.prefix)).float()
            outputs.append(activate(assemble(cells, grid, kind.channels, head.side), kind.activation))
        return tuple(outputs)


def networks(bundle: Bundle, tasks: Sequence[str], grid: TokenGrid, *, single_task: bool) -> list[DenseNetwork]:
    """Dense networks of some tasks: one per task (B1), or the bundle's (B2)."""
    groups = [[task] for task in tasks] if single_task else [list(tasks)]
    return [DenseNetwork(load_model(bundle, group), grid).eval() for group in groups]


def by_torch(network: nn.Module, precision: Precision = "f32") -> Network:
    """Runs a network in eager PyTorch."""
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
    network = network.to(dtype)

    @torch.inference_mode()
    def run(image_BCHW: Tensor) -> list[NDArray[Any]]:
        outputs = network(image_BCHW.to(dtype))
        plain = (out.float() if out.is_floating_point() else out for out in _listed(outputs))
        return [out.numpy() for out in plain]

    return run


def by_openvino(network: nn.Module, example_BCHW: Tensor, threads: int, precision: Compiled = "f32") -> Network:
    """Runs a network with OpenVINO's CPU plug-in, optimised for the latency of one stream.

    Args:
        network: image in, one or more outputs.
        example_BCHW: an image of the size of all later ones; int8 calibrates its ranges on it.
        threads: maximum number.
        precision: int8 is nncf's post-training quantisation of weights and activations; the rest is bf16.

    Raises:
        UsageError: the extra `bench` isn't installed.
    """
    _unbind()
    try:
        import openvino
    except ImportError as error:
        raise UsageError("openvino: expected the extra `bench`: pip install 'deltascene[bench]'") from error
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of checks of shapes in Python
        found = openvino.convert_model(network.requires_grad_(False), example_input=example_BCHW)
    found.reshape(list(example_BCHW.shape))
    if precision == "int8":
        found = _quantised(found, example_BCHW)
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "int8" else precision,
    }
    compiled = openvino.Core().compile_model(found, "CPU", settings)

    def run(image_BCHW: Tensor) -> list[NDArray[Any]]:
        return [np.array(out) for out in compiled(image_BCHW.numpy()).values()]

    return run


def _quantised(model: Any, example_BCHW: Tensor) -> Any:
    try:
        import nncf
    except ImportError as error:
        raise UsageError("nncf: expected the extra `bench`: pip install 'deltascene[bench]'") from error
    logging.getLogger("nncf").setLevel(logging.ERROR)
    ranges = nncf.Dataset([example_BCHW.numpy()])
    with redirect_stdout(StringIO()):  # its progress
        return nncf.quantize(model, ranges, model_type=nncf.ModelType.TRANSFORMER, subset_size=1)


def _unbind() -> None:
    """Allows this thread on all cores: OMP_PROC_BIND binds it when torch's threads start, and OpenVINO, when imported,
    uses only the cores on which this thread may run."""
    _ = torch.ones(600, 600) @ torch.ones(600, 600)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def _listed(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs
