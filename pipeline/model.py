"""A bundle's networks: the backbone and the heads of some tasks, as shapes alone or with their weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deltascene.pipeline.bundle import Bundle, import_head
from deltascene.pipeline.errors import BundleError, OutputError
from deltascene.pipeline.problems import one_line
from deltascene.stages.backbone import Backbone, create_backbone
from deltascene.stages.errors import StageError
from deltascene.stages.heads import TokenHead, build_head

_FLOATS = ("F16", "BF16", "F32", "F64")
_HEAD_NAMES = ("receptive_field", "cells", "side", "macs_per_token")  # what the engine asks of a head
_HEAD = "head."  # a head's tensors start with it: its delta will lie in the same file


@dataclass(frozen=True, slots=True)
class SceneModel:
    """What computes: one backbone and the heads of some tasks.

    Attributes:
        bundle: the description it was built from.
        tasks: names of the tasks it predicts, in the bundle's order.
        backbone: the base's network with its weights.
        heads: head of every task.
    """

    bundle: Bundle
    tasks: tuple[str, ...]
    backbone: Backbone
    heads: Mapping[str, TokenHead]


def load_model(bundle: Bundle, tasks: Sequence[str], *, allow_code: bool = False) -> SceneModel:
    """Loads a bundle's weights for some of its tasks.

    Args:
        bundle: a checked description.
        tasks: which tasks' heads to load; others stay on disk.
        allow_code: whether a head may be imported from the user's own package.

    Raises:
        BundleError: weights are missing or don't fit the description.
        StageError: the backbone or a head can't be built.
    """
    model = sketch_model(bundle, tasks, allow_code=allow_code)
    _load_exactly(model.backbone.vit, bundle.backbone_file())
    for task, head in model.heads.items():
        _load_exactly(head, bundle.head_file(task), _HEAD)
    return model


def sketch_model(bundle: Bundle, tasks: Sequence[str], *, allow_code: bool = False) -> SceneModel:
    """The same model without weights: its tensors have shapes and no memory, so that any size is there at once.

    Args:
        bundle: a checked description.
        tasks: which tasks' heads to build.
        allow_code: whether a head may be imported from the user's own package.

    Raises:
        BundleError: a tap or archive point lies past the last block, or a head isn't allowed.
        StageError: the backbone or a head can't be built.
    """
    with torch.device("meta"):
        backbone = build_backbone(bundle)
        heads = {task: build_task_head(bundle, backbone, task, allow_code=allow_code) for task in tasks}
    return SceneModel(bundle, tuple(tasks), backbone, heads)


def build_backbone(bundle: Bundle) -> Backbone:
    """The bundle's backbone with untrained weights, its taps and archive points checked against its depth.

    Raises:
        BundleError: a tap or archive point lies past the last block.
        StageError: timm doesn't know it or it can't run by rows.
    """
    entry = bundle.entry
    try:
        backbone = create_backbone(entry.backbone.timm, entry.backbone.args)
    except StageError:
        raise
    except (RuntimeError, ValueError, ArithmeticError) as error:
        raise BundleError(
            f"backbone {entry.backbone.timm}: can't be built with {entry.backbone.args}: {one_line(error)}"
        ) from error
    points = {"archive.blocks": entry.archive.blocks} | {
        f"tasks.{name}.taps": task.taps for name, task in entry.tasks.items()
    }
    for where, numbers in points.items():
        if numbers and max(numbers) > backbone.depth:
            raise BundleError(
                f"{bundle.folder / 'bundle.yaml'}: {where}: expected 0 to {backbone.depth}; found {list(numbers)}"
            )
    return backbone


def build_task_head(bundle: Bundle, backbone: Backbone, task: str, *, allow_code: bool = False) -> TokenHead:
    """A task's untrained head.

    Raises:
        BundleError: it is the user's own and code isn't allowed, or it isn't a token-wise head.
        StageError: no such head.
    """
    entry, kind = bundle.entry.tasks[task], bundle.kinds[task]
    if ":" not in entry.head:
        return build_head(entry.head, backbone.width, len(entry.taps), kind.channels, entry.head_args).eval()
    if not allow_code:
        raise BundleError(f"tasks.{task}.head: {entry.head} is code of the bundle's author; --allow-code lets it run")
    with torch.device("cpu"):  # the author's code need not know of tensors without memory
        head = import_head(entry.head)(backbone.width, len(entry.taps), kind.channels, **entry.head_args)
    return _checked_head(f"tasks.{task}.head", head)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file as float32, in memory of their own.

    Raises:
        BundleError: the file is missing or isn't safetensors.
    """
    weight_shapes(path)
    return {name: tensor.to(torch.float32, copy=True) for name, tensor in load_file(path).items()}


