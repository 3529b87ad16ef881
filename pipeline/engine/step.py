"""One frame through all stages; frames of several streams run together.

The pixels decide which rows are computed (decide.py). The base runs those rows and makes a record; every task computes
its outputs from that record (task_step.py), in this process or in another.
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
from deltascene.pipeline.config import Config, in_full
from deltascene.pipeline.engine.audit import AuditState, charged, draw, measure
from deltascene.pipeline.engine.codec import encode_rows
from deltascene.pipeline.engine.cost import frame_costs, skipped_costs
from deltascene.pipeline.engine.decide import Decision, TemporalState, decide, follow
from deltascene.pipeline.engine.results import FrameCost, FrameResult, Prediction
from deltascene.pipeline.engine.stopwatch import Stopwatch, lap_together
from deltascene.pipeline.engine.task_step import (
    COMPUTED,
    BaseOutput,
    TaskInput,
    TaskState,
    make_base_output,
    predict,
    run_task_blocks,
)
from deltascene.pipeline.numerics.settle import split_dtype
from deltascene.stages.age import PatchAges
from deltascene.stages.backbone import Positions, cut_patches
from deltascene.stages.change import patches_of
from deltascene.stages.input_plan import InputPlan
from deltascene.stages.motion import Flow
from deltascene.stages.preprocess import normalise_patches, resize_frame
from deltascene.stages.rows import StreamRows, key_shapes, run_streams
from deltascene.stages.scene_cache import SceneCache, allocate_cache
from deltascene.stages.types import Frame, TokenGrid
from deltascene.stages.zones import ignored_patches


@dataclass(frozen=True, slots=True)
class InputGeometry:
    """What depends on a stream's name and the size of its frames alone, computed once for each size.

    Attributes:
        plan: how the frames become model input.
        grid: token grid.
        positions: positions of its tokens.
        ignored: patches [h*w] whose changes don't count; None is none.
    """

    plan: InputPlan
    grid: TokenGrid
    positions: Positions
    ignored: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class StreamState:
    """State of a stream from frame to frame inside a segment, empty at its start.

    Attributes:
        geometry: input plan, grid and positions of its frame size.
        begun: height and width that the input was chosen for; frames that come in another size later have the same
            input. None is those of the first frame.
        temporal: what the decisions about its pixels depend on.
        cache: scene cache of the base's blocks; overwritten in place.
        ages: ages of the patches.
        tasks: state of each task.
        audits: of the audits, which no prediction depends on.
    """

    geometry: InputGeometry | None = None
    begun: tuple[int, int] | None = None
    temporal: TemporalState = field(default_factory=TemporalState)
    cache: SceneCache | None = None
    ages: PatchAges | None = None
    tasks: Mapping[str, TaskState] = field(default_factory=dict)
    audits: AuditState = field(default_factory=AuditState)


@dataclass(slots=True)
class _Walk:
    """One stream's frame while it runs through the stages.

    Attributes:
        state: the stream's state.
        frame: the frame.
        clock: seconds spent on the frame.
        pixels: the frame at the model's size, uint8 [3, H, W].
        decision: what is computed of the frame.
        flow: of a frame that is to be warped, from it back to the last computed one.
        tapped: the base's tokens of the computed rows [R, D], by tap.
    """

    state: StreamState
    frame: Frame
    clock: Stopwatch
    pixels: Tensor
    decision: Decision
    flow: Flow | None = None
    tapped: Mapping[int, Tensor] = field(default_factory=dict)

    @property
    def grid(self) -> TokenGrid:
        assert self.state.geometry is not None
        return self.state.geometry.grid


def step(model: SceneModel, config: Config, state: StreamState, frame: Frame) -> tuple[StreamState, FrameResult]:
    """Runs one frame of one stream; arguments and result as of `step_streams`."""
    (done,) = step_streams(model, config, [(state, frame)])
    return done


@torch.inference_mode()
def step_streams(
    model: SceneModel, config: Config, streams: Sequence[tuple[StreamState, Frame]]
) -> list[tuple[StreamState, FrameResult]]:
    """Runs one frame of each of several streams: preprocess, decide, compute. The rows of all streams run packed.

    Args:
        model: backbone, heads, and blocks of tasks with a delta.
        config: resolved config.
        streams: state and frame of each stream. An empty state starts a segment with a dense frame; an invalid frame is
            passed through without a prediction.

    Returns:
        Next state and result of each stream; the result holds the base's record.
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
        done[place] = _audited(model, config, state, result, walks[place])
    return [done[place] for place in range(len(streams))]


