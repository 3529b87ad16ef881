"""The walk of a frame through the stages, on one screen; frames of several streams go together.

Pixels decide what is computed (decide.py). The base runs those rows and hands a record on; every task makes its
outputs of that record (task_step.py), here or wherever else it arrives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deltascene.cache.segment import FrameRecord
from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.engine.codec import encode_rows
from deltascene.pipeline.engine.decide import Decision, TemporalState, decide
from deltascene.pipeline.engine.results import FrameCost, FrameResult, Prediction, TaskCost
from deltascene.pipeline.engine.stopwatch import Stopwatch, lap_together
from deltascene.pipeline.engine.task_step import (
    COMPUTED,
    BaseOutput,
    TaskInput,
    TaskState,
    moment_of,
    step_task,
    task_cost,
)
from deltascene.pipeline.numerics.settle import split_dtype
from deltascene.stages.age import PatchAges
from deltascene.stages.backbone import Positions, cut_patches
from deltascene.stages.change import count_rows, patches_of
from deltascene.stages.cost import Macs, blocks_macs, embed_macs
from deltascene.stages.input_plan import InputPlan
from deltascene.stages.motion import estimate_flow, to_grey
from deltascene.stages.preprocess import normalise_patches, resize_frame
from deltascene.stages.rows import StreamRows, key_shapes, run_streams
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


@dataclass(slots=True)
class _Walk:
    """One stream's frame on its way through the stages.

    Attributes:
        state: what the stream carries.
        frame: the frame.
        clock: its seconds.
        pixels: it at the model's size, uint8 [3, H, W].
        decision: what will be done with it.
        tapped: the base's tokens of the computed rows [R, D], wherever somebody reads them.
    """

    state: StreamState
    frame: Frame
    clock: Stopwatch
    pixels: Tensor
    decision: Decision
    tapped: Mapping[int, Tensor] = field(default_factory=dict)

    @property
    def grid(self) -> TokenGrid:
        assert self.state.geometry is not None
        return self.state.geometry.grid


def step(model: SceneModel, config: Config, state: StreamState, frame: Frame) -> tuple[StreamState, FrameResult]:
    """One frame of one stream; see `step_streams`."""
    (done,) = step_streams(model, config, [(state, frame)])
    return done


@torch.inference_mode()
def step_streams(
    model: SceneModel, config: Config, streams: Sequence[tuple[StreamState, Frame]]
) -> list[tuple[StreamState, FrameResult]]:
    """One frame each of some streams: preprocess, decide, run what is needed. Their rows run packed.

    Args:
        model: backbone, heads, and blocks of tasks with a delta.
        config: resolved config.
        streams: what each stream carries, an empty state starts a segment with a dense frame; and its frame, an
            invalid one is passed through without a prediction.

    Returns:
        The streams' next states, and the frames' results with the base's records.
    """
    done: dict[int, tuple[StreamState, FrameResult]] = {}
    walks: dict[int, _Walk] = {}
    for place, (state, frame) in enumerate(streams):
        clock = Stopwatch()
        if frame.valid and frame.image is not None:
            walks[place] = _begin(model, config, state, frame, clock)
        else:
            done[place] = state, _skipped(model, config, state, replace(frame, valid=False), clock)
    _run_rows(model, list(walks.values()))
    for place, (state, result) in zip(walks, _run_tasks(model, config, list(walks.values())), strict=True):
        if config.policy.reuse and result.policy != "dense" and _audit_due(config, result.frame):
            result = _audit(model, config, state, result)
        done[place] = state, result
    return [done[place] for place in range(len(streams))]


def _begin(model: SceneModel, config: Config, state: StreamState, frame: Frame, clock: Stopwatch) -> _Walk:
    """Pixels at the model's size, and what will be done with them."""
    image = frame.image
    assert image is not None
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
        shapes = key_shapes(model.backbone.blocks[: base_depth(model)])
        state = replace(state, cache=allocate_cache(shapes, grid.tokens, model.backbone.width, ()))
    return _Walk(replace(state, temporal=temporal), frame, clock, pixels, decision)


def _run_tasks(model: SceneModel, config: Config, walks: Sequence[_Walk]) -> list[tuple[StreamState, FrameResult]]:
    """What the base hands on, through every task; walks are in the order of the results."""
    moments: list[BaseOutput] = []
    for walk in walks:
        walk.clock.start()
        record = _record(model, config, walk)
        moments.append(moment_of(record, walk.decision.rows, walk.grid, walk.state.ages))
        walk.clock.lap("mask" if moments[-1].where is None else "warp")
    tasks: list[dict[str, TaskState]] = [{} for _ in walks]
    predictions: list[dict[str, Prediction]] = [{} for _ in walks]
    for task in model.tasks:
        turns = [
            TaskInput(walk.state.tasks.get(task, TaskState()), moment, walk.tapped, walk.clock)
            for walk, moment in zip(walks, moments, strict=True)
        ]
        for place, (state, prediction) in enumerate(step_task(model, task, turns, keep=config.policy.reuse)):
            tasks[place][task], predictions[place][task] = state, prediction
    done = []
    for walk, moment, states, made in zip(walks, moments, tasks, predictions, strict=True):
        costs = frame_costs(model, moment.rows, walk.grid, walk.clock)
        cost = FrameCost(costs, moment.ages.oldest_s(walk.frame.pts_s))
        after = replace(walk.state, ages=moment.ages, tasks={**walk.state.tasks, **states})
        done.append((after, FrameResult(walk.frame, moment.record, made, cost, moment.age)))
    return done


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


