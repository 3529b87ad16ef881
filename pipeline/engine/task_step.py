"""One task on one frame: from the base's output to the task's prediction.

A task that shares the base's blocks reads the base's tokens. A task with a delta runs its own blocks from its split on,
for the rows that the record names; it needs no pixels and nothing below the split. So the same code runs it beside the
base, in an actor of its own, and from the archive.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deltascene.cache.segment import FrameRecord
from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.engine.codec import decode_rows
from deltascene.pipeline.engine.results import Prediction
from deltascene.pipeline.engine.stopwatch import Stopwatch, lap_together
from deltascene.stages.age import PatchAges, age_map, aged
from deltascene.stages.change import patches_of
from deltascene.stages.heads import assemble, lay_out, natural_values, run_head, stack_taps, touched_patches
from deltascene.stages.kinds import Array
from deltascene.stages.motion import Lookup, plan_lookup, warp, warp_age
from deltascene.stages.rows import StreamRows, key_shapes, run_streams, write_rows
from deltascene.stages.scene_cache import SceneCache, allocate_cache
from deltascene.stages.types import TokenGrid

COMPUTED = ("dense", "rows")


@dataclass(frozen=True, slots=True)
class BaseOutput:
    """What the base computed for a frame, the input of every task.

    Attributes:
        record: the base's record of the frame.
        rows: tokens that the base computed, increasing int64 [R]; None is all of them.
        patches: the patches among them; None is all.
        drawn: these and their neighbours, whose pixels interpolate between cells of both; None is all.
        grid: token grid.
        ages: ages of the patches after this frame.
        age: frames since each pixel was computed [H, W].
        where: positions at which a warped frame's outputs are looked up; None for all other frames.
    """

    record: FrameRecord
    rows: Tensor | None
    patches: Tensor | None
    drawn: Tensor | None
    grid: TokenGrid
    ages: PatchAges
    age: NDArray[np.uint8]
    where: Lookup | None


@dataclass(frozen=True, slots=True)
class TaskState:
    """State of a task from frame to frame inside a segment, empty at its start. Its tensors are overwritten in place.

    Attributes:
        cache: scene cache of the task's own blocks, with the tokens that a head with a receptive field reads again.
        cells_PX: output cells of every patch.
        value: outputs as last computed, in natural values.
    """

    cache: SceneCache | None = None
    cells_PX: Tensor | None = None
    value: Array | None = None


def receive(record: FrameRecord, grid: TokenGrid, ages: PatchAges | None) -> BaseOutput:
    """The base's output, rebuilt from a record that was sent or stored; arguments as of `make_base_output`."""
    rows = None if record.policy == "dense" else torch.from_numpy(record.rows.astype(np.int64))
    return make_base_output(record, rows, grid, ages)


def make_base_output(record: FrameRecord, rows: Tensor | None, grid: TokenGrid, ages: PatchAges | None) -> BaseOutput:
    """The base's output for a valid frame.

    Args:
        record: the base's record of the frame.
        rows: the record's rows as int64 [R]; None is all of them.
        grid: token grid.
        ages: ages of the patches after the previous frame; None at the start of a segment.
    """
    patches = patches_of(rows, grid)
    ages = aged(ages, None if patches is None else patches.numpy(), grid, record.pts_s)
    age, where = age_map(ages, grid), None
    if record.flow is not None:
        where = plan_lookup(record.flow, grid.image_size)
        age = warp_age(age, where)
    drawn = touched_patches(patches, grid, 1) if patches is not None and len(patches) else patches
    return BaseOutput(record, rows, patches, drawn, grid, ages, age, where)


@dataclass(frozen=True, slots=True)
class TaskInput:
    """One stream's frame, as the input of a task.

    Attributes:
        state: the task's state for the stream; overwritten in place.
        base_output: the base's output for the frame.
        shared: the base's tokens of the computed rows [R, D] by tap, for tasks without a delta.
        clock: the task's time is booked here.
    """

    state: TaskState
    base_output: BaseOutput
    shared: Mapping[int, Tensor]
    clock: Stopwatch


def step_task(
    model: SceneModel, task: str, task_inputs: Sequence[TaskInput], *, keep: bool
) -> list[tuple[TaskState, Prediction]]:
    """Runs one task on one frame of each of several streams.

    Args:
        model: holds the task's head, and its blocks where it has a delta.
        task: its name.
        task_inputs: one for each stream.
        keep: whether later frames may be computed by rows; without it, only the outputs are kept.

    Returns:
        The task's next state and its prediction, for each stream.
    """
    return predict(model, task, run_task_blocks(model, task, task_inputs, keep=keep))


