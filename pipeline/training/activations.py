"""A frozen base's activations of samples, computed once and kept on disk, so that each step starts where it trains.

One file a block, `block_09.npy`: float16 [samples, tokens, width], the residual stream after so many blocks. The pass
is resumable; a folder belongs to one base, one set of samples and one input size.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deltascene.cache.keys import file_sha256
from deltascene.cache.seal import write_whole
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.training.samples import Samples, read_ahead
from deltascene.stages.backbone import Backbone
from deltascene.stages.rows import run_blocks

AT_ONCE = 32  # samples between two marks of progress


@dataclass(frozen=True, slots=True)
class Activations:
    """Kept activations.

    Attributes:
        blocks: by the number of blocks run before, memory-mapped float16 [samples, N, D].
    """

    blocks: dict[int, NDArray[np.float16]]

    def read(self, numbers: Sequence[int] | NDArray[np.intp]) -> dict[int, Tensor]:
        """Activations of some samples as float32 [F, N, D], by block."""
        return {
            block: torch.from_numpy(np.stack([values[number] for number in numbers]).astype(np.float32))
            for block, values in self.blocks.items()
        }


@torch.inference_mode()
def keep_activations(
    samples: Samples,
    backbone: Backbone,
    blocks: Sequence[int],
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Activations:
    """Activations at some blocks; what isn't in the folder yet is computed, going on where an earlier call stopped.

    The pass begins at the last block before them that the folder has whole, or at the pictures.

    Args:
        samples: whose.
        backbone: the frozen base.
        blocks: where, as the number of blocks run before.
        folder: where they are kept.
        progress: told done and total.

    Raises:
        UsageError: the folder belongs to something else, or an activation is too large for float16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = _key(samples)
    _refuse_other(folder / "activations.json", key)
    missing = [block for block in blocks if not _is_whole(folder, block, len(samples))]
    if missing:
        first = max((block for block in range(min(missing)) if _is_whole(folder, block, len(samples))), default=0)
        start, grid = _start(samples, backbone, folder, first), backbone.grid(samples.size)
        shape = (len(samples), grid.prefix + grid.patches, backbone.width)
        rest = range(min(_done(folder, block) for block in missing), len(samples))
        files = {block: _open(folder, block, shape) for block in missing}
        for number, x_ND in zip(rest, read_ahead(start, rest), strict=True):
            tapped = run_blocks(backbone.blocks[first:], x_ND, {block - first for block in missing})
            for block, values in files.items():
                values[number] = _narrowed(tapped[block - first], block)
            if (number + 1) % AT_ONCE == 0 or number + 1 == len(samples):
                for block, values in files.items():
                    values.flush()
                    write_whole(_mark(folder, block), f"{number + 1}\n")
                progress(number + 1, len(samples))
    return Activations({block: np.load(_file(folder, block), mmap_mode="r") for block in blocks})


def begun(folder: Path) -> list[int]:
    """Blocks whose activations an earlier call kept, or began to."""
    return sorted(int(path.stem.removeprefix("block_")) for path in folder.glob("block_*.done"))


def _start(samples: Samples, backbone: Backbone, folder: Path, block: int) -> Callable[[int], Tensor]:
    """Where the pass begins for a sample: the embedding of its picture, or what is kept of an earlier block."""
    if block:
        kept = np.load(_file(folder, block), mmap_mode="r")
        return lambda number: torch.from_numpy(kept[number].astype(np.float32))
    positions = backbone.positions(backbone.grid(samples.size))
    return lambda number: backbone.embed(samples.picture(number), positions)


def _key(samples: Samples) -> dict[str, Any]:
    return {"base": file_sha256(samples.bundle.backbone_file()), **samples.identity()}


def _narrowed(x_ND: Tensor, block: int) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        narrow = x_ND.numpy().astype(np.float16)
    if not np.isfinite(narrow).all():
        raise UsageError(
            f"--activations: expected activations after block {block} within float16, ±65504; "
            f"found {x_ND.abs().max():.3g}; leave the option out"
        )
    return narrow


def _refuse_other(path: Path, key: dict[str, Any]) -> None:
    if not path.is_file():
        write_whole(path, json.dumps(key, indent=1) + "\n")
        return
    found = json.loads(path.read_text())
    for name, value in key.items():
        if found.get(name, value) != value:  # older folders don't say everything
            whose = "another base" if name == "base" else f"other {name}"
            raise UsageError(
                f"{path.parent}: activations of {whose}: expected {value[:12]}; found {str(found[name])[:12]}; "
                "name another folder, or remove this one"
            )


def _open(folder: Path, block: int, shape: tuple[int, int, int]) -> np.memmap[Any, np.dtype[np.float16]]:
    if _done(folder, block):  # its mark stays true, even where other blocks start at the first sample
        return np.lib.format.open_memmap(_file(folder, block), mode="r+")
    return np.lib.format.open_memmap(_file(folder, block), mode="w+", dtype=np.float16, shape=shape)


def _file(folder: Path, block: int) -> Path:
    return folder / f"block_{block:02d}.npy"


def _mark(folder: Path, block: int) -> Path:
    return folder / f"block_{block:02d}.done"


def _done(folder: Path, block: int) -> int:
    mark = _mark(folder, block)
    return int(mark.read_text()) if mark.is_file() and _file(folder, block).is_file() else 0


def _is_whole(folder: Path, block: int, count: int) -> bool:
    return _done(folder, block) == count
