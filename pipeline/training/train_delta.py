"""Trains delta weights: `python -m deltascene.pipeline.training.train_delta DATA BUNDLE --task NAME --work DIR`.

The base is frozen. Trained are a low-rank delta of every linear layer from the split on, dense deltas of all other
tensors there, and the head, which starts from the bundle's. The run is resumable: a checkpoint every few minutes, and
every step's images are drawn from the seed and its number alone. `log.jsonl` holds the curve.
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from deltascene.pipeline.bundle import Bundle, read_bundle, write_bundle
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.model import load_model
from deltascene.pipeline.training.data import open_labelled
from deltascene.pipeline.training.images import TaskImages
from deltascene.pipeline.training.loop import learning_rate, load_checkpoint, save_checkpoint, write_log
from deltascene.pipeline.training.losses import cell_loss
from deltascene.pipeline.weight_files import write_task
from deltascene.stages.backbone import Backbone
from deltascene.stages.delta import DeltaWeights, difference, start_delta
from deltascene.stages.heads import TokenHead, activate, assemble, lay_out, run_head
from deltascene.stages.metrics import METRICS
from deltascene.stages.sub_task import SubTask, build_sub_task
from deltascene.stages.types import TokenGrid


@dataclass(frozen=True, slots=True)
class Recipe:
    """Numbers of a training.

    Attributes:
        rank: of every low-rank delta.
        epochs: passes over all images.
        batch: images of a step.
        learning_rate: at its peak.
        weight_decay: of AdamW on the low-rank factors and the head's matrices; it draws the delta to zero.
        seed: of everything random.
    """

    rank: int = 16
    epochs: int = 2
    batch: int = 8
    learning_rate: float = 3e-4
    weight_decay: float = 0.02
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trainee:
    """A sub-task that is being trained.

    Attributes:
        bundle: where it belongs.
        task: its name.
        backbone: the frozen base.
        sub: its blocks, low-rank products beside the base's weights.
        head: its head.
    """

    bundle: Bundle
    task: str
    backbone: Backbone
    sub: SubTask
    head: TokenHead

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name: all that isn't the base's own."""
        base = {id(parameter) for parameter in self.backbone.vit.parameters()}
        named = {f"head.{name}": parameter for name, parameter in self.head.named_parameters()}
        for number, block in enumerate(self.sub.blocks, start=self.sub.split):
            for name, parameter in block.named_parameters():
                if id(parameter) not in base:
                    named[f"blocks.{number}.{name}"] = parameter
        return named

    def delta(self) -> DeltaWeights:
        """The delta weights so far."""
        return difference(self.sub.blocks, self.backbone.blocks, self.sub.split)

    def cells(self, input_FCHW: Tensor) -> Tensor:
        """The head's raw cells of some images [F, N, C*K*K]."""
        grid = self.grid(input_FCHW)
        with torch.no_grad():
            positions = self.backbone.positions(grid)
            x_FND = torch.stack([self.backbone.embed(image, positions) for image in input_FCHW])
            for block in self.backbone.blocks[: self.sub.split]:
                x_FND = block(x_FND)
        tapped = {self.sub.split: x_FND}
        for number, block in enumerate(self.sub.blocks, start=self.sub.split + 1):
            x_FND = tapped[number] = block(x_FND)
        taps = self.bundle.entry.tasks[self.task].taps
        taps_FNTD = torch.stack([tapped[tap][:, grid.prefix :] for tap in taps], dim=2)
        return torch.stack([run_head(self.head, taps_NTD, grid, None) for taps_NTD in taps_FNTD])

    def grid(self, input_FCHW: Tensor) -> TokenGrid:
        """Token grid of an input."""
        return self.backbone.grid((input_FCHW.shape[2], input_FCHW.shape[3]))


def start_trainee(bundle: Bundle, task: str, recipe: Recipe) -> Trainee:
    """A sub-task whose delta is still zero, with the head that the bundle has.

    Raises:
        UsageError: the task is the base, or another than the bundle's.
    """
    entry = bundle.entry.tasks.get(task)
    if entry is None or entry.split is None:
        known = ", ".join(name for name, other in bundle.entry.tasks.items() if other.split is not None)
        raise UsageError(f"--task: expected a sub-task of {bundle.name}, {known}; found {task!r}")
    model = load_model(bundle, [task])
    model.backbone.vit.requires_grad_(False)
    delta = start_delta(model.backbone.blocks, entry.split, recipe.rank, torch.Generator().manual_seed(recipe.seed))
    sub = build_sub_task(model.backbone, entry.split, delta, merged=False)
    trainee = Trainee(bundle, task, model.backbone, sub, model.heads[task])
    for parameter in trainee.parameters().values():
        parameter.requires_grad_(True)
    return trainee


