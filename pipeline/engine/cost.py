"""What a frame cost: multiply-accumulates (MACs) as a function of the computed rows and of shapes alone, and seconds.

The base carries what all tasks share: the embedding and its blocks. Every other task carries its own blocks and head.
"""

from collections.abc import Mapping

from torch import Tensor

from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.engine.results import TaskCost
from deltascene.pipeline.engine.stopwatch import Stopwatch
from deltascene.stages.change import count_rows, patches_of
from deltascene.stages.cost import Macs, blocks_macs, embed_macs
from deltascene.stages.heads import touched_patches
from deltascene.stages.types import TokenGrid


def frame_costs(model: SceneModel, rows: Tensor | None, grid: TokenGrid, clock: Stopwatch) -> dict[str, TaskCost]:
    """Cost of every task on a frame that was predicted, the base first.

    The base is there even if nobody asked for its outputs, as its blocks serve every task.

    Args:
        model: backbone, heads and sub-tasks; shapes are enough.
        rows: tokens computed, int64 [R]; None is all of them.
        grid: token grid.
        clock: seconds by task and stage.
    """
    base = model.bundle.entry.base
    costs = {task: task_cost(model, task, rows, grid, clock.of(task)) for task in model.tasks}
    head, computed = costs.get(base), count_rows(rows, grid)
    shared = TaskCost(
        rows=grid.tokens,
        rows_computed=computed,
        executed=_shared_macs(model, computed, grid, head.executed.head if head else 0),
        dense=_shared_macs(model, grid.tokens, grid, head.dense.head if head else 0),
        seconds=clock.of(base, shared=True),
        single_task=head.single_task if head else 0,
    )
    return {base: shared} | {task: cost for task, cost in costs.items() if task != base}


def skipped_costs(model: SceneModel, clock: Stopwatch) -> dict[str, TaskCost]:
    """Cost of every task on an invalid frame, the base first: nothing ran, and nothing counts as saved."""
    base = model.bundle.entry.base
    return {
        task: TaskCost(
            rows=0, rows_computed=0, executed=Macs(), dense=Macs(), seconds=clock.of(task, shared=task == base)
        )
        for task in dict.fromkeys((base, *model.tasks))
    }


def task_cost(
    model: SceneModel, task: str, rows: Tensor | None, grid: TokenGrid, seconds: Mapping[str, float]
) -> TaskCost:
    """Cost of one task on a frame, without the base's own work.

    Args:
        model: holds the task's head, and its blocks where it has a delta; shapes are enough.
        task: its name.
        rows: tokens computed, int64 [R]; None is all of them.
        grid: token grid.
        seconds: measured time by stage.
    """
    sub, head, tokens = model.sub_tasks.get(task), model.heads[task], grid.tokens

    def macs(rows: Tensor | None) -> Macs:
        shapes = () if sub is None else sub.shapes[: max(model.bundle.entry.tasks[task].taps) - sub.split]
        patches = _head_patches(rows, grid, head.receptive_field)
        return Macs(blocks=blocks_macs(shapes, count_rows(rows, grid), tokens), head=patches * head.macs_per_token())

    computed = count_rows(rows, grid)
    return TaskCost(
        rows=tokens,
        rows_computed=computed if sub is not None else 0,
        executed=macs(rows) if computed else Macs(),
        dense=macs(None),
        seconds=seconds,
        single_task=single_task_macs(model, task, grid),
    )


def single_task_macs(model: SceneModel, task: str, grid: TokenGrid) -> int | None:
    """MACs of one frame in a network of this task alone, with every row and the same head.

    Returns:
        The MACs; None where the bundle's evidence doesn't list that network under `single_task`.
    """
    listed, backbone = model.bundle.entry.evidence.get("single_task"), model.backbone
    if not isinstance(listed, dict) or task not in listed:
        return None
    shapes = backbone.block_shapes()[: max(model.bundle.entry.tasks[task].taps)]
    embedded = embed_macs(grid.patches, backbone.patch_macs())
    return embedded + blocks_macs(shapes, grid.tokens, grid.tokens) + grid.patches * model.heads[task].macs_per_token()


def _head_patches(rows: Tensor | None, grid: TokenGrid, reach: int) -> int:
    """Number of patches that a head runs on, where it looks at `reach` patches to each side."""
    patches = patches_of(rows, grid)
    if patches is None:
        return grid.patches
    return len(touched_patches(patches, grid, reach) if reach else patches)


def _shared_macs(model: SceneModel, count: int, grid: TokenGrid, head_macs: int) -> Macs:
    """MACs of the base on some of a frame's tokens, its own head included."""
    if not count:
        return Macs()
    embedded = embed_macs(count - grid.prefix, model.backbone.patch_macs())
    shapes = model.backbone.block_shapes()[: model.base_depth]
    return Macs(embed=embedded, blocks=blocks_macs(shapes, count, grid.tokens), head=head_macs)
