"""The walk of one frame through the stages, on one screen: `step(model, config, state, frame)`.

Pixels decide what is computed (temporal.py). The base runs those rows and hands a record on; every task makes its
outputs of that record (task_step.py), here or wherever else it arrives.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deltascene.cache.segment import FrameRecord
from deltascene.pipeline.config import Config
from deltascene.pipeline.convert import encode_rows, split_dtype
from deltascene.pipeline.model import SceneModel
from deltascene.pipeline.results import FrameCost, FrameResult, TaskCost
from deltascene.pipeline.stopwatch import Stopwatch
from deltascene.pipeline.task_step import COMPUTED, TaskState, receive, step_task, task_cost
from deltascene.pipeline.temporal import Decision, TemporalState, decide
from deltascene.stages.age import PatchAges
from deltascene.stages.backbone import Positions, cut_patches
from deltascene.stages.base_task import run_base
from deltascene.stages.change import patches_of
from deltascene.stages.cost import Macs, blocks_macs, embed_macs
from deltascene.stages.motion import estimate_flow, to_grey
from deltascene.stages.preprocess import InputPlan, normalise_patches, resize_frame
from deltascene.stages.scene_cache import SceneCache, allocate_cache
from deltascene.stages.types import Frame, TokenGrid


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
        temporal: of its pixels.
        cache: the base's keys and values; overwritten in place.
        ages: of the patches.
        tasks: what each task carries.
    """

    geometry: InputGeometry | None = None
    temporal: TemporalState = field(default_factory=TemporalState)
    cache: SceneCache | None = None
    ages: PatchAges | None = None
    tasks: Mapping[str, TaskState] = field(default_factory=dict)


@torch.inference_mode()
def step(
    model: SceneModel, config: Config, state: StreamState, frame: Frame, points: tuple[int, ...] = ()
) -> tuple[StreamState, FrameResult]:
    """One frame of one stream: preprocess, decide, run what is needed.

    Args:
        model: backbone, heads, and blocks of tasks with a delta.
        config: resolved config.
        state: what the stream carries; an empty one starts a segment with a dense frame.
        frame: the frame; an invalid one is passed through without a prediction.
        points: where the base's tokens are handed on besides the splits of the model's own tasks.

    Returns:
        The stream's next state, and the frame's result with the base's record.
    """
    clock, image = Stopwatch(), frame.image
    if not frame.valid or image is None:
        return state, _skipped(model, config, state, replace(frame, valid=False), points, clock)
    if state.geometry is None or state.geometry.plan.frame_size != image.shape[:2]:
        frame = frame if state.geometry is None else replace(frame, cause=frame.cause or "resized")
        state = StreamState(plan_geometry(model, config, image.shape[:2]))
    assert state.geometry is not None
    grid = state.geometry.grid
    pixels = resize_frame(image, state.geometry.plan)
    clock.lap("preprocess")
    temporal, decision = decide(config, grid, state.temporal, frame, pixels)
    clock.lap("mask")
    if config.policy.reuse and state.cache is None:
        blocks = model.backbone.blocks[: base_depth(model, points)]
        state = replace(state, cache=allocate_cache(blocks, grid.tokens, model.backbone.width, ()))
    tapped = _run_rows(model, state, decision, pixels, points, clock)
    record = _record(model, config, frame, decision, tapped, pixels, grid, points, clock)
    moment = receive(record, grid, state.ages)
    clock.lap("mask" if moment.where is None else "warp")
    tasks, predictions = dict(state.tasks), {}
    for task in model.tasks:
        before = tasks.get(task, TaskState())
        tasks[task], predictions[task] = step_task(model, task, before, moment, tapped, clock, keep=config.policy.reuse)
    cost = FrameCost(frame_costs(model, record, grid, points, clock), moment.ages.oldest_s(frame.pts_s))
    state = replace(state, temporal=temporal, ages=moment.ages, tasks=tasks)
    result = FrameResult(frame, record, predictions, cost, moment.age)
    if config.policy.reuse and decision.policy != "dense" and _audit_due(config, frame):
        result = _audit(model, config, state, result, points)
    return state, result


def plan_geometry(model: SceneModel, config: Config, frame_size: tuple[int, int]) -> InputGeometry:
    """Input size, token grid and positions for frames of one size.

    Raises:
        StageError: the frames are smaller than one patch.
    """
    plan, grid = grid_of(model, config, frame_size)
    return InputGeometry(plan, grid, model.backbone.positions(grid))


def grid_of(model: SceneModel, config: Config, frame_size: tuple[int, int]) -> tuple[InputPlan, TokenGrid]:
    """Input size and token grid for frames of one size; the model may be without weights.

    Raises:
        StageError: the frames are smaller than one patch.
    """
    plan = model.bundle.input_plan(frame_size, model.backbone.patch, config.input.size)
    return plan, model.backbone.grid(plan.model_size)


def base_depth(model: SceneModel, points: tuple[int, ...] = ()) -> int:
    """How many blocks of the base run: to the last token that anybody reads."""
    return max(_base_taps(model, points), default=0)


def _base_taps(model: SceneModel, points: tuple[int, ...]) -> set[int]:
    """Where the base's tokens are read: by heads without blocks of their own, and by what is handed on."""
    own = [task for task in model.tasks if task not in model.sub_tasks]
    return {*model.bundle.taps(own), *_handed_on(model, points)}


def _handed_on(model: SceneModel, points: tuple[int, ...]) -> list[int]:
    """Where the base's tokens are handed on, increasing."""
    return sorted({*points, *(sub.split for sub in model.sub_tasks.values())})