def train(
    trainee: Trainee, images: TaskImages, work: Path, recipe: Recipe, *, judged: int = 60, checkpoint_s: float = 180
) -> None:
    """Trains delta and head; goes on after the last checkpoint.

    Args:
        trainee: changed in place.
        images: part `train` is learned from; part `val`, if there is one, is scored before and after every epoch.
        work: folder for checkpoint and log.
        recipe: numbers.
        judged: images of `val` that are scored.
        checkpoint_s: seconds between checkpoints.
    """
    parameters, stems = trainee.parameters(), images.data.stems("train")
    optimiser = torch.optim.AdamW(_groups(parameters, recipe), lr=recipe.learning_rate)
    an_epoch = max(1, len(stems) // recipe.batch)
    steps, path = recipe.epochs * an_epoch, work / "checkpoint.safetensors"
    begun = load_checkpoint(path, parameters, optimiser, asdict(recipe))
    if begun == 0:
        write_log(work, {"epoch": 0, "val": score(trainee, images, "val", judged)})
    saved = told = time.perf_counter()
    losses: list[float] = []
    for step in range(begun, steps):
        losses.append(_learn(trainee, images, stems, optimiser, recipe, step, steps))
        now, is_epoch = time.perf_counter(), (step + 1) % an_epoch == 0
        if is_epoch or now - saved >= checkpoint_s:
            save_checkpoint(path, parameters, optimiser, step + 1, asdict(recipe))
            saved = now
        if is_epoch or len(losses) == 20:
            spent, mean = (now - told) / len(losses), sum(losses) / len(losses)
            write_log(work, {"step": step + 1, "of": steps, "loss": round(mean, 5), "step_s": round(spent, 2)})
            losses.clear()
            told = now
        if is_epoch:
            write_log(work, {"epoch": (step + 1) // an_epoch, "val": score(trainee, images, "val", judged)})
            told = time.perf_counter()


@torch.no_grad()
def score(trainee: Trainee, images: TaskImages, part: str, most: int) -> dict[str, float]:
    """Measures of the task on evenly chosen images of a part; none where there is no such part."""
    if part not in images.data.split.values():
        return {}
    stems, kind = images.data.stems(part), trainee.bundle.kinds[trainee.task]
    counter = METRICS[kind.name]()
    for place in np.unique(np.linspace(0, len(stems) - 1, min(most, len(stems))).round().astype(int)):
        input_FCHW, _ = images.draw([stems[place]], None)
        grid = trainee.grid(input_FCHW)
        drawn = assemble(trainee.cells(input_FCHW)[0], grid, kind.channels, trainee.head.side)
        value = lay_out(activate(drawn, kind.activation).numpy(), grid)
        counter.update(kind.decode(images.truth(stems[place])), value)
    return {name: round(number, 4) for name, number in counter.result().items()}


def _learn(
    trainee: Trainee,
    images: TaskImages,
    stems: list[str],
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
    step: int,
    steps: int,
) -> float:
    """One step; its images and their augmentation follow from the seed and its number."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(recipe.learning_rate, step + 1, steps)
    epoch, place = divmod(step, max(1, len(stems) // recipe.batch))
    order = np.random.default_rng([recipe.seed, epoch]).permutation(len(stems))
    chosen = [stems[number] for number in order[place * recipe.batch : (place + 1) * recipe.batch]]
    input_FCHW, truth = images.draw(chosen, np.random.default_rng([recipe.seed, epoch, place]))
    optimiser.zero_grad(set_to_none=True)
    loss = cell_loss(trainee.cells(input_FCHW).flatten(0, 1), truth.flatten(0, 1), trainee.bundle.kinds[trainee.task])
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return loss.item()


def _groups(parameters: Mapping[str, nn.Parameter], recipe: Recipe) -> list[dict[str, object]]:
    """Norms, biases and scales are started from the base's and aren't drawn to zero."""
    return [
        {"params": [parameter], "weight_decay": recipe.weight_decay if parameter.dim() > 1 else 0.0}
        for parameter in parameters.values()
    ]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Train the delta weights of a bundle's sub-task; its base is frozen.")
    parser.add_argument("data", type=Path, help="folder with images/, one folder per task, split.csv")
    parser.add_argument("bundle", help="folder; the task's weights are replaced, its entry gets the delta")
    parser.add_argument("--task", required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoint and log")
    parser.add_argument("--judged", type=int, default=60, help="images of part val that are scored after an epoch")
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(**{name: getattr(options, name) for name in asdict(Recipe())})
    bundle = read_bundle(options.bundle)
    trainee = start_trainee(bundle, options.task, recipe)
    images = TaskImages(bundle, options.task, open_labelled(options.data), trainee.backbone.patch, trainee.head.side)
    train(trainee, images, options.work, recipe, judged=options.judged)
    write_trained(trainee)


def write_trained(trainee: Trainee) -> None:
    """Puts delta and head into one file of the bundle, and the delta into its description."""
    bundle, task = trainee.bundle, trainee.task
    path = bundle.head_file(task)
    write_task(path, trainee.head, trainee.delta())
    entry = bundle.entry.tasks[task].model_copy(update={"delta": path.name})
    write_bundle(bundle.folder, bundle.entry.model_copy(update={"tasks": {**bundle.entry.tasks, task: entry}}))
    print(f"wrote {path}", flush=True)


if __name__ == "__main__":
    main()
