"""A bundle's networks: backbone, delta weights and heads of some tasks, as shapes alone or with their weights."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from deltascene.pipeline.bundles.bundle import Bundle
from deltascene.pipeline.bundles.networks import build_backbone, build_task_head
from deltascene.pipeline.bundles.weight_files import (
    DELTA,
    HEAD,
    check_part,
    check_shapes,
    delta_names,
    load_exactly,
    load_part,
    read_weights,
    weight_shapes,
)
from deltascene.pipeline.config import Config, NumericsConfig
from deltascene.pipeline.errors import BundleError
from deltascene.stages.backbone import Backbone, Block
from deltascene.stages.delta import DeltaWeights
from deltascene.stages.errors import UnfitDelta
from deltascene.stages.folded import FoldedBlock, fold, fold_head
from deltascene.stages.heads import TokenHead
from deltascene.stages.packed import pack_linears
from deltascene.stages.sub_task import SubTask, build_sub_task


@dataclass(frozen=True, slots=True)
class SceneModel:
    """The networks of a run: one backbone, and the delta weights and heads of some tasks.

    Attributes:
        bundle: the description that it was built from.
        tasks: names of the tasks it predicts, in the bundle's order.
        backbone: the base's network with its weights.
        heads: head of every task.
        sub_tasks: blocks of every task with delta weights; the others read the base's activations.
        hand_over: points where the base's tokens are handed on besides the splits of these sub-tasks, as numbers of
            blocks run before: for an archive, and for sub-tasks in other processes.
    """

    bundle: Bundle
    tasks: tuple[str, ...]
    backbone: Backbone
    heads: Mapping[str, TokenHead]
    sub_tasks: Mapping[str, SubTask]
    hand_over: tuple[int, ...] = ()

    @property
    def handed_on(self) -> tuple[int, ...]:
        """Where the base's tokens are handed on, as increasing numbers of blocks run before."""
        return tuple(sorted({*self.hand_over, *(sub.split for sub in self.sub_tasks.values())}))

    @property
    def base_taps(self) -> frozenset[int]:
        """Where the base's tokens are read: by heads without blocks of their own, and to be handed on."""
        own = [task for task in self.tasks if task not in self.sub_tasks]
        return frozenset({*self.bundle.taps(own), *self.handed_on})

    @property
    def base_depth(self) -> int:
        """Number of the base's blocks that run: up to the last token that is read."""
        return max(self.base_taps, default=0)


def load_model(bundle: Bundle, tasks: Sequence[str], *, allow_code: bool = False, merged: bool = True) -> SceneModel:
    """Loads a bundle's weights for some of its tasks.

    Args:
        bundle: a checked description.
        tasks: which tasks' heads and deltas to load; others stay on disk.
        allow_code: whether a head may be imported from the user's own package.
        merged: whether deltas are added to dense weights, or stay low-rank products beside the base's.

    Raises:
        BundleError: weights are missing or don't fit the description.
        StageError: the backbone or a head can't be built.
    """
    backbone, heads = _sketch_parts(bundle, tasks, allow_code)
    load_exactly(backbone, bundle.backbone_file())
    sub_tasks = {task: load_sub_task(bundle, backbone, task, merged) for task in _with_delta(bundle, tasks)}
    for task, head in heads.items():
        load_exactly(head, bundle.head_file(task), HEAD, _beside_head(bundle, task))
    return SceneModel(bundle, tuple(tasks), backbone, heads, sub_tasks)


def load_sub_task_model(bundle: Bundle, task: str, *, allow_code: bool = False, merged: bool = True) -> SceneModel:
    """Loads only what a sub-task needs to run on the base's activations at its split.

    Args:
        bundle: a checked description.
        task: a sub-task.
        allow_code: whether a head may be imported from the user's own package.
        merged: as of `load_model`.

    Returns:
        A model of this task alone. The embedding, the blocks below the split and the final norm aren't
        loaded, and have no memory.

    Raises:
        BundleError: the task is the base, or weights are missing or don't fit the description.
        StageError: the backbone or a head can't be built.
    """
    split = bundle.entry.tasks[task].split
    if split is None:
        raise BundleError(f"tasks.{task}: expected a sub-task, which has a split; found the base")
    backbone, heads = _sketch_parts(bundle, [task], allow_code)
    found = weight_shapes(bundle.backbone_file())
    for number, block in enumerate(backbone.blocks[split:], start=split):
        check_part(block, found, bundle.backbone_file(), f"blocks.{number}.")
        load_part(block, bundle.backbone_file(), f"blocks.{number}.")
    sub_tasks = {name: load_sub_task(bundle, backbone, name, merged) for name in _with_delta(bundle, [task])}
    load_exactly(heads[task], bundle.head_file(task), HEAD, _beside_head(bundle, task))
    return SceneModel(bundle, (task,), backbone, heads, sub_tasks)


def prepare_model(model: SceneModel, numerics: NumericsConfig) -> SceneModel:
    """A model prepared for settled numerics: for the compiled kernel, which has to be loaded, or for bfloat16.

    The memory of the original blocks is freed.
    """
    if numerics.kernel == "torch" and numerics.dtype == "float32":
        return model

    def prepared(block: Block) -> Block | FoldedBlock:
        return block if _is_empty(block) else prepare_block(block, numerics)

    backbone = model.backbone.with_blocks([prepared(block) for block in model.backbone.blocks])
    sub_tasks = {
        task: replace(sub, blocks=tuple(prepared(block) for block in sub.blocks))
        for task, sub in model.sub_tasks.items()
    }
    heads = model.heads
    if numerics.kernel == "compiled":
        heads = {task: fold_head(head, getattr(torch, numerics.dtype)) for task, head in heads.items()}
    return replace(model, backbone=backbone, heads=heads, sub_tasks=sub_tasks)


