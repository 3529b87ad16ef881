"""Weights on disk: safetensors files, whose headers are checked before a tensor is read.

A task's file may hold two parts: its head, `head.NAME`, and its delta, `delta.NAME`.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from deltascene.pipeline.errors import BundleError, OutputError
from deltascene.pipeline.text import one_line
from deltascene.stages.delta import DeltaWeights

HEAD = "head."
DELTA = "delta."
_FLOATS = ("F16", "BF16", "F32", "F64")


class Weighted(Protocol):
    """Target of loaded weights: a torch module, or a backbone."""

    def state_dict(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any], *, assign: bool = False) -> Any:
        """Takes tensors by name; `assign` keeps these tensors themselves."""
        ...


def weight_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a safetensors file's tensors by name; only its header is read.

    Raises:
        BundleError: the file is missing, isn't safetensors, or holds tensors of other types than floats.
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


def read_weights(path: Path, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """Tensors of a safetensors file as float32, in memory of their own.

    Args:
        path: the file.
        names: tensors to read; None is all of them.

    Raises:
        BundleError: the file is missing or isn't safetensors.
    """
    wanted = weight_shapes(path) if names is None else names
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name).to(torch.float32, copy=True) for name in wanted}


def load_exactly(module: Weighted, path: Path, prefix: str = "", others: tuple[str, ...] = ()) -> None:
    """Loads the weights of a file into a module.

    Args:
        module: a network or head; its tensors may be without memory.
        path: safetensors file.
        prefix: prefix of the module's names in the file.
        others: prefixes of other tensors that the file may hold.

    Raises:
        BundleError: as of `check_shapes`.
    """
    check_shapes(module, weight_shapes(path), path, prefix, others)
    load_part(module, path, prefix)


def load_part(module: Weighted, path: Path, prefix: str) -> None:
    """Loads a module's weights from a file that was checked; nothing else in the file is read."""
    weights = read_weights(path, [f"{prefix}{name}" for name in module.state_dict()])
    module.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in weights.items()}, assign=True)
    assert not any(tensor.is_meta for tensor in module.state_dict().values()), path


def check_shapes(
    module: Weighted,
    found: Mapping[str, tuple[int, ...]],
    path: Path,
    prefix: str = "",
    others: tuple[str, ...] = (),
) -> None:
    """Compares a file's header with what a module needs.

    Args:
        module: a network or head; its tensors may be without memory.
        found: shapes in the file.
        path: the file, for the error's text.
        prefix: prefix of the module's names in the file.
        others: prefixes of other tensors that the file may hold.

    Raises:
        BundleError: a tensor is missing, superfluous, or has another shape; the first of them is named.
    """
    check_part(module, found, path, prefix)
    wanted = {f"{prefix}{name}" for name in module.state_dict()}
    extra = sorted(name for name in set(found) - wanted if not name.startswith(others))
    if extra:
        expected = len(found) - len(extra)
        raise BundleError(f"weights {path}: expected {expected} tensors; found {len(extra)} more, first {extra[0]}")


def check_part(module: Weighted, found: Mapping[str, tuple[int, ...]], path: Path, prefix: str) -> None:
    """Checks as `check_shapes` does, for a file that may hold any other tensors.

    Raises:
        BundleError: a tensor is missing or has another shape.
    """
    for name, tensor in module.state_dict().items():
        wanted = f"{prefix}{name}"
        if wanted not in found:
            raise BundleError(f"weights {path}: expected tensor {wanted}; found none")
        if found[wanted] != tuple(tensor.shape):
            raise BundleError(f"weights {path}: {wanted}: expected shape {tuple(tensor.shape)}; found {found[wanted]}")


def delta_names(path: Path, others: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes of a file's delta tensors, by their names in the file.

    Args:
        path: safetensors file.
        others: prefixes of other tensors that the file may hold.

    Raises:
        BundleError: there are none, or the name of a tensor has none of these prefixes.
    """
    shapes = weight_shapes(path)
    for name in sorted(shapes):
        if not name.startswith((DELTA, *others)):
            expected = " or ".join(f"{prefix}NAME" for prefix in (DELTA, *others))
            raise BundleError(f"weights {path}: expected tensors {expected}; found {name}")
    found = {name: shape for name, shape in shapes.items() if name.startswith(DELTA)}
    if not found:
        raise BundleError(f"weights {path}: expected tensors {DELTA}NAME; found none")
    return found


def write_head(path: Path, head: nn.Module, dtype: torch.dtype = torch.float16) -> None:
    """Writes a head's weights as safetensors, under the names that `load_model` reads."""
    write_weights(path, _head_tensors(head, dtype))


def write_task(path: Path, head: nn.Module, delta: DeltaWeights, dtype: torch.dtype = torch.float16) -> None:
    """Writes a task's head and delta into one file."""
    write_weights(path, _head_tensors(head, dtype) | _delta_tensors(delta, dtype))


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file; at any time, even after a crash, readers see the complete file or the one before.

    Raises:
        OutputError: it can't be written.
    """
    partial = path.with_name(path.name + ".part")
    try:
        data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
        partial.write_bytes(data)  # unlike `save_file`, with the usual permissions
        partial.replace(path)
    except (SafetensorError, OSError) as error:
        with suppress(OSError):
            partial.unlink()
        raise OutputError(f"{path}: can't be written: {one_line(error)}") from error


def _head_tensors(head: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    return {f"{HEAD}{name}": tensor.to(dtype) for name, tensor in head.state_dict().items()}


def _delta_tensors(delta: DeltaWeights, dtype: torch.dtype) -> dict[str, Tensor]:
    return {f"{DELTA}{name}": tensor.to(dtype) for name, tensor in delta.to_tensors().items()}
