"""The walk of one frame through the stages, on one screen: `step(model, config, state, frame)`."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deltascene.pipeline.config import Config
from deltascene.pipeline.model import SceneModel
from deltascene.pipeline.results import FrameCost, FrameResult, Prediction, TaskCost
from deltascene.stages.backbone import Positions
from deltascene.stages.base_task import run_base
from deltascene.stages.cost import Macs, blocks_macs, embed_macs
from deltascene.stages.heads import activate, assemble, stack_taps
from deltascene.stages.policy import Policy, choose_policy
from deltascene.stages.preprocess import InputPlan, normalise, plan_input, resize_frame
from deltascene.stages.types import Frame, TokenGrid

MAX_AGE = 255


@dataclass(frozen=True, slots=True)
class InputGeometry:
    """What depends on a stream's frame size alone, worked out once."""

    plan: InputPlan
    grid: TokenGrid
    positions: Positions


@dataclass(frozen=True, slots=True)
class StreamState:
    """What a stream carries from frame to frame inside a segment; it starts empty.

    Attributes:
        geometry: of its frame size.
        pixels: last computed input, uint8 [3, H, W].
        predictions: last outputs.
    """

    geometry: InputGeometry | None = None
    pixels: Tensor | None = None
    predictions: Mapping[str, Prediction] = field(default_factory=dict)


@torch.inference_mode()
def step(model: SceneModel, config: Config, state: StreamState, frame: Frame) -> tuple[StreamState, FrameResult]:
    """One frame of one stream: preprocess, decide, run what is needed.

    Args:
        model: backbone and heads.
        config: resolved config.
        state: what the stream carries; an empty one starts a segment with a dense frame.
        frame: the frame; an invalid one is passed through without a prediction.

    Returns:
        The stream's next state, and the frame's result.
    """
    clock, image = Stopwatch(), frame.image
    if not frame.valid or image is None:
        return state, _result(model, state, replace(frame, valid=False), "skipped", {}, clock)
    geometry = state.geometry
    if geometry is None or geometry.plan.frame_size != image.shape[:2]:
        frame = frame if geometry is None else replace(frame, cause=frame.cause or "resized")
        geometry = plan_geometry(model, config, image.shape[:2])
        state = StreamState(geometry)
    pixels = resize_frame(image, geometry.plan)
    clock.lap("preprocess")
    policy = choose_policy(
        valid=True,
        first=state.pixels is None,
        identical=state.pixels is not None and torch.equal(pixels, state.pixels),
        hold_identical=config.policy.hold_identical,
    )
    clock.lap("preprocess")
    if policy == "held":
        predictions = {name: replace(last, age=_older(last.age)) for name, last in state.predictions.items()}
    else:
        predictions = _predict_dense(model, geometry, pixels, clock)
        state = StreamState(geometry, pixels, predictions)
    return replace(state, predictions=predictions), _result(model, state, frame, policy, predictions, clock)


def plan_geometry(model: SceneModel, config: Config, frame_size: tuple[int, int]) -> InputGeometry:
    """Input size, token grid and positions for frames of one size.

    Raises:
        StageError: the frames are smaller than one patch.
    """
    entry, asked = model.bundle.entry.input, config.input.size
    size, short_side = entry.size, entry.short_side
    if asked is not None:
        size, short_side = (None, asked) if isinstance(asked, int) else (asked, None)
    plan = plan_input(frame_size, model.backbone.patch, size=size, short_side=short_side, resize=entry.resize)
    grid = model.backbone.grid(plan.model_size)
    return InputGeometry(plan, grid, model.backbone.positions(grid))


class Stopwatch:
    """Seconds by (task, stage): `lap` books the time since the last lap."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str, task: str = "") -> None:
        """Books the time since the last lap; no task means shared by all, booked on the base."""
        now = time.perf_counter()
        self.seconds[task, stage] = self.seconds.get((task, stage), 0.0) + now - self._last
        self._last = now


def _predict_dense(
    model: SceneModel, geometry: InputGeometry, pixels: Tensor, clock: Stopwatch
) -> dict[str, Prediction]:
    bundle, grid = model.bundle, geometry.grid
    image_CHW = normalise(pixels, bundle.entry.input.mean, bundle.entry.input.std)
    clock.lap("preprocess")
    x_ND = model.backbone.embed(image_CHW, geometry.positions)
    clock.lap("embed")
    tapped = run_base(model.backbone, x_ND, bundle.taps(model.tasks))
    clock.lap("blocks")
    predictions = {}
    for task in model.tasks:
        head, kind = model.heads[task], bundle.kinds[task]
        cells = head.cells(stack_taps(tapped, bundle.entry.tasks[task].taps, grid.prefix))
        value = activate(assemble(cells, grid, kind.channels, head.side), kind.activation).numpy()
        if kind.activation == "argmax":
            value = value.astype(kind.stored.dtype)
        predictions[task] = Prediction(kind, value, np.zeros(grid.image_size, np.uint8))
        clock.lap("head", task)
    return predictions


def _older(age: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(age < MAX_AGE, age + 1, age).astype(np.uint8)


def _result(
    model: SceneModel,
    state: StreamState,
    frame: Frame,
    policy: Policy,
    predictions: Mapping[str, Prediction],
    clock: Stopwatch,
) -> FrameResult:
    return FrameResult(frame, policy, predictions, FrameCost(_costs(model, state, policy, clock)))


def _costs(model: SceneModel, state: StreamState, policy: Policy, clock: Stopwatch) -> dict[str, TaskCost]:
    base = model.bundle.entry.base
    costs = {}
    for task in dict.fromkeys((base, *model.tasks)):
        dense = dense_macs(model, state.geometry.grid, task) if state.geometry and policy != "skipped" else Macs()
        ran = policy == "dense"
        tokens = state.geometry.grid.tokens if state.geometry else 0
        seconds = {
            stage: spent
            for (owner, stage), spent in clock.seconds.items()
            if owner == task or (owner == "" and task == base)
        }
        own_rows = tokens if ran and task == base else 0
        costs[task] = TaskCost(tokens, own_rows, dense if ran else Macs(), dense, seconds)
    return costs


def dense_macs(model: SceneModel, grid: TokenGrid, task: str) -> Macs:
    """MACs of a task on one dense frame; the base carries the embedding and the blocks, which every task shares."""
    head = model.heads[task].macs_per_token() * grid.patches if task in model.tasks else 0
    if task != model.bundle.entry.base:
        return Macs(head=head)
    shapes = model.backbone.block_shapes()[: max(model.bundle.taps(model.tasks))]
    return Macs(
        embed=embed_macs(grid.patches, model.backbone.patch_macs()),
        blocks=blocks_macs(shapes, grid.tokens, grid.tokens),
        head=head,
    )
