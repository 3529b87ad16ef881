"""`deltascene models new`: a bundle for a user's own tasks on a timm backbone, ready to run, with untrained heads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from deltascene.pipeline.bundles.backbone_weights import BackboneWeights, find_weights, seeded
from deltascene.pipeline.bundles.bundle import Bundle, build_kind, read_folder, write_bundle
from deltascene.pipeline.bundles.check import (
    LARGEST_HEAD_SHARE,
    archive_points,
    backbone_macs,
    head_taps,
    sketch_backbone,
    timm_name,
)
from deltascene.pipeline.bundles.entry import BackboneArgs, BundleEntry
from deltascene.pipeline.bundles.new_folder import filled_or_emptied, refuse_full
from deltascene.pipeline.bundles.task_grammar import TaskSpec, parse_tasks
from deltascene.pipeline.bundles.weight_files import write_head, write_weights
from deltascene.pipeline.errors import BundleError, UsageError
from deltascene.pipeline.text import first_problem
from deltascene.stages.backbone import Backbone
from deltascene.stages.errors import StageError
from deltascene.stages.heads import build_head

# From the best head to one that is cheap even for a small backbone.
_HEAD_ARGS: tuple[dict[str, int], ...] = ({}, {"hidden": 128}, {"hidden": 64}, {"hidden": 64, "side": 2})


def new_model(
    folder: Path,
    backbone: str,
    tasks: Sequence[str],
    *,
    weights: Path | None = None,
    base: str | None = None,
    size: int | tuple[int, int] | None = None,
    random: bool = False,
    args: Mapping[str, Any] | None = None,
) -> Bundle:
    """Writes a bundle whose heads are untrained.

    Args:
        folder: folder of the bundle; it must not exist, or be empty.
        backbone: `timm:NAME`.
        tasks: `NAME:KIND[:CHANNELS]` each.
        weights: the backbone's weights, safetensors in timm's naming; None downloads timm's own.
        base: name of the base task; None is the first.
        size: input size, short side or (height, width) in pixels; None is the one that timm's weights were trained at.
        random: untrained backbone weights instead, for trials.
        args: more arguments for `timm.create_model`, as in `backbone.args` of a bundle.

    Returns:
        The bundle, read from the folder.

    Raises:
        UsageError: the folder isn't empty, the backbone can't run by rows, a task isn't valid, or the weights don't fit
            or can't be downloaded.
    """
    name = timm_name(backbone)
    if name is None:
        raise UsageError(f"--backbone: expected timm:NAME; found {backbone!r}")
    specs = parse_tasks(tasks, base)
    refuse_full(folder)
    if random and weights is not None:
        raise UsageError("--random: expected no --weights beside it; found both")
    try:
        found = find_weights(name, _checked_args(args or {}), weights, random=random)
        sketch = sketch_backbone(name, found.args)
        entry = _entry(name, sketch, specs, size, found)
    except StageError as error:
        raise BundleError(str(error)) from error
    _write(folder, entry, sketch, found)
    return read_folder(folder)


def _checked_args(args: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        BackboneArgs.model_validate(args)
    except ValidationError as error:
        raise UsageError(f"backbone.args: {first_problem(error, BackboneArgs)}") from error
    return args


def _entry(
    name: str, backbone: Backbone, specs: Sequence[TaskSpec], size: int | tuple[int, int] | None, found: BackboneWeights
) -> BundleEntry:
    trained = backbone.pretrained_config
    fixed = backbone.trained_size() if size is None or isinstance(size, int) else size
    grid = backbone.grid(fixed)
    dense_per_patch = backbone_macs(backbone, grid) / grid.patches
    tasks = {
        spec.name: _task(backbone, spec, dense_per_patch, is_base=number == 0) for number, spec in enumerate(specs)
    }
    data = {
        "format": 1,
        "backbone": {"timm": name, "args": dict(found.args)},
        "input": {
            **({"short_side": size} if isinstance(size, int) else {"size": fixed}),
            "mean": trained["mean"],
            "std": trained["std"],
        },
        "base": specs[0].name,
        "archive": {"blocks": archive_points(backbone.depth)},
        "tasks": tasks,
        "evidence": dict(found.evidence),
    }
    try:
        return BundleEntry.model_validate(data)
    except ValidationError as error:
        raise UsageError(f"new bundle: {first_problem(error, BundleEntry)}") from error


def _task(backbone: Backbone, spec: TaskSpec, dense_per_patch: float, *, is_base: bool) -> dict[str, Any]:
    taps = head_taps(backbone.depth)
    task: dict[str, Any] = {"kind": spec.kind}
    if spec.kind != "scalar":
        task["channels"] = spec.channels
    if not is_base:
        task["split"] = archive_points(backbone.depth)[0]
    return task | {"taps": taps, "head_args": _head_args(backbone, len(taps), spec.channels, dense_per_patch)}


def _head_args(backbone: Backbone, taps: int, channels: int, dense_per_patch: float) -> dict[str, int]:
    """Arguments of the best head within its share of the backbone's MACs; those of the cheapest where none is."""
    for args in _HEAD_ARGS:
        with torch.device("meta"):
            macs = build_head("token_mlp", backbone.width, taps, channels, args).macs_per_token()
        if macs <= LARGEST_HEAD_SHARE * dense_per_patch:
            return args
    return _HEAD_ARGS[-1]


def _write(folder: Path, entry: BundleEntry, backbone: Backbone, found: BackboneWeights) -> None:
    """Writes all files, `bundle.yaml` last."""
    with filled_or_emptied(folder):
        write_weights(folder / entry.backbone.weights, found.tensors)
        for name, task in entry.tasks.items():
            channels = build_kind(task).channels
            with seeded():
                head = build_head(task.head, backbone.width, len(task.taps), channels, task.head_args)
            write_head(folder / entry.head_weights(name), head)
        write_bundle(folder, entry)
