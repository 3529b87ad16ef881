"""Trains heads on a frozen backbone: `python -m deltascene.pipeline.training.train_heads DATA BUNDLE --work DIR`.

Token-wise heads see single tokens, so a step takes tokens of random images and every head learns from the same ones.
The run is resumable: features, and a checkpoint after every epoch, lie in the work folder; `log.jsonl` holds the curve.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deltascene.pipeline.bundle import Bundle, choose_tasks, read_bundle
from deltascene.pipeline.model import build_task_head, load_model
from deltascene.pipeline.training.cells import mirrored, truth_cells
from deltascene.pipeline.training.data import LabelledFolder, open_labelled
from deltascene.pipeline.training.features import extract
from deltascene.pipeline.training.loop import learning_rate, load_checkpoint, save_checkpoint, write_log
from deltascene.pipeline.training.losses import cell_loss
from deltascene.pipeline.weight_files import write_head
from deltascene.stages.heads import TokenHead

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Numbers of a training.

    Attributes:
        epochs: passes over all tokens.
        batch_images: images whose tokens make up a step.
        tokens: of them taken in a step.
        learning_rate: at its peak.
        weight_decay: of AdamW.
        seed: of everything random.
    """

    epochs: int = 10
    batch_images: int = 48
    tokens: int = 4096
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    seed: int = 0

    def rate(self, step: int, steps: int) -> float:
        """Learning rate at a step."""
        return learning_rate(self.learning_rate, step, steps)


@dataclass(frozen=True, slots=True)
class Samples:
    """Training data of one variant of the images: features [F, N, taps, D] and every task's cells [F, N, …]."""

    features: Array
    cells: Mapping[str, Array]


def load_samples(bundle: Bundle, tasks: Sequence[str], data: LabelledFolder, work: Path) -> list[Samples]:
    """Both variants of the training images, with the truth of some tasks."""
    backbone = load_model(bundle, ()).backbone
    stems = data.stems("train")
    samples = []
    for flip in (False, True):
        path = work / ("features_mirrored.npy" if flip else "features.npy")
        features = extract(
            bundle, backbone, data, stems, path, mirrored=flip, progress=lambda done, of: _say(f"features {done}/{of}")
        )
        cells = {}
        for task in tasks:
            kind, side = bundle.kinds[task], int(bundle.entry.tasks[task].head_args.get("side", 4))
            truths = (data.truth(task, stem) for stem in stems)
            cells[task] = np.stack(
                [truth_cells(mirrored(truth, kind) if flip else truth, kind, backbone.patch, side) for truth in truths]
            )
        samples.append(Samples(features.values, cells))
    return samples


def train(bundle: Bundle, heads: Mapping[str, TokenHead], samples: list[Samples], work: Path, recipe: Recipe) -> None:
    """Trains all heads together; goes on after the last finished epoch."""
    parameters = {f"{task}.{name}": value for task, head in heads.items() for name, value in head.named_parameters()}
    optimiser = torch.optim.AdamW(parameters.values(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    images = sum(len(sample.features) for sample in samples)
    steps = max(1, images * samples[0].features.shape[1] // recipe.tokens)
    path = work / "checkpoint.safetensors"
    begun = load_checkpoint(path, parameters, optimiser, asdict(recipe))
    taps = {
        task: [bundle.taps(list(bundle.entry.tasks)).index(tap) for tap in bundle.entry.tasks[task].taps]
        for task in heads
    }
    for epoch in range(begun, recipe.epochs):
        rng, began, sums = np.random.default_rng([recipe.seed, epoch]), time.perf_counter(), dict.fromkeys(heads, 0.0)
        for step in range(epoch * steps, (epoch + 1) * steps):
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(step, recipe.epochs * steps)
            x_RTD, truths = draw_tokens(samples, rng, recipe)
            optimiser.zero_grad(set_to_none=True)
            for task, head in heads.items():
                loss = cell_loss(head.cells(x_RTD[:, taps[task]]), truths[task], bundle.kinds[task])
                loss.backward()  # type: ignore[no-untyped-call]
                sums[task] += loss.item()
            optimiser.step()
        save_checkpoint(path, parameters, optimiser, epoch + 1, asdict(recipe))
        means = {task: round(total / steps, 5) for task, total in sums.items()}
        write_log(work, {"epoch": epoch + 1, "seconds": round(time.perf_counter() - began, 1), "loss": means})


def draw_tokens(samples: list[Samples], rng: np.random.Generator, recipe: Recipe) -> tuple[Tensor, dict[str, Tensor]]:
    """Random tokens of random images: features [R, taps, D] and every task's cells [R, …]."""
    sample = samples[rng.integers(len(samples))]
    images = np.sort(rng.choice(len(sample.features), min(recipe.batch_images, len(sample.features)), replace=False))
    tokens = sample.features.shape[1]
    share = max(1, recipe.tokens // len(images))
    x, places = [], []
    for image in images:
        place = np.sort(rng.choice(tokens, min(share, tokens), replace=False))
        places.append(place)
        x.append(sample.features[image][place])
    truths = {
        task: torch.from_numpy(
            np.concatenate([cells[image][place] for image, place in zip(images, places, strict=True)])
        )
        for task, cells in sample.cells.items()
    }
    return torch.from_numpy(np.concatenate(x)).float(), truths


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Train a bundle's heads on its frozen backbone.")
    parser.add_argument("data", type=Path, help="folder with images/, one folder per task, split.csv")
    parser.add_argument("bundle", help="packaged name or folder; its head files are replaced")
    parser.add_argument("--work", type=Path, required=True, help="folder for features, checkpoints and the log")
    parser.add_argument("--tasks", nargs="+", help="train these heads only")
    parser.add_argument("--go-on", action="store_true", help="start from the bundle's heads instead of anew")
    parser.add_argument("--epochs", type=int, default=Recipe().epochs)
    parser.add_argument("--learning-rate", type=float, default=Recipe().learning_rate)
    parser.add_argument("--seed", type=int, default=Recipe().seed)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    bundle = read_bundle(options.bundle)
    recipe = Recipe(epochs=options.epochs, learning_rate=options.learning_rate, seed=options.seed)
    torch.manual_seed(recipe.seed)
    tasks = choose_tasks(bundle, options.tasks)
    model = load_model(bundle, tasks if options.go_on else ())
    heads = model.heads or {task: build_task_head(bundle, model.backbone, task) for task in tasks}
    for head in heads.values():
        head.train().requires_grad_(True)
    train(bundle, heads, load_samples(bundle, tasks, open_labelled(options.data), options.work), options.work, recipe)
    for task, head in heads.items():
        write_head(bundle.head_file(task), head)
        _say(f"wrote {bundle.head_file(task)}")


if __name__ == "__main__":
    main()
