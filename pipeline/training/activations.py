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

from deltascene.cache.keys import file_sha256, fingerprint
from deltascene.cache.seal import write_whole
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.training.samples import Samples
from deltascene.stages.backbone import Backbone
from deltascene.stages.base_task import run_base

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

    Args:
        samples: whose.
        backbone: the frozen base.
        blocks: where, as the number of blocks run before.
        folder: where they are kept.
        progress: told done and total.

    Raises:
        UsageError: the folder belongs to something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = _key(samples)
    _refuse_other(folder / "activations.json", key)
    missing = [block for block in blocks if not _is_whole(folder, block, len(samples))]
    if missing:
        grid = backbone.grid(samples.size())
        positions, shape = backbone.positions(grid), (len(samples), grid.prefix + grid.patches, backbone.width)
        done = min(_done(folder, block) for block in missing)
        files = {block: _open(folder, block, shape, fresh=done == 0) for block in missing}
        for number in range(done, len(samples)):
            tapped = run_base(backbone, backbone.embed(samples.picture(number), positions), missing)
            for block, values in files.items():
                values[number] = tapped[block].numpy().astype(np.float16)
            if (number + 1) % AT_ONCE == 0 or number + 1 == len(samples):
                for block, values in files.items():
                    values.flush()
                    write_whole(_mark(folder, block), f"{number + 1}\n")
                progress(number + 1, len(samples))
    return Activations({block: np.load(_file(folder, block), mmap_mode="r") for block in blocks})


def _key(samples: Samples) -> dict[str, Any]:
    about = {"stems": list(samples.stems), "variants": samples.variants, "seed": samples.seed, "size": samples.size()}
    return {"base": file_sha256(samples.bundle.backbone_file()), "samples": fingerprint(about)}


def _refuse_other(path: Path, key: dict[str, Any]) -> None:
    if not path.is_file():
        write_whole(path, json.dumps(key, indent=1) + "\n")
        return
    found = json.loads(path.read_text())
    for name, value in key.items():
        if found.get(name) != value:
            raise UsageError(
                f"{path.parent}: activations of another {name}: expected {value[:12]}; "
                f"found {str(found.get(name))[:12]}; name another folder, or remove this one"
            )


def _open(
    folder: Path, block: int, shape: tuple[int, int, int], *, fresh: bool
) -> np.memmap[Any, np.dtype[np.float16]]:
    if not fresh:
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
