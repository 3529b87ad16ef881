"""One task's part of a frame: from what the base hands on to the task's outputs.

A task that shares the base's blocks reads the base's tokens. A task with a delta runs its own blocks from its split on,
on the rows that the record names; it needs no pixels and nothing below the split. So the same code runs it beside the
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
from deltascene.pipeline.engine.results import Prediction, TaskCost
from deltascene.pipeline.engine.stopwatch import Stopwatch, lap_together
from deltascene.stages.age import PatchAges, age_map, aged
from deltascene.stages.change import count_rows, patches_of
from deltascene.stages.cost import Macs, blocks_macs, embed_macs
from deltascene.stages.heads import activate, assemble, lay_out, run_head, stack_taps, touched_patches
from deltascene.stages.kinds import Array
from deltascene.stages.motion import Lookup, plan_lookup, warp, warp_age
from deltascene.stages.rows import StreamRows, key_shapes, run_streams, write_rows
from deltascene.stages.scene_cache import SceneCache, allocate_cache
from deltascene.stages.types import TokenGrid

COMPUTED = ("dense", "rows")


@dataclass(frozen=True, slots=True)
class BaseOutput:
    """What every task gets of a frame.

    Attributes:
        record: the base's.
        rows: tokens that it computed, increasing int64 [R]; None is all of them.
        grid: token grid.
        ages: of the patches after the frame.
        age: of the pixels [H, W].
        where: a warped frame's outputs are looked up there.
    """

    record: FrameRecord
    rows: Tensor | None
    grid: TokenGrid
    ages: PatchAges
    age: NDArray[np.uint8]
    where: Lookup | None


@dataclass(frozen=True, slots=True)
class TaskState:
    """What a task carries from frame to frame inside a segment; it starts empty. Its tensors are overwritten in place.

    Attributes:
        cache: keys and values of its own blocks, and the tokens that its head looks back at.
        cells_PX: output cells of every patch.
        value: outputs as last computed, natural values.
    """

    cache: SceneCache | None = None
    cells_PX: Tensor | None = None
    value: Array | None = None


def receive(record: FrameRecord, grid: TokenGrid, ages: PatchAges | None) -> BaseOutput:
    """As `moment_of`, of a record that was sent or stored."""
    rows = None if record.policy == "dense" else torch.from_numpy(record.rows.astype(np.int64))
    return moment_of(record, rows, grid, ages)


def moment_of(record: FrameRecord, rows: Tensor | None, grid: TokenGrid, ages: PatchAges | None) -> BaseOutput:
    """What the tasks get of a frame that was predicted.

    Args:
        record: the base's.
        rows: the same rows as it has, int64 [R]; None is all.
        grid: token grid.
        ages: after the frame before.
    """
    patches = patches_of(rows, grid)
    ages = aged(ages, None if patches is None else patches.numpy(), grid, record.pts_s)
    age, where = age_map(ages, grid), None
    if record.flow is not None:
        where = plan_lookup(record.flow, grid.image_size)
        age = warp_age(age, where)
    return BaseOutput(record, rows, grid, ages, age, where)


@dataclass(frozen=True, slots=True)
class TaskInput:
    """One stream's frame, as a task gets it.

    Attributes:
        state: what the task carries for the stream; overwritten in place.
        moment: what the base hands on.
        shared: the base's tokens of the computed rows [R, D] by tap, for tasks without a delta.
        clock: books the time on the task.
    """

    state: TaskState
    moment: BaseOutput
    shared: Mapping[int, Tensor]
    clock: Stopwatch


def step_task(
    model: SceneModel, task: str, turns: Sequence[TaskInput], *, keep: bool
) -> list[tuple[TaskState, Prediction]]:
    """One task on one frame each of some streams.

    Args:
        model: holds its head, and its blocks where it has a delta.
        task: its name.
        turns: of the streams.
        keep: whether rows may run later; without it nothing is kept but the outputs.

    Returns:
        Its next state and its prediction for each stream.
    """
    kind, done = model.bundle.kinds[task], []
    for turn in _through_blocks(model, task, turns, keep):
        turn.clock.start()
        state, where = turn.state, turn.moment.where
        if turn.moment.record.policy in COMPUTED:
            state = _through_head(model, task, turn)
            turn.clock.lap("head", task)
        assert state.value is not None, "a segment starts with a dense frame"
        if where is None:
            value = state.value.copy()  # whoever gets it may write into it
        else:
            value = warp(state.value, kind, where)
            turn.clock.lap("warp", task)
        done.append((state, Prediction(kind, value, turn.moment.age)))
    return done


def task_cost(
    model: SceneModel, task: str, rows: Tensor | None, grid: TokenGrid, seconds: Mapping[str, float]
) -> TaskCost:
    """What a task cost on a frame, without the base's own work: a function of the computed rows and of shapes alone.

    Args:
        model: holds its head, and its blocks where it has a delta; shapes are enough.
        task: its name.
        rows: tokens computed, int64 [R]; None is all.
        grid: token grid.
        seconds: that it took, by stage.
    """
    sub, head, tokens = model.sub_tasks.get(task), model.heads[task], grid.tokens

    def macs(rows: Tensor | None) -> Macs:
        shapes = () if sub is None else sub.shapes[: max(model.bundle.entry.tasks[task].taps) - sub.split]
        patches = _head_patches(rows, grid, head.receptive_field)
        return Macs(blocks=blocks_macs(shapes, count_rows(rows, grid), tokens), head=patches * head.macs_per_token())

    computed = count_rows(rows, grid)
    executed = macs(rows) if computed else Macs()
    alone = single_task_macs(model, task, grid)
    return TaskCost(tokens, computed if sub is not None else 0, executed, macs(None), seconds, alone)


def single_task_macs(model: SceneModel, task: str, grid: TokenGrid) -> int | None:
    """MACs of a frame in a network of this task alone, with the same head.

    None where the bundle's evidence doesn't list that network among its `single_task`.
    """
    told, backbone = model.bundle.entry.evidence.get("single_task"), model.backbone
    if not isinstance(told, dict) or task not in told:
        return None
    shapes = backbone.block_shapes()[: max(model.bundle.entry.tasks[task].taps)]
    embedded = embed_macs(grid.patches, backbone.patch_macs())
    return embedded + blocks_macs(shapes, grid.tokens, grid.tokens) + grid.patches * model.heads[task].macs_per_token()


def _head_patches(rows: Tensor | None, grid: TokenGrid, reach: int) -> int:
    """How many patches a head runs on."""
    patches = patches_of(rows, grid)
    if patches is None:
        return grid.patches
    return len(touched_patches(patches, grid, reach) if reach else patches)


def _through_blocks(model: SceneModel, task: str, turns: Sequence[TaskInput], keep: bool) -> list[TaskInput]:
    """The rows of all streams through the task's own blocks, if it has any; their tokens then are what it reads."""
    taps, sub, ready = model.bundle.entry.tasks[task].taps, model.sub_tasks.get(task), list(turns)
    blocks = () if sub is None else sub.blocks[: max(taps) - sub.split]
    looks_back = taps if model.heads[task].receptive_field else ()
    computing = [place for place, turn in enumerate(turns) if turn.moment.record.policy in COMPUTED]
    for place in computing:
        state, tokens = ready[place].state, ready[place].moment.grid.tokens
        if keep and state.cache is None:
            cache = allocate_cache(key_shapes(blocks), tokens, model.backbone.width, looks_back)
            ready[place] = replace(ready[place], state=replace(state, cache=cache))
    if sub is None or not computing:
        return ready
    clocks = [ready[place].clock for place in computing]
    clocks[0].start()
    streams = []
    for place in computing:
        moment = ready[place].moment
        x_RD = decode_rows(moment.record.activations[sub.split])
        streams.append((x_RD, StreamRows(len(x_RD), moment.rows, ready[place].state.cache)))
    tapped = run_streams(blocks, streams, set(taps), first=sub.split)
    lap_together(clocks, [part.count for _, part in streams], "blocks", task)
    for place, own in zip(computing, tapped, strict=True):
        ready[place] = replace(ready[place], shared=own)
    return ready