def _run_rows(
    model: SceneModel,
    state: StreamState,
    decision: Decision,
    pixels: Tensor,
    points: tuple[int, ...],
    clock: Stopwatch,
) -> dict[int, Tensor]:
    """The base on the rows to compute: their tokens [R, D] wherever somebody reads them."""
    if decision.policy not in COMPUTED:
        return {}
    assert state.geometry is not None
    entry, grid = model.bundle.entry.input, state.geometry.grid
    patches = patches_of(decision.rows, grid)
    cut = cut_patches(pixels, grid.patch)
    normalised = normalise_patches(cut if patches is None else cut[patches], entry.mean, entry.std)
    x_RD = model.backbone.embed_patches(normalised, state.geometry.positions, patches)
    clock.lap("embed")
    tapped = run_base(model.backbone, x_RD, _base_taps(model, points), rows=decision.rows, cache=state.cache)
    clock.lap("blocks")
    return tapped


def _record(
    model: SceneModel,
    config: Config,
    frame: Frame,
    decision: Decision,
    tapped: Mapping[int, Tensor],
    pixels: Tensor,
    grid: TokenGrid,
    points: tuple[int, ...],
    clock: Stopwatch,
) -> FrameRecord:
    """What is handed on: the rows' tokens where tasks split off, or the flow since they were last computed."""
    rows, flow = row_numbers(decision, grid), None
    if decision.policy == "warped":
        assert decision.computed is not None
        now, computed = to_grey(pixels.numpy()), to_grey(decision.computed.numpy())
        flow = estimate_flow(now, computed, decision.moved, grid)
        clock.lap("flow")
    handed = _encoded(model, config, tapped, points)
    if tapped:
        clock.lap("blocks")
    about = (frame.index, frame.pts_s, True, frame.cause, decision.policy, decision.reason)
    return FrameRecord(*about, rows, handed, decision.strength, flow)


def _encoded(
    model: SceneModel, config: Config, tapped: Mapping[int, Tensor], points: tuple[int, ...]
) -> dict[int, NDArray[Any]]:
    """The computed rows' tokens wherever they are handed on, as they are stored; no rows where nothing ran."""
    dtype, none_RD = split_dtype(config), torch.empty(0, model.backbone.width)
    return {point: encode_rows(tapped.get(point, none_RD), dtype) for point in _handed_on(model, points)}


def _skipped(
    model: SceneModel, config: Config, state: StreamState, frame: Frame, points: tuple[int, ...], clock: Stopwatch
) -> FrameResult:
    """An invalid frame: nothing runs, nothing is predicted, nothing counts as saved."""
    patches = 0 if state.geometry is None else state.geometry.grid.patches
    nothing = np.empty(0, np.int32)
    about = (frame.index, frame.pts_s, False, frame.cause, "skipped", "invalid")
    handed = _encoded(model, config, {}, points)
    record = FrameRecord(*about, nothing, handed, np.zeros(patches, np.uint8), None)
    base = model.bundle.entry.base
    tasks = {
        task: TaskCost(0, 0, Macs(), Macs(), clock.of(task, shared=task == base))
        for task in dict.fromkeys((base, *model.tasks))
    }
    return FrameResult(frame, record, {}, FrameCost(tasks, None))


def frame_costs(
    model: SceneModel, record: FrameRecord, grid: TokenGrid, points: tuple[int, ...], clock: Stopwatch
) -> dict[str, TaskCost]:
    """Every task's cost: a function of the record's rows and of shapes, and the clock's seconds.

    The base's row carries what all share, and is there even if nobody asked for its outputs.
    """
    base = model.bundle.entry.base
    costs = {task: task_cost(model, task, record, grid, clock.of(task)) for task in model.tasks}
    shapes = model.backbone.block_shapes()[: base_depth(model, points)]
    head = costs.get(base)

    def shared(rows: int, head_macs: int) -> Macs:
        if not rows:
            return Macs()
        embedded = embed_macs(rows - grid.prefix, model.backbone.patch_macs())
        return Macs(embed=embedded, blocks=blocks_macs(shapes, rows, grid.tokens), head=head_macs)

    computed = len(record.rows)
    own = TaskCost(
        grid.tokens,
        computed,
        shared(computed, head.executed.head if head else 0),
        shared(grid.tokens, head.dense.head if head else 0),
        clock.of(base, shared=True),
        head.single_task if head else 0,
    )
    return {base: own} | {task: cost for task, cost in costs.items() if task != base}


def _audit_due(config: Config, frame: Frame) -> bool:
    every = config.run.audit_every
    return every is not None and frame.index // config.source.stride % every == 0


def _audit(
    model: SceneModel, config: Config, state: StreamState, result: FrameResult, points: tuple[int, ...]
) -> FrameResult:
    """The same frame computed in full besides: drift of every prediction, its MACs and time charged to the frame.

    It starts from nothing and leaves nothing behind, so that results are the same with audits and without.
    """
    clock = Stopwatch()
    every_row = config.model_copy(update={"policy": config.policy.model_copy(update={"reuse": False})})
    _, dense = step(model, every_row, StreamState(state.geometry), result.frame, points)
    clock.lap("audit")
    costs = {}
    for task, cost in result.cost.tasks.items():
        drift = None
        if task in result.predictions:
            made = result.predictions[task]
            drift = made.kind.drift(made.array, dense[task].array)
        spent = clock.of("", shared=True) if task == model.bundle.entry.base else {}
        costs[task] = replace(cost, executed=cost.executed + cost.dense, seconds={**cost.seconds, **spent}, drift=drift)
    return replace(result, cost=replace(result.cost, tasks=costs))


def row_numbers(decision: Decision, grid: TokenGrid) -> NDArray[np.int32]:
    """Tokens that were computed, all of them when dense."""
    if decision.rows is None:
        return np.arange(grid.tokens, dtype=np.int32)
    return decision.rows.to(torch.int32).numpy()
