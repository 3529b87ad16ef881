"""What training learns from: every image of a part in every variant, with the truth of its cells.

Shape letters: F images, N tokens, Q cells of a patch, C colours or components, H and W pixels.
"""

import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deltascene.pipeline.bundle import Bundle
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.training.augment import is_mirrored, variant_of, vary
from deltascene.pipeline.training.cells import mirrored, truth_cells
from deltascene.pipeline.training.data import LabelledFolder
from deltascene.pipeline.training.recipe import Recipe
from deltascene.stages.preprocess import InputPlan, normalise, plan_input, resize_frame


@dataclass(frozen=True, slots=True)
class Samples:
    """Images of one part, each in so many variants: sample number = image number * variants + place among them.

    Attributes:
        bundle: says the input's form and the tasks.
        data: images and truth.
        stems: the images, in order.
        variants: of each (augment.py); 0 is the images as they are.
        seed: of the jitter.
        patch: side of a patch in pixels.
    """

    bundle: Bundle
    data: LabelledFolder
    stems: tuple[str, ...]
    variants: int
    seed: int
    patch: int

    @classmethod
    def of(cls, bundle: Bundle, data: LabelledFolder, part: str, recipe: Recipe, patch: int) -> "Samples":
        """Samples of a part; `train` alone is varied."""
        variants = recipe.variants if part == "train" else 0
        return cls(bundle, data, tuple(data.stems(part)), variants, recipe.seed, patch)

    def __len__(self) -> int:
        return len(self.stems) * max(1, self.variants)

    def picture(self, number: int) -> Tensor:
        """Normalised input [3, H, W]."""
        stem, variant = self._which(number)
        varied = vary(self.data.image(stem), variant, (self.seed, zlib.crc32(stem.encode())))
        wanted = self.bundle.entry.input
        return normalise(resize_frame(np.ascontiguousarray(varied), self._plan(varied)), wanted.mean, wanted.std)

    def size(self) -> tuple[int, int]:
        """Height and width of the inputs; all are as the first."""
        return self._plan(self.data.image(self.stems[0])).model_size

    def truth(self, number: int, task: str) -> NDArray[Any]:
        """Stored truth of a sample.

        Raises:
            UsageError: there is none, or it isn't of the input's size.
        """
        stem, variant = self._which(number)
        truth = self.data.truth(task, stem)
        if truth.shape[:2] != self.size():
            raise UsageError(
                f"{self.data.root / task}/{stem}: expected truth of the input's size, {self.size()}; "
                f"found {truth.shape[:2]}"
            )
        return mirrored(truth, self.bundle.kinds[task]) if is_mirrored(variant) else truth

    def cells(self, number: int, task: str, side: int) -> Tensor:
        """Truth of a sample's cells, [N, Q] or [N, Q, C]."""
        return torch.from_numpy(truth_cells(self.truth(number, task), self.bundle.kinds[task], self.patch, side))

    def _which(self, number: int) -> tuple[str, int]:
        """Stem and variant of a sample."""
        image, place = divmod(number, max(1, self.variants))
        return self.stems[image], variant_of(image, place) if self.variants else 0

    def _plan(self, image: NDArray[np.uint8]) -> InputPlan:
        wanted = self.bundle.entry.input
        return plan_input(
            (image.shape[0], image.shape[1]),
            self.patch,
            size=wanted.size,
            short_side=wanted.short_side,
            resize=wanted.resize,
        )


def batches_of(count: int, recipe: Recipe) -> list[NDArray[np.intp]]:
    """Numbers of the samples of every step, from the seed alone; a pass's rest that fills no batch is left out."""
    batch = min(recipe.batch, count)
    chosen = []
    for each in range(recipe.passes):
        order = np.random.default_rng([recipe.seed, each]).permutation(count)
        chosen += [order[start : start + batch] for start in range(0, count - batch + 1, batch)]
    return chosen[: recipe.steps or None]


def read_ahead(read: Any, wanted: Sequence[Any], depth: int = 3) -> Iterator[Any]:
    """`read(item)` of every item in order, some of them ahead in a thread."""
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(read, item) for item in wanted[:depth]]
        for place in range(len(wanted)):
            ready = waiting.pop(0).result()
            if place + depth < len(wanted):
                waiting.append(pool.submit(read, wanted[place + depth]))
            yield ready
