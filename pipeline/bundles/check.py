"""Whether a timm backbone or a bundle is supported, and how many MACs a frame takes.

No weights are loaded or downloaded: networks are built as shapes, and of weight files only the headers are read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from deltascene.pipeline.bundles.bundle import Bundle, read_bundle
from deltascene.pipeline.bundles.scene_model import SceneModel, check_backbone_weights, check_task_weights, sketch_model
from deltascene.pipeline.errors import BundleError
from deltascene.pipeline.units import compact, count, share
from deltascene.stages.backbone import Backbone, create_backbone
from deltascene.stages.cost import blocks_macs, embed_macs
from deltascene.stages.errors import StageError
from deltascene.stages.types import TokenGrid

LARGEST_HEAD_SHARE = (
    0.03  # of the dense backbone's MACs: with few rows computed, a larger head would be most of the cost
)
_WIDE_FRAME = (1080, 1920)  # assumed frame size where the input's size follows the frame's aspect ratio


@dataclass(frozen=True, slots=True)
class TaskCheck:
    """A task of a bundle, and the MACs of its blocks and head.

    Attributes:
        kind: name of its kind, with the channels.
        split: number of blocks that it shares with the base; None for the base.
        taps: points that its head reads, as numbers of blocks run before.
        blocks_macs: MACs of its own blocks for one frame; 0 where it has no delta and reads the base's activations.
        head: name of its head.
        head_macs: MACs of its head for one frame.
        share: `head_macs` divided by the MACs of the dense backbone.
    """

    kind: str
    split: int | None
    taps: tuple[int, ...]
    blocks_macs: int
    head: str
    head_macs: int
    share: float


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """Result of a check.

    Attributes:
        name: name of the model that was checked.
        problems: reasons why it can't run, one line each; none if it is supported.
        warnings: shortcomings with which it still runs.
        facts: description of the model by topic.
        tasks: tasks of a bundle by name.
    """

    name: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    facts: Mapping[str, str]
    tasks: Mapping[str, TaskCheck]

    @property
    def supported(self) -> bool:
        """Whether there are no problems."""
        return not self.problems


def check_model(model: str, *, allow_code: bool = False) -> ModelCheck:
    """Checks `timm:NAME`, a packaged name, a folder or an fsspec URL.

    Args:
        model: one of these.
        allow_code: whether a bundle's own head may be imported.

    Raises:
        BundleError: there is no such bundle, or its description can't be read.
    """
    name = timm_name(model)
    return _check_backbone(model, name) if name is not None else _check_bundle(read_bundle(model), allow_code)


def timm_name(model: str) -> str | None:
    """NAME of `timm:NAME`; None for anything else."""
    return model.removeprefix("timm:") if model.startswith("timm:") else None


def sketch_backbone(name: str, args: Mapping[str, object] | None = None) -> Backbone:
    """A timm backbone as shapes alone.

    Raises:
        StageError: timm doesn't know it, or it can't run by rows.
    """
    with torch.device("meta"):
        return create_backbone(name, args)


def archive_points(depth: int) -> tuple[int, ...]:
    """Default archive points: after half, two thirds and three quarters of the blocks."""
    return tuple(sorted({depth // 2, 2 * depth // 3, 3 * depth // 4}))


def head_taps(depth: int) -> tuple[int, ...]:
    """Default taps of a head: after half, three quarters and all of the blocks."""
    return tuple(sorted({depth // 2, 3 * depth // 4, depth}))


def backbone_macs(backbone: Backbone, grid: TokenGrid) -> int:
    """MACs of the dense backbone, all of its blocks, on one frame."""
    blocks = blocks_macs(backbone.block_shapes(), grid.tokens, grid.tokens)
    return embed_macs(grid.patches, backbone.patch_macs()) + blocks


def _check_backbone(model: str, name: str) -> ModelCheck:
    try:
        backbone = sketch_backbone(name)
        grid = backbone.grid(backbone.trained_size())
    except StageError as error:
        return ModelCheck(model, (str(error),), (), {}, {})
    facts = _backbone_facts(backbone, grid) | {
        "a new bundle's archive.blocks": ", ".join(map(str, archive_points(backbone.depth))),
        "a new head's taps": ", ".join(map(str, head_taps(backbone.depth))),
        "licence of timm's weights": str(backbone.pretrained_config.get("license") or "not stated by timm"),
    }
    return ModelCheck(model, (), (), facts, {})


def _check_bundle(bundle: Bundle, allow_code: bool) -> ModelCheck:
    names = tuple(bundle.entry.tasks)
    try:
        model = sketch_model(bundle, names, allow_code=allow_code)
        grid = model.backbone.grid(_input_size(bundle, model.backbone.patch))
    except (BundleError, StageError) as error:
        return ModelCheck(bundle.name, (str(error),), (), {}, {})
    dense = backbone_macs(model.backbone, grid)
    tasks = {name: _check_task(model, name, grid, dense) for name in names}
    facts = _backbone_facts(model.backbone, grid) | {
        "MACs of all heads": compact(sum(task.head_macs for task in tasks.values()), "MAC")
    }
    warnings = [
        f"tasks.{name}.head: expected up to {LARGEST_HEAD_SHARE:.0%} of the backbone's MACs; found {share(task.share)}"
        for name, task in tasks.items()
        if task.share > LARGEST_HEAD_SHARE
    ]
    return ModelCheck(bundle.name, tuple(_weight_problems(model)), tuple(warnings), facts, tasks)


def _check_task(model: SceneModel, name: str, grid: TokenGrid, dense: int) -> TaskCheck:
    entry, kind = model.bundle.entry.tasks[name], model.bundle.kinds[name]
    macs, sub = model.heads[name].macs_per_token() * grid.patches, model.sub_tasks.get(name)
    own = blocks_macs(sub.shapes[: max(entry.taps) - sub.split], grid.tokens, grid.tokens) if sub else 0
    return TaskCheck(f"{kind.name} of {kind.channels}", entry.split, entry.taps, own, entry.head, macs, macs / dense)


def _weight_problems(model: SceneModel) -> list[str]:
    bundle = model.bundle
    checks: list[Callable[[], None]] = [partial(check_backbone_weights, bundle, model.backbone)]
    checks += [partial(check_task_weights, bundle, task, head) for task, head in model.heads.items()]
    problems = []
    for check in checks:
        try:
            check()
        except BundleError as error:
            problems.append(str(error))
    return problems


def _input_size(bundle: Bundle, patch: int) -> tuple[int, int]:
    return bundle.input_plan(_WIDE_FRAME, patch).model_size


def _backbone_facts(backbone: Backbone, grid: TokenGrid) -> dict[str, str]:
    height, width = grid.image_size
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    return {
        "backbone": f"{backbone.depth} blocks of width {backbone.width}, patch {backbone.patch}, "
        f"{count(backbone.prefix, 'prefix token')}, {compact(parameters, '')} parameters",
        "input": f"{height}x{width} pixels, {grid.tokens} tokens",
        "MACs of the dense backbone": f"{compact(backbone_macs(backbone, grid), 'MAC')} a frame",
    }
