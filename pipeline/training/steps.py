"""The training steps as `deltascene train` runs them: from a bundle and a labelled folder to a bundle.

| step | trained | comes out |
|---|---|---|
| base | backbone and the base's head | a bundle with that backbone; its sub-tasks are untrained |
| subtask | a delta from the task's split on, and its head | the bundle, with that task |
| frozen | a head on the frozen base | the bundle, with that task and without a delta of it (a reference) |
| stl | backbone and one head | a bundle of that task alone (a reference) |
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from deltascene.cache.seal import write_whole
from deltascene.pipeline.bundle import Bundle, BundleEntry, read_bundle, read_folder, write_bundle
from deltascene.pipeline.errors import UsageError, nearest
from deltascene.pipeline.model import build_task_head
from deltascene.pipeline.training.activations import Activations, keep_activations
from deltascene.pipeline.training.data import LabelledFolder, open_labelled
from deltascene.pipeline.training.fit import Said, fit
from deltascene.pipeline.training.recipe import Recipe
from deltascene.pipeline.training.samples import Samples
from deltascene.pipeline.training.student import Student, open_blocks, start_frozen, start_network, start_subtask
from deltascene.pipeline.weight_files import write_head, write_task, write_weights

Step = Literal["base", "subtask", "frozen", "stl"]
STARTS: Mapping[Step, Callable[[Bundle, str, Recipe], Student]] = {
    "base": start_network,
    "stl": start_network,
    "frozen": start_frozen,
    "subtask": start_subtask,
}


@dataclass(frozen=True, slots=True)
class Order:
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


def train_step(order: Order, say: Said = lambda event: None) -> Bundle:
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
    _refuse_loss(source, order)
    data = open_labelled(order.data)
    student = STARTS[order.step](bundle, task, order.recipe)
    patch = student.backbone.patch
    samples = Samples.of(bundle, data, "train", order.recipe, patch)
    judged = Samples.of(bundle, data, "val", order.recipe, patch) if _has(data, "val") else None
    _check_data(samples, task)
    work = work_folder(order)
    work.mkdir(parents=True, exist_ok=True)
    kept = None
    if order.activations is not None and not student.embeds:
        kept = _kept(samples, student, order.activations, say)
    write_whole(work / "recipe.json", json.dumps(order.recipe.model_dump(), indent=1) + "\n")
    device = torch.device(order.device)
    fit(student, samples, judged, work, order.recipe, activations=kept, device=device, say=say)
    student.to(torch.device("cpu"))
    _write(student, order, {"images": len(samples) * order.recipe.passes, **_last_score(work)})
    (work / "checkpoint.safetensors").unlink()
    return read_folder(order.out)


def work_folder(order: Order) -> Path:
    """Where a step keeps its checkpoint, its log and its recipe."""
    return order.out / "training" / (order.task if order.task and order.step in ("subtask", "frozen") else order.step)


def _planned(source: Bundle, order: Order) -> tuple[Bundle, str]:
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
        entry = _checked(entry, {"base": task, "tasks": {task: alone}})
    if order.split is not None:
        moved = entry.tasks[task].model_copy(update={"split": order.split})
        entry = _checked(entry, {"tasks": {**entry.tasks, task: moved}})
    return Bundle(source.folder, entry, {name: source.kinds[name] for name in entry.tasks}), task


def _checked(entry: BundleEntry, changes: Mapping[str, Any]) -> BundleEntry:
    try:
        return BundleEntry.model_validate(entry.model_copy(update=changes).model_dump(exclude_unset=True))
    except ValueError as error:
        raise UsageError(f"bundle: {str(error).splitlines()[-1].strip()}") from error


def _refuse_loss(source: Bundle, order: Order) -> None:
    """A step that makes a new backbone never writes over a bundle; the others only on the same base."""
    there = (order.out / "bundle.yaml").is_file()
    if not there:
        return
    if order.step in ("base", "stl"):
        raise UsageError(f"{order.out}: expected a new folder; found a bundle; name another, or remove it")
    found = read_folder(order.out)
    if found.backbone_file().read_bytes() != source.backbone_file().read_bytes():
        raise UsageError(f"{order.out}: expected a bundle on the base of {order.model}; found one on another base")


def _check_data(samples: Samples, task: str) -> None:
    """Reads one image and its truth, so that what doesn't fit is said before any work."""
    samples.picture(0)
    samples.truth(0, task)


def _has(data: LabelledFolder, part: str) -> bool:
    return part in data.split.values()


def _kept(samples: Samples, student: Student, folder: Path, say: Said) -> Activations:
    """Activations for this student; in a new folder at every place where a task of the bundle could start or read."""
    bundle, is_new = samples.bundle, not (folder / "activations.json").is_file()
    others = {*bundle.entry.archive.blocks, *bundle.taps(list(bundle.entry.tasks))} if is_new else set[int]()
    wanted = sorted({*student.points, *others})
    kept = keep_activations(
        samples, student.backbone, wanted, folder, lambda done, total: say({"activations": done, "of": total})
    )
    return Activations({point: kept.blocks[point] for point in student.points})


def _write(student: Student, order: Order, evidence: Mapping[str, Any]) -> None:
    """The bundle's files, `bundle.yaml` last."""
    entry, out, task = student.bundle.entry, order.out, student.task
    if student.embeds:
        write_weights(out / entry.backbone.weights, {n: t.half() for n, t in student.backbone.vit.state_dict().items()})
        entry = entry.model_copy(update={"evidence": {"training": {order.step: dict(evidence)}}})
        for name in entry.tasks:
            entry = _without_delta(entry, name)
            head = student.head if name == task else build_task_head(student.bundle, student.backbone, name)
            write_head(out / entry.head_weights(name), head)
        write_bundle(out, entry)
        return
    if not (out / "bundle.yaml").is_file():
        _copy(student.bundle, out)
    current = read_folder(out).entry  # other tasks may have been trained meanwhile
    entry = current.model_copy(update={"tasks": {**current.tasks, task: entry.tasks[task]}})
    entry = _without_delta(entry, task)
    path = out / entry.head_weights(task)
    if order.step == "subtask":
        delta = student.delta()
        write_task(path, student.head, delta)
        trained = entry.tasks[task].model_copy(update={"delta": path.name if delta.tensors else None})
        entry = entry.model_copy(update={"tasks": {**entry.tasks, task: trained}})
        evidence = {**evidence, "open_blocks": list(open_blocks(delta))} if student.gates is not None else evidence
    else:
        write_head(path, student.head)
    told = {**entry.evidence, "training": {**entry.evidence.get("training", {}), task: dict(evidence)}}
    write_bundle(out, entry.model_copy(update={"evidence": told}))


def _without_delta(entry: BundleEntry, task: str) -> BundleEntry:
    plain = entry.tasks[task].model_copy(update={"delta": None})
    return entry.model_copy(update={"tasks": {**entry.tasks, task: plain}})


def _copy(bundle: Bundle, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for path in bundle.weight_files(list(bundle.entry.tasks)):
        shutil.copyfile(path, out / path.name)
    shutil.copyfile(bundle.folder / "bundle.yaml", out / "bundle.yaml")


def _last_score(work: Path) -> dict[str, Any]:
    events = [json.loads(line) for line in (work / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    scores = [event["val"] for event in events if "val" in event]
    return {"val": scores[-1]} if scores else {}
