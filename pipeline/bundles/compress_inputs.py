"""Checkpoints for `deltascene compress`, and their checks; an error names the first difference.

Files are checked by their headers before any tensor is read; whether tensors are finite is checked when they are read.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from deltascene.pipeline.bundles.bundle import Bundle, read_folder
from deltascene.pipeline.bundles.networks import build_backbone, build_task_head
from deltascene.pipeline.bundles.scene_model import check_task_weights
from deltascene.pipeline.bundles.weight_files import HEAD, check_shapes, load_part, read_weights, weight_shapes
from deltascene.pipeline.errors import BundleError, UsageError, nearest
from deltascene.pipeline.text import shown
from deltascene.stages.backbone import Backbone
from deltascene.stages.errors import StageError
from deltascene.stages.heads import TokenHead

_CLASSIFIER = {"head.weight", "head.bias"}  # timm's own, for whole images
_SAME_TASK = (
    "kind",
    "labels",
    "unit",
    "log",
    "unit_length",
    "names",
    "taps",
    "head",
)  # keys that decide what a head's output means


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A network that was fine-tuned for one task, checked against the bundle with the task.

    Attributes:
        task: the task's name in the bundle.
        name: name of the file or folder, without its path.
        backbone: file with the backbone's tensors.
        head: file with the head's tensors, `head.NAME`; the bundle's where the checkpoint has no head.
        head_names: names of these tensors.
        own_head: whether they are the checkpoint's.
    """

    task: str
    name: str
    backbone: Path
    head: Path
    head_names: tuple[str, ...]
    own_head: bool

    def read_head(self) -> dict[str, Tensor]:
        """The head's tensors by their names in the file, float32.

        Raises:
            BundleError: one of them isn't finite.
        """
        tensors = read_weights(self.head, self.head_names)
        refuse_not_finite(tensors, self.head)
        return tensors


def open_checkpoint(bundle: Bundle, task: str, where: Path, *, allow_code: bool = False) -> Checkpoint:
    """Checks a checkpoint's header, or its bundle's description, against a bundle.

    Args:
        bundle: the bundle with the task, its backbone and its head.
        task: a sub-task.
        where: safetensors file in timm's naming, with or without the head; or folder of a bundle that has the task.
        allow_code: whether the head may be imported from the user's own package.

    Raises:
        UsageError: it is no such file or folder, or its network differs from the bundle's; the text names the task.
    """
    with _naming(f"--task {task}"):
        with torch.device("meta"):
            backbone = build_backbone(bundle)
            head = build_task_head(bundle, backbone, task, allow_code=allow_code)
        if where.is_dir():
            return _of_bundle(bundle, read_folder(where), task, backbone, head)
        return _of_file(bundle, where, task, backbone, head)


def base_file(bundle: Bundle, where: Path | None) -> Path:
    """File of the base's weights: the bundle's own, or another for the same backbone, with or without a classifier.

    Raises:
        UsageError: it doesn't fit.
    """
    if where is None:
        return bundle.backbone_file()
    with _naming("--base"):
        _refuse_no_weights(where)
        with torch.device("meta"):
            backbone = build_backbone(bundle)
        _check_network(bundle, backbone, where)
    return where


def load_backbone(bundle: Bundle, path: Path) -> Backbone:
    """A network of the bundle's architecture with the weights of a file that was checked.

    Raises:
        BundleError: a tensor is missing or has another shape, or isn't finite.
    """
    with torch.device("meta"):
        backbone = build_backbone(bundle)
    _check_network(bundle, backbone, path)
    load_part(backbone, path, "")
    refuse_not_finite(backbone.state_dict(), path)
    return backbone


def refuse_not_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuses tensors with NaN or infinity.

    Raises:
        BundleError: a tensor has one; the first such tensor is named.
    """
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            found = "NaN" if tensor.isnan().any() else "infinity"
            raise BundleError(f"weights {path}: {name}: expected finite numbers; found {found}")


def _of_file(bundle: Bundle, path: Path, task: str, backbone: Backbone, head: TokenHead) -> Checkpoint:
    _refuse_no_weights(path)
    shapes, names = _check_network(bundle, backbone, path), _head_names(head)
    heads = {name: shape for name, shape in shapes.items() if name.startswith(HEAD)}
    if not heads or (set(heads) <= _CLASSIFIER and not set(heads) & set(names)):
        check_task_weights(bundle, task, head)
        return Checkpoint(task, path.name, path, bundle.head_file(task), names, own_head=False)
    check_shapes(head, heads, path, HEAD)
    return Checkpoint(task, path.name, path, path, names, own_head=True)


def _of_bundle(bundle: Bundle, other: Bundle, task: str, backbone: Backbone, head: TokenHead) -> Checkpoint:
    known = other.entry.tasks
    if task not in known:
        raise BundleError(
            f"{other.folder}: expected a bundle with this task; found {', '.join(known)}{nearest(task, known)}"
        )
    if known[task].delta is not None:
        raise BundleError(
            f"{other.folder}: tasks.{task}: expected the network fine-tuned for it; found a delta of another"
        )
    _refuse_other_meaning(bundle, other, task)
    _check_network(bundle, backbone, other.backbone_file())
    check_task_weights(other, task, head)
    name = other.folder.resolve().name
    return Checkpoint(task, name, other.backbone_file(), other.head_file(task), _head_names(head), own_head=True)


def _head_names(head: TokenHead) -> tuple[str, ...]:
    return tuple(f"{HEAD}{name}" for name in head.state_dict())


def _check_network(bundle: Bundle, backbone: Backbone, path: Path) -> dict[str, tuple[int, ...]]:
    """Compares a file with the network, without regard to a head in it; returns the shapes of its tensors."""
    shapes = weight_shapes(path)
    try:
        check_shapes(backbone, shapes, path, "", (HEAD,))
    except BundleError as error:
        wanted = f"{bundle.entry.backbone.timm} as {bundle.name} has it, in timm's naming"
        raise BundleError(f"{error}; the network has to be {wanted}") from error
    return shapes


def _refuse_other_meaning(bundle: Bundle, other: Bundle, task: str) -> None:
    """Refuses a bundle that differs in a key that changes the meaning of tensors without changing their shapes."""
    ours, theirs = bundle.entry, other.entry
    compared = {
        "backbone.timm": (ours.backbone.timm, theirs.backbone.timm),
        "backbone.args": (ours.backbone.args, theirs.backbone.args),
        "input.mean": (ours.input.mean, theirs.input.mean),
        "input.std": (ours.input.std, theirs.input.std),
        f"tasks.{task}.channels": (bundle.kinds[task].channels, other.kinds[task].channels),
    }
    for key in _SAME_TASK:
        compared[f"tasks.{task}.{key}"] = (getattr(ours.tasks[task], key), getattr(theirs.tasks[task], key))
    for key, (expected, found) in compared.items():
        if expected != found:
            raise BundleError(
                f"{other.folder / 'bundle.yaml'}: {key}: expected {shown(expected)}; found {shown(found)}"
            )


def _refuse_no_weights(path: Path) -> None:
    if not path.exists():
        raise BundleError(f"expected {path}; found no such file or folder")
    if path.suffix != ".safetensors":
        raise BundleError(
            f"{path}: expected a .safetensors file; found {path.suffix or 'no suffix'}; pickles aren't opened, "
            "as they run code: save the tensors with safetensors.torch.save_file"
        )


@contextmanager
def _naming(option: str) -> Iterator[None]:
    """Turns errors about an option's file into usage errors that begin with the option."""
    try:
        yield
    except (BundleError, StageError) as error:
        raise UsageError(f"{option}: {error}") from error