def handing_over(model: SceneModel, config: Config, splits: Iterable[int] = ()) -> SceneModel:
    """A model whose base hands on the tokens that a run needs.

    Args:
        model: any model.
        config: determines whether activations are archived.
        splits: splits of sub-tasks that are computed in other processes.
    """
    archived = model.bundle.entry.archive.blocks if config.archive.enabled else ()
    return replace(model, hand_over=tuple(sorted({*archived, *splits})))


def prepare_block(block: Block, numerics: NumericsConfig) -> Block | FoldedBlock:
    """One block, prepared as by `prepare_model`; the block itself where one of its parts isn't supported."""
    dtype = getattr(torch, numerics.dtype)
    if numerics.kernel == "compiled":
        return fold(block, dtype)
    return pack_linears(block) if dtype == torch.bfloat16 else block


def sketch_model(bundle: Bundle, tasks: Sequence[str], *, allow_code: bool = False, merged: bool = True) -> SceneModel:
    """Builds a model without weights: its tensors have shapes and no memory, so that a model of any size is built fast.

    Args:
        bundle: a checked description; the headers of its deltas' files are read, as only these hold the ranks.
        tasks: which tasks' heads and deltas to build.
        allow_code: whether a head may be imported from the user's own package.
        merged: as of `load_model`.

    Raises:
        BundleError: a tap or archive point lies past the last block, a delta doesn't fit, or a head isn't allowed.
        StageError: the backbone or a head can't be built.
    """
    backbone, heads = _sketch_parts(bundle, tasks, allow_code)
    with torch.device("meta"):
        sub_tasks = {task: sketch_sub_task(bundle, backbone, task, merged) for task in _with_delta(bundle, tasks)}
    return SceneModel(bundle, tuple(tasks), backbone, heads, sub_tasks)


def load_sub_task(bundle: Bundle, backbone: Backbone, task: str, merged: bool) -> SubTask:
    """Loads a task's blocks from the base's weights and its delta.

    Raises:
        BundleError: the delta is missing or doesn't fit.
    """
    path = bundle.delta_file(task)
    weights = read_weights(path, delta_names(path, _beside_delta(bundle, task)))
    return _sub_task(bundle, backbone, task, {name.removeprefix(DELTA): weights[name] for name in weights}, merged)


def sketch_sub_task(bundle: Bundle, backbone: Backbone, task: str, merged: bool) -> SubTask:
    """A task's blocks as shapes without memory."""
    shapes = delta_names(bundle.delta_file(task), _beside_delta(bundle, task))
    flat = {name.removeprefix(DELTA): torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return _sub_task(bundle, backbone, task, flat, merged)


def check_backbone_weights(bundle: Bundle, backbone: Backbone) -> None:
    """Compares the header of the base's weights with a backbone, which may be without memory.

    Raises:
        BundleError: a tensor is missing, superfluous, or has another shape; the first of them is named.
    """
    path = bundle.backbone_file()
    check_shapes(backbone, weight_shapes(path), path)


def check_task_weights(bundle: Bundle, task: str, head: nn.Module) -> None:
    """Compares the header of a task's head file with its head; a delta is checked where it is sketched.

    Raises:
        BundleError: a tensor is missing, superfluous, or has another shape; the first of them is named.
    """
    path = bundle.head_file(task)
    check_shapes(head, weight_shapes(path), path, HEAD, _beside_head(bundle, task))


def _sketch_parts(bundle: Bundle, tasks: Sequence[str], allow_code: bool) -> tuple[Backbone, dict[str, TokenHead]]:
    with torch.device("meta"):
        backbone = build_backbone(bundle)
        return backbone, {task: build_task_head(bundle, backbone, task, allow_code=allow_code) for task in tasks}


def _is_empty(block: nn.Module) -> bool:
    """Whether a block has shapes and no memory."""
    return any(parameter.is_meta for parameter in block.parameters())


def _with_delta(bundle: Bundle, tasks: Sequence[str]) -> list[str]:
    return [task for task in tasks if bundle.entry.tasks[task].delta is not None]


def _beside_head(bundle: Bundle, task: str) -> tuple[str, ...]:
    """Prefixes of other tensors in a head's file: its task's delta, if the description names the same file for it."""
    return (DELTA,) if _one_file(bundle, task) else ()


def _beside_delta(bundle: Bundle, task: str) -> tuple[str, ...]:
    return (HEAD,) if _one_file(bundle, task) else ()


def _one_file(bundle: Bundle, task: str) -> bool:
    return bundle.entry.tasks[task].delta == bundle.entry.head_weights(task)


def _sub_task(bundle: Bundle, backbone: Backbone, task: str, flat: Mapping[str, Tensor], merged: bool) -> SubTask:
    split = bundle.entry.tasks[task].split
    assert split is not None, task  # BundleEntry refuses a delta of the base
    try:
        return build_sub_task(backbone, split, DeltaWeights.from_tensors(flat), merged)
    except UnfitDelta as error:
        raise BundleError(f"weights {bundle.delta_file(task)}: {error}") from error
