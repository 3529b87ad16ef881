"""The training loop of every step: resumable, with the same resulting weights however often it was interrupted."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deltascene.cache.keys import file_sha256
from deltascene.cache.places import write_whole
from deltascene.pipeline.training.activations import Activations
from deltascene.pipeline.training.loop import learning_rate, load_checkpoint, save_checkpoint, write_log
from deltascene.pipeline.training.losses import cell_loss
from deltascene.pipeline.training.recipe import Recipe
from deltascene.pipeline.training.samples import Samples, batches_of, read_ahead
from deltascene.pipeline.training.student import Student
from deltascene.stages.heads import activate, assemble, lay_out
from deltascene.stages.metrics import METRICS

CHECKPOINT = "checkpoint.safetensors"
LOGGED = 20  # steps between two lines of the log
GATE_RATE = 0.05  # learning rate of gates, whose values change the most

LogEvents = Callable[[Mapping[str, Any]], None]


def fit(
    student: Student,
    samples: Samples,
    judged: Samples | None,
    work: Path,
    recipe: Recipe,
    *,
    activations: Activations | None = None,
    device: torch.device | None = None,
    on_event: LogEvents = lambda event: None,
) -> int:
    """Trains a student, from its last checkpoint if there is one.

    Args:
        student: changed in place.
        samples: training samples.
        judged: samples for scoring.
        work: folder for `checkpoint.safetensors`, `recipe.json` and `log.jsonl`.
        recipe: hyperparameters.
        activations: of the frozen base at the student's points, for these samples; None computes them at every step.
        device: where to compute.
        on_event: called with every event of the log.

    Returns:
        Number of images seen in all passes together.
    """
    work.mkdir(parents=True, exist_ok=True)
    device = device or torch.device("cpu")
    student.to(device)
    parameters = student.parameters()
    optimiser = torch.optim.AdamW(_groups(student, parameters, recipe))
    batches, path = batches_of(len(samples), recipe), work / CHECKPOINT
    whole = (recipe.deciding(), _training(student, samples))
    done_before, steps = load_checkpoint(path, parameters, optimiser, *whole), len(batches)
    judgements = {steps * (number + 1) // recipe.judgements for number in range(recipe.judgements)}
    write_whole(work / "recipe.json", json.dumps(recipe.model_dump(), indent=1) + "\n")
    if done_before == 0:
        (work / "log.jsonl").unlink(missing_ok=True)  # of an earlier training
    saved = logged = time.perf_counter()
    losses: list[float] = []

    def log(event: Mapping[str, Any]) -> None:
        write_log(work, event)
        on_event(event)

    read = _reader(student, samples, activations)
    for step, batch in enumerate(read_ahead(read, batches[done_before:]), start=done_before):
        losses.append(_learn(student, batch, samples, optimiser, recipe, step, steps, device))
        now, done = time.perf_counter(), step + 1
        if done % LOGGED == 0 or done == steps:
            mean, pace = sum(losses) / len(losses), (now - logged) / len(losses)
            log({"step": done, "of": steps, "loss": round(mean, 5), "step_s": round(pace, 3), **_openness(student)})
            losses.clear()
            logged = now
        if done in judgements and judged is not None and recipe.judged:
            log({"step": done, "of": steps, "val": score(student, judged, recipe.judged, device)})
            logged = time.perf_counter()
        if done == steps or now - saved >= recipe.checkpoint_s:  # after the log, so that an interruption loses no line
            save_checkpoint(path, parameters, optimiser, done, *whole)
            saved = time.perf_counter()
    return sum(len(batch) for batch in batches)


@torch.no_grad()
def score(student: Student, samples: Samples, most: int, device: torch.device | None = None) -> dict[str, float]:
    """Metrics of the task on evenly spaced images, all tokens computed."""
    kind, device = student.bundle.kinds[student.task], device or torch.device("cpu")
    counter, grid = METRICS[kind.name](), student.grid(samples.size)
    gates = None if student.gates is None else student.gates.final()
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(most, len(samples))).round().astype(int))
    for number in chosen:
        points = student.embed(samples.picture(int(number))[None].to(device))
        raw_NX = student.cells(points, grid, gates=gates)[0].cpu()
        value = lay_out(
            activate(assemble(raw_NX, grid, kind.channels, student.head.side), kind.activation).numpy(), grid
        )
        counter.update(kind.decode(samples.truth(int(number), student.task)), value)
    return {name: round(value, 4) for name, value in counter.result().items()}


def _reader(student: Student, samples: Samples, activations: Activations | None) -> Callable[[Any], Any]:
    """Function that reads samples for a step: the truth of their cells, and their pictures or activations."""

    def read(numbers: Any) -> tuple[dict[str, Tensor], Tensor | dict[int, Tensor]]:
        cells = {
            task: torch.stack([samples.cells(number, task, head.side) for number in numbers])
            for task, head in student.heads.items()
        }
        if activations is not None:
            return cells, activations.read(numbers)
        return cells, torch.stack([samples.picture(number) for number in numbers])

    return read


def _learn(
    student: Student,
    batch: tuple[dict[str, Tensor], Tensor | dict[int, Tensor]],
    samples: Samples,
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
    step: int,
    steps: int,
    device: torch.device,
) -> float:
    """One step, random by the seed and the step's number alone; returns the loss of the student's own task."""
    truths, given = batch
    grid, generator = student.grid(samples.size), torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(group["peak"], step + 1, steps)
    kept_FM = _kept(len(truths[student.task]), grid.patches, recipe.keep_tokens, generator)
    if isinstance(given, Tensor):
        points = student.embed(given.to(device))
    else:
        points = {point: given[point].to(device) for point in student.points}
    gates = None if student.gates is None else student.gates.draw(generator)
    optimiser.zero_grad(set_to_none=True)
    raws = student.all_cells(points, grid, None if kept_FM is None else kept_FM.to(device), gates)
    losses = []
    for task, raw_FMX in raws.items():
        truth = truths[task] if kept_FM is None else _chosen(truths[task], kept_FM)
        kind = student.bundle.kinds[task]
        losses.append(cell_loss(raw_FMX.flatten(0, 1), truth.flatten(0, 1).to(device), kind))
    total = torch.stack(losses).sum()
    if student.gates is not None:
        total = total + recipe.gate_penalty * student.gates.penalty()
    total.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(student.parameters().values(), 1.0)
    optimiser.step()
    return losses[0].item()


def _chosen(truth: Tensor, kept_FM: Tensor) -> Tensor:
    """Truth of some patches of each image, [F, M, Q] or [F, M, Q, C]."""
    return torch.stack([cells[kept] for cells, kept in zip(truth, kept_FM, strict=True)])


def _kept(images: int, patches: int, share: float, generator: torch.Generator) -> Tensor | None:
    """Patches of each image that a step uses, increasing [F, M]; None is all."""
    if share == 1:
        return None
    count = max(1, round(share * patches))
    return torch.stack([torch.randperm(patches, generator=generator)[:count].sort().values for _ in range(images)])


def _groups(student: Student, parameters: Mapping[str, nn.Parameter], recipe: Recipe) -> list[dict[str, object]]:
    """Parameter groups: no weight decay on norms, biases, scales and positions; layer-wise learning rates."""
    groups: list[dict[str, object]] = []
    for name, parameter in parameters.items():
        if name == "gates":
            peak = GATE_RATE
        elif name.startswith("head."):
            peak = recipe.head_learning_rate
        else:
            layer = int(name.split(".")[1]) + 1 if name.startswith("blocks.") else 0
            peak = recipe.learning_rate * recipe.layer_decay ** (student.backbone.depth - layer)
        kept = parameter.dim() < 2 or name in student.backbone.undecayed_names()
        groups.append(
            {"params": [parameter], "lr": peak, "peak": peak, "weight_decay": 0.0 if kept else recipe.weight_decay}
        )
    return groups


def _training(student: Student, samples: Samples) -> dict[str, Any]:
    """Identity of what is trained on what; a checkpoint must have the same."""
    return {
        "task": student.task,
        "from block": student.first,
        "own blocks": len(student.blocks),
        "base": file_sha256(student.bundle.backbone_file()),
        **samples.identity(),
    }


def _openness(student: Student) -> dict[str, float]:
    if student.gates is None:
        return {}
    values = [value.item() for value in student.gates.final().values()]
    return {"open": round(sum(value > 0 for value in values) / len(values), 3)}