def weight_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a safetensors file's tensors by name; only its header is read.

    Raises:
        BundleError: the file is missing, isn't safetensors, or holds something else than floats.
    """
    if not path.is_file():
        raise BundleError(f"weights: expected {path}; found no such file")
    shapes = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                tensor = file.get_slice(name)
                shapes[name] = tuple(tensor.get_shape())
                if tensor.get_dtype() not in _FLOATS:
                    raise BundleError(f"weights {path}: {name}: expected floats; found {tensor.get_dtype()}")
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(f"weights {path}: not readable as safetensors: {one_line(error)}") from error
    return shapes


def check_weights(module: nn.Module, path: Path, prefix: str = "") -> None:
    """Compares a file's header with what a module needs.

    Args:
        module: a network or head; its tensors may be without memory.
        path: safetensors file.
        prefix: what the names in the file start with.

    Raises:
        BundleError: a tensor is missing, has another shape, or is one too many; the first of them is named.
    """
    check_shapes(module, weight_shapes(path), path, prefix)


def check_shapes(module: nn.Module, found: Mapping[str, tuple[int, ...]], path: Path, prefix: str = "") -> None:
    """`check_weights` for shapes that were read already; `path` is only named."""
    wanted = {f"{prefix}{name}": tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    for name, shape in wanted.items():
        if name not in found:
            raise BundleError(f"weights {path}: expected tensor {name}; found none")
        if found[name] != shape:
            raise BundleError(f"weights {path}: {name}: expected shape {shape}; found {found[name]}")
    extra = sorted(set(found) - set(wanted))
    if extra:
        raise BundleError(f"weights {path}: expected {len(wanted)} tensors; found {len(extra)} more, first {extra[0]}")


def check_head_weights(head: nn.Module, path: Path) -> None:
    """`check_weights` of a head's file.

    Raises:
        BundleError: it doesn't fit the head.
    """
    check_weights(head, path, _HEAD)


def write_head(path: Path, head: nn.Module, dtype: torch.dtype = torch.float16) -> None:
    """A head's weights as safetensors, by the names that `load_model` reads."""
    write_weights(path, {f"{_HEAD}{name}": tensor.to(dtype) for name, tensor in head.state_dict().items()})


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Tensors as a safetensors file.

    Raises:
        OutputError: it can't be written.
    """
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        raise OutputError(f"{path}: can't be written: {one_line(error)}") from error


def _checked_head(where: str, head: object) -> TokenHead:
    lacking = [name for name in _HEAD_NAMES if not hasattr(head, name)]
    if not isinstance(head, nn.Module) or lacking:
        found = f"no {', '.join(lacking)}" if lacking else type(head).__name__
        raise BundleError(f"{where}: expected a torch module with {', '.join(_HEAD_NAMES)}; found {found}")
    if head.receptive_field != 0:
        raise BundleError(f"{where}: expected a token-wise head, receptive_field 0; found {head.receptive_field}")
    return cast(TokenHead, head.eval())


def _load_exactly(module: nn.Module, path: Path, prefix: str = "") -> None:
    check_weights(module, path, prefix)
    module.load_state_dict(
        {name.removeprefix(prefix): tensor for name, tensor in read_weights(path).items()}, assign=True
    )
    assert not any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())), path
