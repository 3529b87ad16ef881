"""Training samples: every image of a part in every variant, with the truth of its cells.

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

from deltascene.cache.keys import fingerprint
from deltascene.pipeline.bundles.bundle import Bundle
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.training.augment import is_mirrored, mirrored, variant_of, vary
from deltascene.pipeline.training.cells import truth_cells
from deltascene.pipeline.training.data import LabelledFolder, check_truth
from deltascene.pipeline.training.recipe import Recipe
from deltascene.stages.preprocess import normalise, resize_frame


@dataclass(frozen=True, slots=True)
class Samples:
    """Images of one part, each in several variants: sample number = image number * variants + place of the variant.

    Attributes:
        bundle: defines the input and the tasks.
        data: images and truth.
        stems: the images, in order.
        variants: number of variants of each (augment.py); 0 takes the images as they are.
        seed: of the jitter.
        patch: side of a patch in pixels.
        size: height and width of the model's input, the same for all images.
    """

    bundle: Bundle
    data: LabelledFolder
    stems: tuple[str, ...]
    variants: int
    seed: int
    patch: int
    size: tuple[int, int]

    @classmethod
    def of(cls, bundle: Bundle, data: LabelledFolder, part: str, recipe: Recipe, patch: int) -> "Samples":
        """Samples of a part; only `train` is augmented."""
        variants, stems = recipe.variants if part == "train" else 0, tuple(data.stems(part))
        size = bundle.input_plan(data.image(stems[0]).shape[:2], patch).model_size
        return cls(bundle, data, stems, variants, recipe.seed, patch, size)

    def __len__(self) -> int:
        return len(self.stems) * max(1, self.variants)

    def picture(self, number: int) -> Tensor:
        """Normalised input [3, H, W].

        Raises:
            UsageError: there is no image, or its input size differs from the others'.
        """
        stem, variant = self._which(number)
        varied = vary(self.data.image(stem), variant, (self.seed, zlib.crc32(stem.encode())))
        wanted, plan = self.bundle.entry.input, self.bundle.input_plan(varied.shape[:2], self.patch)
        if plan.model_size != self.size:
            raise UsageError(
                f"{self.data.image_file(stem)}: expected an image with an input size of {self.size}, that "
                f"of {self.stems[0]}; found {plan.model_size}"
            )
        return normalise(resize_frame(np.ascontiguousarray(varied), plan), wanted.mean, wanted.std)

    def truth(self, number: int, task: str) -> NDArray[Any]:
        """Stored truth of a sample.

        Raises:
            UsageError: there is none, or it hasn't the stored form of the task's kind at the input's size.
        """
        stem, variant = self._which(number)
        kind = self.bundle.kinds[task]
        truth = check_truth(self.data.truth(task, stem), kind, self.size, f"{self.data.root / task}/{stem}")
        return mirrored(truth, kind) if is_mirrored(variant) else truth

    def cells(self, number: int, task: str, side: int) -> Tensor:
        """Truth of a sample's cells [N, Q] or [N, Q, C]."""
        return torch.from_numpy(truth_cells(self.truth(number, task), self.bundle.kinds[task], self.patch, side))

    def _which(self, number: int) -> tuple[str, int]:
        """Stem and variant of a sample."""
        image, place = divmod(number, max(1, self.variants))
        return self.stems[image], variant_of(image, place) if self.variants else 0

    def identity(self) -> dict[str, str]:
        """Fingerprints of these samples (names and variants) and of their pictures as the model's input.

        Pictures are identified by the size of their files, as reading all of them takes long.
        """
        named = {"stems": list(self.stems), "variants": self.variants, "seed": self.seed, "size": self.size}
        sizes = [self.data.image_file(stem).stat().st_size for stem in self.stems]
        pictures = {"bytes": sizes, "input": self.bundle.entry.input.model_dump(mode="json")}
        return {"samples": fingerprint(named), "pictures": fingerprint(pictures)}


def batches_of(count: int, recipe: Recipe) -> list[NDArray[np.intp]]:
    """Sample numbers of every step, determined by the seed; the incomplete last batch of a pass is left out."""
    batch = min(recipe.batch, count)
    chosen = []
    for each in range(recipe.passes):
        order = np.random.default_rng([recipe.seed, each]).permutation(count)
        chosen += [order[start : start + batch] for start in range(0, count - batch + 1, batch)]
    return chosen[: recipe.steps or None]


def read_ahead(read: Any, wanted: Sequence[Any], depth: int = 3) -> Iterator[Any]:
    """`read(item)` of every item in order; the next ones are read ahead in a thread."""
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(read, item) for item in wanted[:depth]]
        for place in range(len(wanted)):
            ready = waiting.pop(0).result()
            if place + depth < len(wanted):
                waiting.append(pool.submit(read, wanted[place + depth]))
            yield ready