def _begin(model: SceneModel, config: Config, state: StreamState, frame: Frame, clock: Stopwatch) -> _Walk:
    """Resizes a frame to the model's size and decides what is computed of it."""
    image = frame.image
    assert image is not None
    size = (image.shape[0], image.shape[1])
    if state.geometry is None or state.geometry.plan.frame_size != size:
        frame = frame if state.geometry is None else replace(frame, cause=frame.cause or "resized")
        begun = state.begun or size
        geometry = plan_geometry(model, config, size, begun)
        ignored = ignored_patches(config.change.ignored_in(frame.source), geometry.plan, geometry.grid)
        state = StreamState(replace(geometry, ignored=ignored), begun)
    assert state.geometry is not None
    grid = state.geometry.grid
    pixels = resize_frame(image, state.geometry.plan)
    clock.lap("preprocess")
    temporal, decision = decide(config, grid, state.temporal, frame, pixels, state.geometry.ignored)
    clock.lap("mask")
    flow = None
    if decision.policy == "warped":
        temporal, flow = follow(config, grid, temporal, decision)
        clock.lap("flow")
    if config.policy.reuse and state.cache is None:
        shapes = key_shapes(model.backbone.blocks[: model.base_depth])
        state = replace(state, cache=allocate_cache(shapes, grid.tokens, model.backbone.width, ()))
    return _Walk(replace(state, temporal=temporal), frame, clock, pixels, decision, flow)


def _run_tasks(model: SceneModel, config: Config, walks: Sequence[_Walk]) -> list[tuple[StreamState, FrameResult]]:
    """Runs every task on the base's outputs; results are in the order of the walks."""
    base_outputs: list[BaseOutput] = []
    for walk in walks:
        walk.clock.start()
        record = _record(model, config, walk)
        base_outputs.append(make_base_output(record, walk.decision.rows, walk.grid, walk.state.ages))
        walk.clock.lap("mask" if base_outputs[-1].where is None else "warp")
    tasks: list[dict[str, TaskState]] = [{} for _ in walks]
    predictions: list[dict[str, Prediction]] = [{} for _ in walks]
    ready = {}
    for task in model.tasks:
        task_inputs = [
            TaskInput(walk.state.tasks.get(task, TaskState()), base_output, walk.tapped, walk.clock)
            for walk, base_output in zip(walks, base_outputs, strict=True)
        ]
        ready[task] = run_task_blocks(model, task, task_inputs, keep=config.policy.reuse)
    for task, task_inputs in ready.items():  # all heads after all blocks, so that their code stays in the cache
        for place, (state, prediction) in enumerate(predict(model, task, task_inputs)):
            tasks[place][task], predictions[place][task] = state, prediction
    done = []
    for walk, base_output, states, made in zip(walks, base_outputs, tasks, predictions, strict=True):
        costs = frame_costs(model, base_output.rows, walk.grid, walk.clock)
        cost = FrameCost(costs, base_output.ages.oldest_s(walk.frame.pts_s))
        after = replace(walk.state, ages=base_output.ages, tasks={**walk.state.tasks, **states})
        done.append((after, FrameResult(walk.frame, base_output.record, made, cost, base_output.age)))
    return done


def plan_geometry(
    model: SceneModel, config: Config, frame_size: tuple[int, int], begun: tuple[int, int] | None = None
) -> InputGeometry:
    """Input size, token grid and positions for frames of one size; arguments as of `grid_of`.

    Raises:
        StageError: the frames are smaller than one patch.
    """
    plan, grid = grid_of(model, config, frame_size, begun)
    return InputGeometry(plan, grid, model.backbone.positions(grid))


def grid_of(
    model: SceneModel, config: Config, frame_size: tuple[int, int], begun: tuple[int, int] | None = None
) -> tuple[InputPlan, TokenGrid]:
    """Input size and token grid for frames of one size; the model may be without weights.

    Args:
        model: the model.
        config: resolved config.
        frame_size: height and width.
        begun: frame size with which their stream began, which keeps its input size; None is `frame_size`.

    Raises:
        StageError: the frames are smaller than one patch.
    """
    asked, patch = config.input.size, model.backbone.patch
    if begun not in (None, frame_size):
        asked = model.bundle.input_plan(begun, patch, asked, config.input.resize).model_size
    plan = model.bundle.input_plan(frame_size, patch, asked, config.input.resize)
    return plan, model.backbone.grid(plan.model_size)