def predict(model: SceneModel, task: str, task_inputs: Sequence[TaskInput]) -> list[tuple[TaskState, Prediction]]:
    """The second half of `step_task`: a task's outputs, from inputs that `run_task_blocks` returned."""
    kind, done = model.bundle.kinds[task], []
    for task_input in task_inputs:
        task_input.clock.start()
        state, where = task_input.state, task_input.base_output.where
        if task_input.base_output.record.policy in COMPUTED:
            state = _through_head(model, task, task_input)
            task_input.clock.lap("head", task)
        assert state.value is not None, "a segment starts with a dense frame"
        if where is None:
            value = state.value.copy()  # the caller may write into the prediction
        else:
            value = warp(state.value, kind, where)
            task_input.clock.lap("warp", task)
        done.append((state, Prediction(kind, value, task_input.base_output.age)))
    return done


def run_task_blocks(model: SceneModel, task: str, task_inputs: Sequence[TaskInput], *, keep: bool) -> list[TaskInput]:
    """The first half of `step_task`: runs the rows of all streams through the task's own blocks, if it has any.

    Their tokens go into `shared` of the inputs that are returned.
    """
    taps, sub, ready = model.bundle.entry.tasks[task].taps, model.sub_tasks.get(task), list(task_inputs)
    blocks = () if sub is None else sub.blocks[: max(taps) - sub.split]
    looks_back = taps if model.heads[task].receptive_field else ()
    computing = [place for place, each in enumerate(task_inputs) if each.base_output.record.policy in COMPUTED]
    for place in computing:
        state, tokens = ready[place].state, ready[place].base_output.grid.tokens
        if keep and state.cache is None:
            cache = allocate_cache(key_shapes(blocks), tokens, model.backbone.width, looks_back)
            ready[place] = replace(ready[place], state=replace(state, cache=cache))
    if sub is None or not computing:
        return ready
    clocks = [ready[place].clock for place in computing]
    clocks[0].start()
    streams = []
    for place in computing:
        base_output = ready[place].base_output
        x_RD = decode_rows(base_output.record.activations[sub.split])
        streams.append((x_RD, StreamRows(len(x_RD), base_output.rows, ready[place].state.cache)))
    tapped = run_streams(blocks, streams, set(taps), first=sub.split)
    lap_together(clocks, [rows.count for _, rows in streams], "blocks", task)
    for place, own in zip(computing, tapped, strict=True):
        ready[place] = replace(ready[place], shared=own)
    return ready


def _through_head(model: SceneModel, task: str, task_input: TaskInput) -> TaskState:
    """Runs the head on the computed rows' tokens and writes its outputs into the task's picture."""
    head, base_output, kind = model.heads[task], task_input.base_output, model.bundle.kinds[task]
    state = _run_cells(model, task, task_input.state, task_input.shared, base_output)
    assert state.cells_PX is not None
    grid, drawn = base_output.grid, base_output.drawn
    if drawn is not None:
        drawn = touched_patches(drawn, grid, head.receptive_field)
    pixels = natural_values(assemble(state.cells_PX, grid, kind.channels, head.side, drawn), kind.activation)
    if kind.activation == "argmax":
        pixels = pixels.astype(kind.stored.dtype, copy=False)
    onto, places = (None, None) if drawn is None else (state.value, drawn.numpy())
    return replace(state, value=lay_out(pixels, grid, onto, places))


def _run_cells(
    model: SceneModel, task: str, state: TaskState, tapped: Mapping[int, Tensor], base_output: BaseOutput
) -> TaskState:
    """Runs the head where its input changed; returns the next state."""
    head, taps, grid = model.heads[task], model.bundle.entry.tasks[task].taps, base_output.grid
    touched = base_output.patches
    if head.receptive_field == 0 or state.cache is None:
        cells = run_head(head, stack_taps(tapped, taps, grid.prefix), grid, None)
    else:
        for tap in taps:
            write_rows(state.cache.taps[tap], base_output.rows, tapped[tap])
        touched = None if touched is None else touched_patches(touched, grid, head.receptive_field)
        cells = run_head(head, stack_taps(state.cache.taps, taps, grid.prefix), grid, touched)
    if touched is None:
        return replace(state, cells_PX=cells)
    assert state.cells_PX is not None
    write_rows(state.cells_PX, touched, cells)
    return state