def _through_head(model: SceneModel, task: str, turn: TaskInput) -> TaskState:
    """The computed rows' tokens through the head, and its outputs into the picture."""
    head, grid, kind = model.heads[task], turn.moment.grid, model.bundle.kinds[task]
    state, touched = _run_cells(model, task, turn.state, turn.shared, turn.moment.rows, grid)
    assert state.cells_PX is not None
    drawn = None if touched is None else touched_patches(touched, grid, 1)  # pixels mix with the cells around a patch
    pixels = activate(assemble(state.cells_PX, grid, kind.channels, head.side, drawn), kind.activation).numpy()
    if kind.activation == "argmax":
        pixels = pixels.astype(kind.stored.dtype)
    onto, places = (None, None) if drawn is None else (state.value, drawn.numpy())
    return replace(state, value=lay_out(pixels, grid, onto, places))


def _run_cells(
    model: SceneModel,
    task: str,
    state: TaskState,
    tapped: Mapping[int, Tensor],
    rows: Tensor | None,
    grid: TokenGrid,
) -> tuple[TaskState, Tensor | None]:
    """Runs the head where its input changed; returns which patches that were, None for all."""
    head, taps = model.heads[task], model.bundle.entry.tasks[task].taps
    touched = patches_of(rows, grid)
    if head.receptive_field == 0 or state.cache is None:
        cells = run_head(head, stack_taps(tapped, taps, grid.prefix), grid, None)
    else:
        for tap in taps:
            write_rows(state.cache.taps[tap], rows, tapped[tap])
        touched = None if touched is None else touched_patches(touched, grid, head.receptive_field)
        cells = run_head(head, stack_taps(state.cache.taps, taps, grid.prefix), grid, touched)
    if touched is None:
        return replace(state, cells_PX=cells), None
    assert state.cells_PX is not None
    write_rows(state.cells_PX, touched, cells)
    return state, touched
