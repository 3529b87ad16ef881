"""Orders for trainings of a few steps on the tiny labelled folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deltascene.pipeline.training.recipe import Recipe
from deltascene.pipeline.training.samples import Samples
from deltascene.pipeline.training.steps import TrainRequest

# Four steps, a checkpoint after each, half of the tokens.
QUICK = {"batch": 4, "keep_tokens": 0.5, "rank": 2, "checkpoint_s": 0, "judged": 2, "learning_rate": 1e-3}


@pytest.fixture
def ordered(labelled, tmp_path) -> Callable[..., TrainRequest]:
    """`ordered("subtask", model, "out", "height", rank=4)`: a training of four steps; what is left is the recipe's."""

    def make(
        step, model, out, task=None, *, split=None, activations=None, data=None, device="cpu", **numbers
    ) -> TrainRequest:
        recipe = Recipe(**{**QUICK, **numbers})
        return TrainRequest(
            step, data or labelled.root, str(model), tmp_path / out, recipe, task, split, activations, device
        )

    return make


@pytest.fixture
def samples_of(labelled) -> Callable[..., Samples]:
    """`samples_of(bundle, "train", variants=2)`: samples of the labelled folder."""

    def make(bundle, part="train", data=labelled, **numbers) -> Samples:
        return Samples.of(bundle, data, part, Recipe(**{**QUICK, **numbers}), 16)

    return make


@pytest.fixture
def written() -> Callable[[Path], dict[str, bytes]]:
    """Bytes of a bundle's files by name, those of its trainings left out."""
    return lambda folder: {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
