"""Activations of a frozen base, computed once and kept on disk, so that a step computes only the blocks that it trains.

One file per block, `block_09.npy`: float16 [samples, tokens, width], the residual stream after that many blocks. The
computation is resumable; a folder belongs to one base, one set of samples and one input size.
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
from deltascene.cache.places import write_whole
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.training.samples import Samples, read_ahead
from deltascene.stages.backbone import Backbone
from deltascene.stages.rows import run_blocks

AT_ONCE = 32  # samples between two records of progress


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
    """Activations at some blocks; those missing in the folder are computed, from where an earlier call stopped.

    A pass starts from the last complete block before them in the folder, or from the pictures; an interrupted pass
    continues from the same start, so that the result is the same.

    Args:
        samples: the samples.
        backbone: the frozen base.
        blocks: numbers of blocks after which activations are kept.
        folder: where they are kept.
        progress: called with the number of samples done and in total.

    Raises:
        UsageError: the folder belongs to another base or other samples, or an activation is too large for float16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_other(folder / "activations.json", _key(samples))
    starts = _starts(folder, blocks, len(samples))
    for first in sorted(set(starts.values())):
        together = [block for block, start in starts.items() if start == first]
        _pass(samples, backbone, first, together, folder, progress)
    return Activations({block: np.load(_file(folder, block), mmap_mode="r") for block in blocks})


def begun_blocks(folder: Path) -> list[int]:
    """Blocks whose activations an earlier call kept, at least in part."""
    return sorted(int(path.stem.removeprefix("block_")) for path in folder.glob("block_*.done"))


def _starts(folder: Path, blocks: Sequence[int], count: int) -> dict[int, int]:
    """The incomplete blocks, each with the block from which its pass starts."""
    missing = [block for block in blocks if _mark(folder, block)[0] < count]
    earlier = [block for block in range(min(missing, default=0)) if _mark(folder, block)[0] == count]
    fresh = max(earlier, default=0)
    return {block: start if done else fresh for block in missing for done, start in [_mark(folder, block)]}


def _pass(
    samples: Samples,
    backbone: Backbone,
    first: int,
    blocks: Sequence[int],
    folder: Path,
    progress: Callable[[int, int], None],
) -> None:
    """Runs the remaining samples from one block to some later ones and writes the activations there."""
    grid = backbone.grid(samples.size)
    shape = (len(samples), grid.prefix + grid.patches, backbone.width)
    rest = range(min(_mark(folder, block)[0] for block in blocks), len(samples))
    files = {block: _open(folder, block, shape) for block in sorted(blocks, reverse=True)}
    start = _start(samples, backbone, folder, first)
    for number, x_ND in zip(rest, read_ahead(start, rest), strict=True):
        tapped = run_blocks(backbone.blocks[first:], x_ND, blocks, first=first)
        for block, values in files.items():
            values[number] = _narrowed(tapped[block], block)
        if (number + 1) % AT_ONCE == 0 or number + 1 == len(samples):
            for block, values in files.items():  # the last first, so that none is complete before later ones
                values.flush()
                write_whole(_mark_file(folder, block), f"{number + 1} {first}\n")
            progress(number + 1, len(samples))


def _start(samples: Samples, backbone: Backbone, folder: Path, block: int) -> Callable[[int], Tensor]:
    """Function that gives a sample's activations at the start of a pass: kept ones, or its picture's embedding."""
    if block:
        kept = np.load(_file(folder, block), mmap_mode="r")
        return lambda number: torch.from_numpy(kept[number].astype(np.float32))
    positions = backbone.positions(backbone.grid(samples.size))

    @torch.inference_mode()  # set per thread, and this runs in the thread that reads ahead
    def embed(number: int) -> Tensor:
        return backbone.embed(samples.picture(number), positions)

    return embed


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
        if found.get(name, value) != value:  # older folders lack some keys
            owner = "another base" if name == "base" else f"other {name}"
            raise UsageError(
                f"{path.parent}: activations of {owner}: expected {value[:12]}; found {str(found[name])[:12]}; "
                "name another folder, or remove this one"
            )


def _open(folder: Path, block: int, shape: tuple[int, int, int]) -> np.memmap[Any, np.dtype[np.float16]]:
    if _mark(folder, block)[0]:  # what is done stays valid where other blocks start at the first sample
        return np.lib.format.open_memmap(_file(folder, block), mode="r+")
    return np.lib.format.open_memmap(_file(folder, block), mode="w+", dtype=np.float16, shape=shape)


def _file(folder: Path, block: int) -> Path:
    return folder / f"block_{block:02d}.npy"


def _mark_file(folder: Path, block: int) -> Path:
    return folder / f"block_{block:02d}.done"


def _mark(folder: Path, block: int) -> tuple[int, int]:
    """Number of samples done of a block, and the block from which their pass started."""
    if not (_mark_file(folder, block).is_file() and _file(folder, block).is_file()):
        return 0, 0
    done, *start = map(int, _mark_file(folder, block).read_text().split())
    return done, start[0] if start else 0
