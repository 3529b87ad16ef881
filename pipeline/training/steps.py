"""The training steps as `deltascene train` runs them: from a bundle and a labelled folder to a bundle.

| step | trained | result |
|---|---|---|
| base | backbone and the base's head | a bundle with that backbone; its sub-tasks are untrained |
| subtask | a delta from the task's split on, and its head | the bundle, with that task |
| frozen | a head on the frozen base | the bundle, with that task and without a delta of it (a reference) |
| stl | backbone and one head | a bundle of that task alone (a reference) |
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from deltascene.pipeline.bundles.bundle import Bundle, changed_entry, read_bundle, read_folder, write_bundle
from deltascene.pipeline.bundles.entry import BundleEntry
from deltascene.pipeline.bundles.weight_files import write_head, write_task, write_weights
from deltascene.pipeline.errors import UsageError, nearest
from deltascene.pipeline.numerics.plain_torch import plain_torch
from deltascene.pipeline.text import one_line
from deltascene.pipeline.training.activations import Activations, begun_blocks, keep_activations
from deltascene.pipeline.training.data import open_labelled
from deltascene.pipeline.training.fit import CHECKPOINT, LogEvents, fit
from deltascene.pipeline.training.loop import read_log, refuse_other_recipe
from deltascene.pipeline.training.recipe import Recipe
from deltascene.pipeline.training.samples import Samples
from deltascene.pipeline.training.student import (
    Student,
    new_head,
    open_blocks,
    start_frozen,
    start_network,
    start_subtask,
)
from deltascene.stages.heads import TokenHead

Step = Literal["base", "subtask", "frozen", "stl"]
STARTS: Mapping[Step, Callable[[Bundle, str, Recipe], Student]] = {
    "base": start_network,
    "stl": start_network,
    "frozen": start_frozen,
    "subtask": start_subtask,
}
NEW: tuple[Step, ...] = ("base", "stl")  # steps that train a new backbone, and so write a new bundle


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """Arguments of a training step.

    Attributes:
        step: see the module's docstring.
        data: labelled folder.
        model: bundle to start from: a packaged name, a folder or a URL.
        out: folder of the resulting bundle; for `subtask` and `frozen` it may be the model's own.
        recipe: hyperparameters.
        task: name of the task; None is the base.
        split: of the sub-task; None is the bundle's.
        activations: folder where the frozen base's activations are kept; None computes them at every step.
        device: where to compute.
    """

    step: Step
    data: Path
    model: str
    out: Path
    recipe: Recipe
    task: str | None = None
    split: int | None = None
    activations: Path | None = None
    device: str = "cpu"


@plain_torch()
def train_step(request: TrainRequest, on_event: LogEvents = lambda event: None) -> Bundle:
    """Trains, from where an earlier call of the same request stopped, and writes the bundle.

    Args:
        request: the request.
        on_event: called with every event of the log.

    Returns:
        The bundle, read back.

    Raises:
        UsageError: the request doesn't fit the bundle or the data.
    """
    source = read_bundle(request.model)
    bundle, task = _planned(source, request)
    if _is_finished(request):
        return read_folder(request.out)
    _refuse_overwriting(source, bundle, task, request)
    data, device = open_labelled(request.data), _device(request.device)
    student = STARTS[request.step](bundle, task, request.recipe)
    others = [name for name in bundle.entry.tasks if student.embeds and name != task]
    heads = {
        name: student.auxiliary.get(name) or new_head(bundle, student.backbone, name, request.recipe) for name in others
    }
    patch = student.backbone.patch
    samples = Samples.of(bundle, data, "train", request.recipe, patch)
    judged = Samples.of(bundle, data, "val", request.recipe, patch) if "val" in data.split.values() else None
    for name in student.heads:
        _check_data(samples, judged, name)
    work = work_folder(request)
    work.mkdir(parents=True, exist_ok=True)
    kept = None
    if request.activations is not None and not student.embeds:
        kept = _kept(samples, student, request.activations, on_event)
    seen = fit(student, samples, judged, work, request.recipe, activations=kept, device=device, on_event=on_event)
    student.to(torch.device("cpu"))
    _write(student, heads, request, {"images": seen, **_last_score(work)})
    (work / CHECKPOINT).unlink()
    return read_folder(request.out)


def work_folder(request: TrainRequest) -> Path:
    """Folder of a step's checkpoint, log and recipe."""
    return (
        request.out
        / "training"
        / (request.task if request.task and request.step in ("subtask", "frozen") else request.step)
    )


def _planned(source: Bundle, request: TrainRequest) -> tuple[Bundle, str]:
    """The bundle as it will be trained, and the task."""
    task, entry = request.task or source.entry.base, source.entry
    if task not in entry.tasks:
        raise UsageError(
            f"--task: expected one of {', '.join(entry.tasks)}; found {task!r}{nearest(task, entry.tasks)}"
        )
    if request.step == "base" and task != entry.base:
        raise UsageError(f"--task: expected the base, {entry.base}; found {task!r}; use `train subtask` for sub-tasks")
    if request.step in ("subtask", "frozen") and task == entry.base:
        known = ", ".join(name for name in entry.tasks if name != entry.base)
        raise UsageError(
            f"--task: expected a sub-task of {source.name}, {known or 'which has none'}; found its base {task!r}"
        )
    if request.step == "stl":
        alone = entry.tasks[task].model_copy(update={"split": None, "delta": None, "weights": None})
        entry = changed_entry(entry, {"base": task, "tasks": {task: alone}}, "bundle")
    if request.split is not None:
        moved = entry.tasks[task].model_copy(update={"split": request.split})
        entry = changed_entry(entry, {"tasks": {**entry.tasks, task: moved}}, "bundle")
    return Bundle(source.folder, entry, {name: source.kinds[name] for name in entry.tasks}), task


