"""The networks that a bundle describes, untrained: its backbone, and a head for each task.

Under `torch.device("meta")` they have shapes and no memory.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

import torch
from torch import nn

from deltascene.pipeline.bundles.bundle import Bundle
from deltascene.pipeline.errors import BundleError
from deltascene.pipeline.text import one_line
from deltascene.stages.backbone import Backbone, create_backbone
from deltascene.stages.errors import StageError
from deltascene.stages.heads import TokenHead, build_head

LARGEST_FIELD = 8  # receptive field in tokens to each side; with a larger one, few changed tokens would affect them all
_HEAD_NAMES = ("receptive_field", "cells", "side", "macs_per_token")  # attributes that the engine uses


def build_backbone(bundle: Bundle) -> Backbone:
    """Builds the bundle's backbone, untrained, and checks taps and archive points against its depth.

    Raises:
        BundleError: a tap or archive point lies past the last block.
        StageError: timm doesn't know it, or it can't run by rows.
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
    """Builds a task's head, untrained.

    Raises:
        BundleError: it is the user's own and code isn't allowed, or it isn't a token-wise head.
        StageError: no such head.
    """
    entry, kind = bundle.entry.tasks[task], bundle.kinds[task]
    if ":" not in entry.head:
        return build_head(entry.head, backbone.width, len(entry.taps), kind.channels, entry.head_args).eval()
    if not allow_code:
        raise BundleError(f"tasks.{task}.head: {entry.head} is code of the bundle's author; --allow-code lets it run")
    with torch.device("cpu"):  # the author's code need not support tensors without memory
        head = import_head(entry.head)(backbone.width, len(entry.taps), kind.channels, **entry.head_args)
    return _checked_head(f"tasks.{task}.head", head)


def import_head(path: str) -> Callable[..., Any]:
    """Imports a user's own head class by `package.module:Class`; called only where the user allowed code.

    Raises:
        BundleError: it can't be imported or declares no receptive field.
    """
    module, _, name = path.partition(":")
    try:
        head: Callable[..., Any] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BundleError(f"head {path}: can't be imported: {one_line(error)}") from error
    if not isinstance(getattr(head, "receptive_field", None), int):
        raise BundleError(f"head {path}: expected an integer `receptive_field` in tokens; found none")
    return head


def _checked_head(where: str, head: object) -> TokenHead:
    """A user's own head, after its attributes were checked."""
    lacking = [name for name in _HEAD_NAMES if not hasattr(head, name)]
    if not isinstance(head, nn.Module) or lacking:
        found = f"no {', '.join(lacking)}" if lacking else type(head).__name__
        raise BundleError(f"{where}: expected a torch module with {', '.join(_HEAD_NAMES)}; found {found}")
    checked = cast(TokenHead, head.eval())
    if not 0 <= checked.receptive_field <= LARGEST_FIELD:
        raise BundleError(f"{where}: expected receptive_field 0 to {LARGEST_FIELD}; found {checked.receptive_field}")
    return checked
