"""Labelled images as they go into a training step: augmented anew at every draw, each with the truth of its cells.

Shape letters: F images, N patch tokens of an image, C colours, H and W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deltascene.pipeline.bundle import Bundle
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.training.cells import mirrored, truth_cells
from deltascene.pipeline.training.data import LabelledFolder
from deltascene.pipeline.training.features import jitter
from deltascene.stages.preprocess import normalise, plan_input, resize_frame


@dataclass(frozen=True, slots=True)
class TaskImages:
    """The images of a data set as one task of a bundle sees them.

    Attributes:
        bundle: says the input's form.
        task: whose truth.
        data: images and truth.
        patch: side of a patch in pixels.
        side: cells along a patch's side.
    """

    bundle: Bundle
    task: str
    data: LabelledFolder
    patch: int
    side: int

    def draw(self, stems: Sequence[str], rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """Some images and their truth.

        Args:
            stems: which.
            rng: mirrors half of them, and jitters light and noise of half of them; None changes nothing.

        Returns:
            Model input [F, 3, H, W], and stored truth of the cells [F, N, K*K] or [F, N, K*K, components].
        """
        kind, pictures, cells = self.bundle.kinds[self.task], [], []
        for stem in stems:
            image, truth = self.data.image(stem), self.truth(stem)
            if rng is not None and rng.random() < 0.5:
                image, truth = image[:, ::-1], mirrored(truth, kind)
            if rng is not None and rng.random() < 0.5:
                image = jitter(image, rng)
            pictures.append(self._input(image))
            self._refuse_other_size(stem, truth, pictures[-1])
            cells.append(truth_cells(truth, kind, self.patch, self.side))
        return torch.stack(pictures), torch.from_numpy(np.stack(cells))

    def truth(self, stem: str) -> NDArray[Any]:
        """Stored truth of an image at the input's size."""
        return self.data.truth(self.task, stem)

    def _input(self, image: NDArray[np.uint8]) -> Tensor:
        wanted = self.bundle.entry.input
        plan = plan_input(
            (image.shape[0], image.shape[1]),
            self.patch,
            size=wanted.size,
            short_side=wanted.short_side,
            resize=wanted.resize,
        )
        return normalise(resize_frame(np.ascontiguousarray(image), plan), wanted.mean, wanted.std)

    def _refuse_other_size(self, stem: str, truth: NDArray[Any], picture_CHW: Tensor) -> None:
        expected, found = tuple(picture_CHW.shape[1:]), truth.shape[:2]
        if expected != found:
            raise UsageError(
                f"{self.data.root / self.task}/{stem}: expected truth of the input's size, {expected}; found {found}"
            )
