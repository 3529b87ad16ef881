"""The training steps as `deltascene train` runs them: from a bundle and a labelled folder to a bundle.

| step | trained | comes out |
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
from deltascene.pipeline.text import one_line
from deltascene.pipeline.training.activations import Activations, begun, keep_activations
from deltascene.pipeline.training.data import open_labelled
from deltascene.pipeline.training.fit import CHECKPOINT, Said, fit
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
NEW: tuple[Step, ...] = ("base", "stl")  # steps that make a new backbone, and so a new bundle


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What is to be trained.

    Attributes:
        step: see the module.
        data: labelled folder.
        model: bundle to start from: a packaged name, a folder or an URL.
        out: folder of the bundle that comes out; for `subtask` and `frozen` it may be the model's own.
        recipe: numbers.
        task: which; None is the base.
        split: of the sub-task, if another than the bundle's.
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


def train_step(order: TrainRequest, say: Said = lambda event: None) -> Bundle:
    """Trains, or goes on where an earlier call of the same order stopped, and writes the bundle.

    Args:
        order: what.
        say: told every line of the log.

    Returns:
        The bundle, read back.

    Raises:
        UsageError: the order makes no sense for the bundle or the data.
    """
    source = read_bundle(order.model)
    bundle, task = _planned(source, order)
    if _is_finished(order):
        return read_folder(order.out)
    _refuse_loss(source, bundle, task, order)
    data, device = open_labelled(order.data), _device(order.device)
    student = STARTS[order.step](bundle, task, order.recipe)
    others = [name for name in bundle.entry.tasks if student.embeds and name != task]
    heads = {
        name: student.auxiliary.get(name) or new_head(bundle, student.backbone, name, order.recipe) for name in others
    }
    patch = student.backbone.patch
    samples = Samples.of(bundle, data, "train", order.recipe, patch)
    judged = Samples.of(bundle, data, "val", order.recipe, patch) if "val" in data.split.values() else None
    for name in student.heads:
        _check_data(samples, judged, name)
    work = work_folder(order)
    work.mkdir(parents=True, exist_ok=True)
    kept = None
    if order.activations is not None and not student.embeds:
        kept = _kept(samples, student, order.activations, say)
    seen = fit(student, samples, judged, work, order.recipe, activations=kept, device=device, say=say)
    student.to(torch.device("cpu"))
    _write(student, heads, order, {"images": seen, **_last_score(work)})
    (work / CHECKPOINT).unlink()
    return read_folder(order.out)


def work_folder(order: TrainRequest) -> Path:
    """Where a step keeps its checkpoint, its log and its recipe."""
    return order.out / "training" / (order.task if order.task and order.step in ("subtask", "frozen") else order.step)


def _planned(source: Bundle, order: TrainRequest) -> tuple[Bundle, str]:
    """The bundle as it is trained, and the task."""
    task, entry = order.task or source.entry.base, source.entry
    if task not in entry.tasks:
        raise UsageError(
            f"--task: expected one of {', '.join(entry.tasks)}; found {task!r}{nearest(task, entry.tasks)}"
        )
    if order.step == "base" and task != entry.base:
        raise UsageError(f"--task: expected the base, {entry.base}; found {task!r}; sub-tasks have `train subtask`")
    if order.step in ("subtask", "frozen") and task == entry.base:
        known = ", ".join(name for name in entry.tasks if name != entry.base)
        raise UsageError(
            f"--task: expected a sub-task of {source.name}, {known or 'which has none'}; found its base {task!r}"
        )
    if order.step == "stl":
        alone = entry.tasks[task].model_copy(update={"split": None, "delta": None, "weights": None})
        entry = changed_entry(entry, {"base": task, "tasks": {task: alone}}, "bundle")
    if order.split is not None:
        moved = entry.tasks[task].model_copy(update={"split": order.split})
        entry = changed_entry(entry, {"tasks": {**entry.tasks, task: moved}}, "bundle")
    return Bundle(source.folder, entry, {name: source.kinds[name] for name in entry.tasks}), task


def _is_finished(order: TrainRequest) -> bool:
    """Whether an earlier call made this new bundle and was cut before it could remove its checkpoint."""
    checkpoint = work_folder(order) / CHECKPOINT
    if order.step not in NEW or not checkpoint.is_file() or not (order.out / "bundle.yaml").is_file():
        return False
    if order.step not in _told(read_folder(order.out).entry):
        return False
    refuse_other_recipe(checkpoint, order.recipe.deciding())
    checkpoint.unlink()
    return True


def _refuse_loss(source: Bundle, bundle: Bundle, task: str, order: TrainRequest) -> None:
    """A step that makes a new backbone never writes over a bundle; the others only on the same base."""
    if not (order.out / "bundle.yaml").is_file():
        return
    if order.step in NEW:
        raise UsageError(f"{order.out}: expected a new folder; found a bundle; name another, or remove it")
    found = read_folder(order.out)
    if found.backbone_file().read_bytes() != source.backbone_file().read_bytes():
        raise UsageError(f"{order.out}: expected a bundle on the base of {order.model}; found one on another base")
    if found.entry.input != source.entry.input:
        raise UsageError(f"{order.out}: expected a bundle with the input of {order.model}; found another")
    _joined(found.entry, bundle, task)


def _joined(current: BundleEntry, bundle: Bundle, task: str) -> BundleEntry:
    """What a bundle says once it has the trained task, still without a delta."""
    trained = bundle.entry.tasks[task].model_copy(update={"delta": None})
    return changed_entry(current, {"tasks": {**current.tasks, task: trained}}, "bundle")


def _check_data(samples: Samples, judged: Samples | None, task: str) -> None:
    """What doesn't fit is said before any work: every file is looked for, the first of each part is read."""
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
    except (RuntimeError, AssertionError) as error:  # torch's words for a name, and for a build without that device
        raise UsageError(
            f"--device: expected cpu or a device of this torch; found {name!r}: {one_line(error)}"
        ) from error
    return device


