"""The frozen backbone's activations of a data set at the taps, computed once and kept on disk.

Every image is there as it is and, second, mirrored with jittered light and noise. The pass is resumable.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deltascene.pipeline.bundle import Bundle
from deltascene.pipeline.training.data import LabelledFolder
from deltascene.stages.backbone import Backbone
from deltascene.stages.base_task import run_base
from deltascene.stages.heads import stack_taps
from deltascene.stages.preprocess import normalise, plan_input, resize_frame
from deltascene.stages.types import Image


@dataclass(frozen=True, slots=True)
class Features:
    """Activations of some images.

    Attributes:
        values: float16 [F, N, taps, D], memory-mapped.
        taps: numbers of blocks run before each.
    """

    values: NDArray[np.float16]
    taps: tuple[int, ...]


@torch.inference_mode()
def extract(
    bundle: Bundle,
    backbone: Backbone,
    data: LabelledFolder,
    stems: Sequence[str],
    path: Path,
    *,
    mirrored: bool,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Features:
    """Runs the backbone over images, going on where an earlier call stopped.

    Args:
        bundle: says the input's form and, by its tasks, the taps.
        backbone: with its weights.
        data: images.
        stems: which of them, in order.
        path: of the array on disk (`.npy`); its progress is kept beside it.
        mirrored: the second, augmented variant.
        seed: of the augmentation.
        progress: told done and total.
    """
    entry, taps = bundle.entry.input, bundle.taps(list(bundle.entry.tasks))
    plan = plan_input(
        data.image(stems[0]).shape[:2],
        backbone.patch,
        size=entry.size,
        short_side=entry.short_side,
        resize=entry.resize,
    )
    grid = backbone.grid(plan.model_size)
    positions = backbone.positions(grid)
    shape = (len(stems), grid.patches, len(taps), backbone.width)
    mark = path.with_suffix(".done")
    done = int(mark.read_text()) if mark.is_file() and path.is_file() else 0
    values = np.lib.format.open_memmap(
        path, mode="r+" if done else "w+", dtype=np.float16, shape=None if done else shape
    )
    assert values.shape == shape, f"{path} belongs to another data set: {values.shape}, not {shape}"
    for number in range(done, len(stems)):
        image = data.image(stems[number])
        if mirrored:
            image = jitter(image[:, ::-1], np.random.default_rng([seed, number]))
        pixels = normalise(resize_frame(np.ascontiguousarray(image), plan), entry.mean, entry.std)
        tapped = run_base(backbone, backbone.embed(pixels, positions), taps)
        values[number] = stack_taps(tapped, taps, grid.prefix).numpy().astype(np.float16)
        if number % 50 == 49 or number == len(stems) - 1:
            values.flush()
            mark.write_text(str(number + 1))
            progress(number + 1, len(stems))
    return Features(values, taps)


def jitter(image: Image, rng: np.random.Generator) -> Image:
    """Random gain, offset, gamma, colour cast and sensor noise; RGB [H, W, 3]."""
    light = (image / 255.0) ** rng.uniform(0.75, 1.35) * rng.uniform(0.75, 1.25, 3) * rng.uniform(0.75, 1.2)
    noisy = light * 255 + rng.uniform(-15, 15) + rng.normal(0, rng.uniform(0, 5), image.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