def base_depth(model: SceneModel) -> int:
    """How many blocks of the base run: to the last token that anybody reads."""
    return max(_base_taps(model), default=0)


def _base_taps(model: SceneModel) -> set[int]:
    """Where the base's tokens are read: by heads without blocks of their own, and by what is handed on."""
    own = [task for task in model.tasks if task not in model.sub_tasks]
    return {*model.bundle.taps(own), *_handed_on(model)}


def _handed_on(model: SceneModel) -> list[int]:
    """Where the base's tokens are handed on, increasing."""
    return sorted({*model.hand_over, *(sub.split for sub in model.sub_tasks.values())})


def _run_rows(model: SceneModel, walks: Sequence[_Walk]) -> None:
    """The base on the rows to compute, of all streams together."""
    walks = [walk for walk in walks if walk.decision.policy in COMPUTED]
    if not walks:
        return
    entry, streams = model.bundle.entry.input, []
    for walk in walks:
        assert walk.state.geometry is not None
        walk.clock.start()
        rows = walk.decision.rows
        patches = patches_of(rows, walk.grid)
        cut = cut_patches(walk.pixels, walk.grid.patch)
        normalised = normalise_patches(cut if patches is None else cut[patches], entry.mean, entry.std)
        x_RD = model.backbone.embed_patches(normalised, walk.state.geometry.positions, patches)
        streams.append((x_RD, StreamRows(len(x_RD), rows, walk.state.cache)))
        walk.clock.lap("embed")
    clocks = [walk.clock for walk in walks]
    clocks[0].start()
    tapped = run_streams(model.backbone.blocks, streams, _base_taps(model))
    lap_together(clocks, [part.count for _, part in streams], "blocks")
    for walk, own in zip(walks, tapped, strict=True):
        walk.tapped = own


def _record(model: SceneModel, config: Config, walk: _Walk) -> FrameRecord:
    """What is handed on: the rows' tokens where tasks split off, or the flow since they were last computed."""
    frame, decision, flow = walk.frame, walk.decision, None
    if decision.policy == "warped":
        assert decision.computed is not None
        now, computed = to_grey(walk.pixels.numpy()), to_grey(decision.computed.numpy())
        flow = estimate_flow(now, computed, decision.moved, walk.grid)
        walk.clock.lap("flow")
    handed = _encoded(model, config, walk.tapped)
    if walk.tapped:
        walk.clock.lap("blocks")
    return FrameRecord(
        index=frame.index,
        pts_s=frame.pts_s,
        valid=True,
        cause=frame.cause,
        policy=decision.policy,
        reason=decision.reason,
        rows=recorded_rows(decision.rows, walk.grid),
        activations=handed,
        change=decision.strength,
        flow=flow,
    )


def _encoded(model: SceneModel, config: Config, tapped: Mapping[int, Tensor]) -> dict[int, NDArray[Any]]:
    """The computed rows' tokens wherever they are handed on, as they are stored; no rows where nothing ran."""
    dtype, none_RD = split_dtype(config), torch.empty(0, model.backbone.width)
    return {point: encode_rows(tapped.get(point, none_RD), dtype) for point in _handed_on(model)}


def _skipped(model: SceneModel, config: Config, state: StreamState, frame: Frame, clock: Stopwatch) -> FrameResult:
    """An invalid frame: nothing runs, nothing is predicted, nothing counts as saved."""
    patches = 0 if state.geometry is None else state.geometry.grid.patches
    record = FrameRecord(
        index=frame.index,
        pts_s=frame.pts_s,
        valid=False,
        cause=frame.cause,
        policy="skipped",
        reason="invalid",
        rows=np.empty(0, np.int32),
        activations=_encoded(model, config, {}),
        change=np.zeros(patches, np.uint8),
    )
    base = model.bundle.entry.base
    tasks = {
        task: TaskCost(0, 0, Macs(), Macs(), clock.of(task, shared=task == base))
        for task in dict.fromkeys((base, *model.tasks))
    }
    return FrameResult(frame, record, {}, FrameCost(tasks, None))


def frame_costs(model: SceneModel, rows: Tensor | None, grid: TokenGrid, clock: Stopwatch) -> dict[str, TaskCost]:
    """Every task's cost: a function of the computed rows (None is all) and of shapes, and the clock's seconds.

    The base's row carries what all share, and is there even if nobody asked for its outputs.
    """
    base = model.bundle.entry.base
    costs = {task: task_cost(model, task, rows, grid, clock.of(task)) for task in model.tasks}
    shapes = model.backbone.block_shapes()[: base_depth(model)]
    head = costs.get(base)

    def shared(count: int, head_macs: int) -> Macs:
        if not count:
            return Macs()
        embedded = embed_macs(count - grid.prefix, model.backbone.patch_macs())
        return Macs(embed=embedded, blocks=blocks_macs(shapes, count, grid.tokens), head=head_macs)

    computed = count_rows(rows, grid)
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


def _audit(model: SceneModel, config: Config, state: StreamState, result: FrameResult) -> FrameResult:
    """The same frame computed in full besides: drift of every prediction, its MACs and time charged to the frame.

    It starts from nothing and leaves nothing behind, so that results are the same with audits and without.
    """
    clock = Stopwatch()
    every_row = config.model_copy(update={"policy": config.policy.model_copy(update={"reuse": False})})
    _, dense = step(model, every_row, StreamState(state.geometry), result.frame)
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


def recorded_rows(rows: Tensor | None, grid: TokenGrid) -> NDArray[np.int32]:
    """Tokens that were computed as a record has them, all of them where None stands for all."""
    return np.arange(grid.tokens, dtype=np.int32) if rows is None else rows.to(torch.int32).numpy()