def _is_finished(request: TrainRequest) -> bool:
    """Whether an earlier call wrote this new bundle and was interrupted before it removed its checkpoint."""
    checkpoint = work_folder(request) / CHECKPOINT
    if request.step not in NEW or not checkpoint.is_file() or not (request.out / "bundle.yaml").is_file():
        return False
    if request.step not in _recorded_trainings(read_folder(request.out).entry):
        return False
    refuse_other_recipe(checkpoint, request.recipe.deciding())
    checkpoint.unlink()
    return True


def _refuse_overwriting(source: Bundle, bundle: Bundle, task: str, request: TrainRequest) -> None:
    """Raises where a new backbone would overwrite a bundle, or another step a bundle on another base."""
    if not (request.out / "bundle.yaml").is_file():
        return
    if request.step in NEW:
        raise UsageError(f"{request.out}: expected a new folder; found a bundle; name another, or remove it")
    found = read_folder(request.out)
    if found.backbone_file().read_bytes() != source.backbone_file().read_bytes():
        raise UsageError(f"{request.out}: expected a bundle on the base of {request.model}; found one on another base")
    if found.entry.input != source.entry.input:
        raise UsageError(f"{request.out}: expected a bundle with the input of {request.model}; found another")
    _joined(found.entry, bundle, task)


def _joined(current: BundleEntry, bundle: Bundle, task: str) -> BundleEntry:
    """A bundle's entry with the trained task, still without a delta."""
    trained = bundle.entry.tasks[task].model_copy(update={"delta": None})
    return changed_entry(current, {"tasks": {**current.tasks, task: trained}}, "bundle")


def _check_data(samples: Samples, judged: Samples | None, task: str) -> None:
    """Raises before any work where data is missing or doesn't fit: looks up all files, reads the first of each part."""
    for part in (samples, judged):
        if part is None:
            continue
        for stem in part.stems:
            part.data.image_file(stem)
            part.data.truth_file(task, stem)
        part.picture(0)
        part.truth(0, task)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # of unknown names, and of builds without that device
        raise UsageError(
            f"--device: expected cpu or a device of this torch; found {name!r}: {one_line(error)}"
        ) from error
    return device


def _kept(samples: Samples, student: Student, folder: Path, on_event: LogEvents) -> Activations:
    """Activations for this student; in a new folder, at every block where a task of the bundle may start or read."""
    entry = samples.bundle.entry
    others = begun_blocks(folder) or [*entry.archive.blocks, *samples.bundle.taps(list(entry.tasks))]
    wanted = sorted({*student.points, *others})
    kept = keep_activations(
        samples, student.backbone, wanted, folder, lambda done, total: on_event({"activations": done, "of": total})
    )
    return Activations({point: kept.blocks[point] for point in student.points})


def _write(
    student: Student, heads: Mapping[str, TokenHead], request: TrainRequest, evidence: Mapping[str, Any]
) -> None:
    """Writes the bundle's files, `bundle.yaml` last."""
    if student.embeds:
        _write_new(student, heads, request, evidence)
        return
    out, task = request.out, student.task
    if not (out / "bundle.yaml").is_file():
        _copy(student.bundle, out)
    entry = _joined(read_folder(out).entry, student.bundle, task)  # other tasks may have been trained in the meantime
    path = out / entry.head_weights(task)
    if request.step == "subtask":
        delta = student.delta()
        write_task(path, student.head, delta)
        trained = entry.tasks[task].model_copy(update={"delta": path.name if delta.tensors else None})
        entry = entry.model_copy(update={"tasks": {**entry.tasks, task: trained}})
        evidence = {**evidence, "open_blocks": list(open_blocks(delta))} if student.gates is not None else evidence
    else:
        write_head(path, student.head)
    recorded = {**entry.evidence, "training": {**_recorded_trainings(entry), task: dict(evidence)}}
    write_bundle(out, entry.model_copy(update={"evidence": recorded}))


def _write_new(
    student: Student, heads: Mapping[str, TokenHead], request: TrainRequest, evidence: Mapping[str, Any]
) -> None:
    """Writes a bundle with a new backbone; of the old evidence only the licence is kept, the rest is untrue of it."""
    entry, out = student.bundle.entry, request.out
    state = student.backbone.state_dict()
    write_weights(out / entry.backbone.weights, {name: tensor.half() for name, tensor in state.items()})
    for name, head in {**heads, student.task: student.head}.items():
        write_head(out / entry.head_weights(name), head)
    tasks = {name: task.model_copy(update={"delta": None}) for name, task in entry.tasks.items()}
    kept = {key: value for key, value in entry.evidence.items() if key == "licence"}
    kept["training"] = {request.step: dict(evidence)}
    write_bundle(out, entry.model_copy(update={"tasks": tasks, "evidence": kept}))


def _recorded_trainings(entry: BundleEntry) -> dict[str, Any]:
    """Trainings recorded in a bundle's evidence; empty where a foreign bundle has something else there."""
    recorded = entry.evidence.get("training")
    return recorded if isinstance(recorded, dict) else {}


def _copy(bundle: Bundle, out: Path) -> None:
    for path in bundle.weight_files(list(bundle.entry.tasks)):
        shutil.copyfile(path, out / path.name)
    write_bundle(out, read_folder(bundle.folder).entry)


def _last_score(work: Path) -> dict[str, Any]:
    scores = [event["val"] for event in read_log(work / "log.jsonl") if "val" in event]
    return {"val": scores[-1]} if scores else {}
