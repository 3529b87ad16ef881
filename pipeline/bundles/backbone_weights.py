"""Weights for a new bundle's backbone: the user's own file, timm's download, or random ones."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from deltascene.pipeline.bundles.check import sketch_backbone
from deltascene.pipeline.bundles.weight_files import check_shapes, weight_shapes
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.text import one_line
from deltascene.stages.backbone import Backbone, create_backbone
from deltascene.stages.errors import StageError

_CLASSIFIER = ("head.", "head_dist.")


@dataclass(frozen=True, slots=True)
class BackboneWeights:
    """Weights for a new bundle, and their origin.

    Attributes:
        tensors: weights by timm's names.
        args: arguments of `timm.create_model` that they need.
        evidence: their origin, for the bundle's `evidence`.
    """

    tensors: Mapping[str, Tensor]
    args: Mapping[str, Any]
    evidence: Mapping[str, str]


def find_weights(name: str, args: Mapping[str, Any], path: Path | None, *, random: bool) -> BackboneWeights:
    """Reads, downloads or draws the weights of a backbone.

    Args:
        name: timm's name of the backbone.
        args: arguments of `timm.create_model`.
        path: the user's own safetensors in timm's naming, whose classifier is left out; None for timm's own weights.
        random: untrained weights, always the same.

    Raises:
        UsageError: they don't fit, or can't be downloaded.
        StageError: timm doesn't know the backbone, or it can't run by rows.
    """
    if path is not None:
        return _own_weights(name, args, path)
    if random:
        with seeded():
            tensors = create_backbone(name, args).state_dict()
        return BackboneWeights(tensors, args, {"summary": "untrained: backbone and heads are random"})
    backbone = _download(name, args)
    trained = backbone.pretrained_config
    evidence = {"summary": f"heads are untrained; backbone weights are timm's {trained.get('hf_hub_id') or name}"}
    if trained.get("license"):
        evidence["licence"] = str(trained["license"])
    return BackboneWeights(backbone.state_dict(), args, evidence)


def _own_weights(name: str, args: Mapping[str, Any], path: Path) -> BackboneWeights:
    shapes = {key: shape for key, shape in weight_shapes(path).items() if not key.startswith(_CLASSIFIER)}
    backbone = sketch_backbone(name, args)
    if "img_size" not in args:
        side = backbone.trained_side(shapes.get("pos_embed", ()))
        args = {**args, **({} if side is None else {"img_size": side})}
        backbone = sketch_backbone(name, args)
    check_shapes(backbone, shapes, path)
    tensors = {key: tensor for key, tensor in load_file(path).items() if key in shapes}
    return BackboneWeights(tensors, args, {"summary": f"heads are untrained; backbone weights from {path.name}"})


def _download(name: str, args: Mapping[str, Any]) -> Backbone:
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of every retry
    try:
        return create_backbone(name, args, pretrained=True)
    except StageError:
        raise
    except Exception as error:  # whatever timm's and the hub's network clients raise
        raise UsageError(
            f"{name}: timm's weights can't be had: {one_line(error, 120)}; give --weights FILE.safetensors, or --random"
        ) from error
    finally:
        logger.setLevel(level)


@contextmanager
def seeded() -> Iterator[None]:
    """Seeds torch's random numbers inside the context; the caller's generator isn't changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