def _kept(samples: Samples, student: Student, folder: Path, say: Said) -> Activations:
    """Activations for this student; in a new folder at every place where a task of the bundle could start or read."""
    entry = samples.bundle.entry
    others = begun(folder) or [*entry.archive.blocks, *samples.bundle.taps(list(entry.tasks))]
    wanted = sorted({*student.points, *others})
    kept = keep_activations(
        samples, student.backbone, wanted, folder, lambda done, total: say({"activations": done, "of": total})
    )
    return Activations({point: kept.blocks[point] for point in student.points})


def _write(student: Student, heads: Mapping[str, TokenHead], order: TrainRequest, evidence: Mapping[str, Any]) -> None:
    """The bundle's files, `bundle.yaml` last."""
    if student.embeds:
        _write_new(student, heads, order, evidence)
        return
    out, task = order.out, student.task
    if not (out / "bundle.yaml").is_file():
        _copy(student.bundle, out)
    entry = _joined(read_folder(out).entry, student.bundle, task)  # other tasks may have been trained meanwhile
    path = out / entry.head_weights(task)
    if order.step == "subtask":
        delta = student.delta()
        write_task(path, student.head, delta)
        trained = entry.tasks[task].model_copy(update={"delta": path.name if delta.tensors else None})
        entry = entry.model_copy(update={"tasks": {**entry.tasks, task: trained}})
        evidence = {**evidence, "open_blocks": list(open_blocks(delta))} if student.gates is not None else evidence
    else:
        write_head(path, student.head)
    told = {**entry.evidence, "training": {**_told(entry), task: dict(evidence)}}
    write_bundle(out, entry.model_copy(update={"evidence": told}))


def _write_new(
    student: Student, heads: Mapping[str, TokenHead], order: TrainRequest, evidence: Mapping[str, Any]
) -> None:
    """A bundle with a new backbone; of what the old one's evidence says, only the licence is still true."""
    entry, out = student.bundle.entry, order.out
    state = student.backbone.state_dict()
    write_weights(out / entry.backbone.weights, {name: tensor.half() for name, tensor in state.items()})
    for name, head in {**heads, student.task: student.head}.items():
        write_head(out / entry.head_weights(name), head)
    tasks = {name: task.model_copy(update={"delta": None}) for name, task in entry.tasks.items()}
    told = {key: value for key, value in entry.evidence.items() if key == "licence"}
    told["training"] = {order.step: dict(evidence)}
    write_bundle(out, entry.model_copy(update={"tasks": tasks, "evidence": told}))


def _told(entry: BundleEntry) -> dict[str, Any]:
    """What a bundle's evidence says of trainings; evidence is free, so it may hold anything there."""
    told = entry.evidence.get("training")
    return told if isinstance(told, dict) else {}


def _copy(bundle: Bundle, out: Path) -> None:
    for path in bundle.weight_files(list(bundle.entry.tasks)):
        shutil.copyfile(path, out / path.name)
    write_bundle(out, read_folder(bundle.folder).entry)


def _last_score(work: Path) -> dict[str, Any]:
    scores = [event["val"] for event in read_log(work / "log.jsonl") if "val" in event]
    return {"val": scores[-1]} if scores else {}
