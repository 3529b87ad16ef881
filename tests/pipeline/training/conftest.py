"""A tiny labelled folder, made once per session, and orders for trainings of a few steps on it."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deltascene.pipeline.training.data import LabelledFolder, open_labelled
from deltascene.pipeline.training.recipe import Recipe
from deltascene.pipeline.training.samples import Samples
from deltascene.pipeline.training.steps import Order

# Four steps, a checkpoint after each, half of the tokens.
QUICK = {"batch": 4, "keep_tokens": 0.5, "rank": 2, "checkpoint_s": 0, "judged": 2, "learning_rate": 1e-3}


@pytest.fixture(scope="session")
def labelled(tmp_path_factory) -> LabelledFolder:
    """Squares on a ramp: class, height, direction and two heatmaps follow from the picture."""
    root = tmp_path_factory.mktemp("labelled")
    for name in ("images", "parts", "height", "flow", "hands"):
        (root / name).mkdir()
    rng, rows = np.random.default_rng(0), []
    for number in range(22):
        stem, left = f"a{number:02d}", int(rng.integers(0, 40))
        image = np.full((48, 64, 3), 60, np.uint8)
        inside = np.zeros((48, 64), bool)
        inside[8:40, left : left + 24] = True
        image[inside] = (230, 40, 40)
        Image.fromarray(image).save(root / "images" / f"{stem}.png")
        Image.fromarray(inside.astype(np.uint8) * 2).save(root / "parts" / f"{stem}.png")
        np.save(root / "height" / f"{stem}.npy", np.where(inside, 0.5, 4.0).astype(np.float16))
        flow = np.where(inside[..., None], (0, 0, 127), (0, 127, 0)).astype(np.int8)
        np.save(root / "flow" / f"{stem}.npy", flow)
        np.save(root / "hands" / f"{stem}.npy", np.stack([inside, ~inside], -1).astype(np.float16))
        part = "train" if number < 16 else "val" if number < 18 else "test"
        rows.append({"stem": stem, "split": part, "room": f"r{number // 2}"})
    with (root / "split.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["stem", "split", "room"])
        writer.writeheader()
        writer.writerows(rows)
    return open_labelled(root)


@pytest.fixture
def ordered(labelled, tmp_path) -> Callable[..., Order]:
    """`ordered("subtask", model, "out", "height", rank=4)`: a training of four steps; what is left is the recipe's."""

    def make(step, model, out, task=None, *, split=None, activations=None, data=None, device="cpu", **numbers) -> Order:
        recipe = Recipe(**{**QUICK, **numbers})
        return Order(step, data or labelled.root, str(model), tmp_path / out, recipe, task, split, activations, device)

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