def _run_rows(model: SceneModel, walks: Sequence[_Walk]) -> None:
    """Runs the base on the rows to compute, of all streams together."""
    walks = [walk for walk in walks if walk.decision.policy in COMPUTED]
    if not walks:
        return
    entry, streams = model.bundle.entry.input, []
    for walk in walks:
        assert walk.state.geometry is not None
        walk.clock.start()
        rows = walk.decision.rows
        patches = patches_of(rows, walk.grid)
        normalised = normalise_patches(cut_patches(walk.pixels, walk.grid.patch, patches), entry.mean, entry.std)
        x_RD = model.backbone.embed_patches(normalised, walk.state.geometry.positions, patches)
        streams.append((x_RD, StreamRows(len(x_RD), rows, walk.state.cache)))
        walk.clock.lap("embed")
    clocks = [walk.clock for walk in walks]
    clocks[0].start()
    tapped = run_streams(model.backbone.blocks, streams, model.base_taps)
    lap_together(clocks, [rows.count for _, rows in streams], "blocks")
    for walk, own in zip(walks, tapped, strict=True):
        walk.tapped = own


def _record(model: SceneModel, config: Config, walk: _Walk) -> FrameRecord:
    """The base's record: the rows' tokens at the splits, or a warped frame's flow since the last computed frame."""
    frame, decision = walk.frame, walk.decision
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
        flow=walk.flow,
    )


def _encoded(model: SceneModel, config: Config, tapped: Mapping[int, Tensor]) -> dict[int, NDArray[Any]]:
    """Tokens of the computed rows in their stored form, by point where they are handed on; no rows if nothing ran."""
    dtype = split_dtype(config)
    none = encode_rows(torch.empty(0, model.backbone.width), dtype)
    return {point: encode_rows(tapped[point], dtype) if point in tapped else none for point in model.handed_on}


def _skipped(model: SceneModel, config: Config, state: StreamState, frame: Frame, clock: Stopwatch) -> FrameResult:
    """Result of an invalid frame: nothing runs, nothing is predicted, nothing counts as saved."""
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
    return FrameResult(frame, record, {}, FrameCost(skipped_costs(model, clock)))


def _audited(
    model: SceneModel, config: Config, state: StreamState, result: FrameResult, walk: _Walk
) -> tuple[StreamState, FrameResult]:
    """Draws whether a frame is audited: computed a second time, dense, to measure the drift of every prediction.

    An audit's MACs and time are added to the frame's cost. It starts from an empty state and drops its own, so that
    predictions are the same with audits and without.
    """
    before, grid = state.audits.pixels, walk.grid
    audits, drawn = draw(config, grid, state.audits, result, walk.pixels)
    count = None if drawn.moved is None else int(drawn.moved.sum())
    result = replace(result, cost=replace(result.cost, audit_p=drawn.probability, patches_moved=count))
    if drawn.due:
        clock = Stopwatch()
        pictures = [walk.pixels] if not drawn.floor or before is None else [walk.pixels, before]
        dense = _dense_passes(model, config, walk, pictures)
        drifts = measure(result, dense[0], dense[1] if len(dense) > 1 else None, drawn.moved, grid)
        clock.lap("audit")
        result = charged(result, drifts, len(dense), clock.of("", shared=True))
    return replace(state, audits=audits), result


def _dense_passes(model: SceneModel, config: Config, walk: _Walk, pictures: Sequence[Tensor]) -> list[FrameResult]:
    """Dense predictions of pictures at the model's size, of the same geometry as a frame's."""
    every_row = in_full(config)
    walks = []
    for pixels in pictures:
        _, decision = decide(every_row, walk.grid, TemporalState(), walk.frame, pixels)
        walks.append(_Walk(StreamState(walk.state.geometry), walk.frame, Stopwatch(), pixels, decision))
    _run_rows(model, walks)
    return [result for _, result in _run_tasks(model, every_row, walks)]


def recorded_rows(rows: Tensor | None, grid: TokenGrid) -> NDArray[np.int32]:
    """Computed tokens as a record holds them, int32 [R]; None is all of the grid's tokens."""
    return np.arange(grid.tokens, dtype=np.int32) if rows is None else rows.to(torch.int32).numpy()
