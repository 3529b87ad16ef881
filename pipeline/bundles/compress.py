"""`deltascene compress`: a bundle whose sub-tasks are low-rank deltas of separately fine-tuned networks."""

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from deltascene.pipeline.bundles.bundle import Bundle, changed_entry, read_bundle, read_folder, write_bundle
from deltascene.pipeline.bundles.compress_inputs import Checkpoint, base_file, load_backbone, open_checkpoint
from deltascene.pipeline.bundles.new_folder import filled_or_emptied, refuse_full
from deltascene.pipeline.bundles.weight_files import DELTA, weight_shapes, write_weights
from deltascene.pipeline.errors import UsageError, nearest
from deltascene.stages.backbone import Backbone
from deltascene.stages.delta import DeltaWeights
from deltascene.stages.low_rank import Cut, TensorFit, below_split, compress_blocks, relative_change, relative_error

RANK = 16
_LICENCES = ("licence", "license", "licences", "licenses")


@dataclass(frozen=True, slots=True)
class CompressRequest:
    """What is to be compressed.

    Attributes:
        model: bundle with the base's weights, the tasks and their heads: a packaged name, a folder or a URL.
        tasks: `NAME=CHECKPOINT` each.
        out: new folder for the bundle that comes out.
        base: checkpoint in place of the bundle's base.
        rank: as of `Cut`; `RANK` where neither it nor `energy` is given.
        energy: as of `Cut`.
        split: of these tasks, if another than the bundle's.
        allow_code: whether heads may be imported from the user's own package.
    """

    model: str
    tasks: Sequence[str]
    out: Path
    base: Path | None = None
    rank: int | None = None
    energy: float | None = None
    split: int | None = None
    allow_code: bool = False


@dataclass(frozen=True, slots=True)
class CompressedTask:
    """A sub-task that came out.

    Attributes:
        checkpoint: where it comes from.
        split: number of blocks that it shares with the base.
        delta: its delta weights.
        head: its head's tensors by their names in a file.
        fits: what became of every tensor from the split to where the head reads last.
        below: what is lost of the tensors before the split.
    """

    checkpoint: Checkpoint
    split: int
    delta: DeltaWeights
    head: Mapping[str, Tensor]
    fits: Sequence[TensorFit]
    below: Sequence[TensorFit]


@dataclass(frozen=True, slots=True)
class Compressed:
    """What came out.

    Attributes:
        bundle: read back.
        cut: of the weights.
        tasks: by name.
        base_parameters: numbers in the base's network.
        strangers: tasks that were made for another base than the one that was given, and stay as they are.
    """

    bundle: Bundle
    cut: Cut
    tasks: Mapping[str, CompressedTask]
    base_parameters: int
    strangers: Sequence[str]


def compress(order: CompressRequest, say: Callable[[str], object] = lambda text: None) -> Compressed:
    """Makes the bundle. Everything that can be refused is, before the folder is touched.

    Args:
        order: what.
        say: told what is being worked on.

    Raises:
        UsageError: the order makes no sense for the bundle, a checkpoint doesn't fit it, or the folder can't be used.
    """
    cut = _cut(order)
    source = read_bundle(order.model)
    places = _parse_tasks(source, order.tasks)
    refuse_full(order.out)
    bundle = _resplit(source, list(places), order.split)
    checkpoints = {
        task: open_checkpoint(bundle, task, where, allow_code=order.allow_code) for task, where in places.items()
    }
    base_path, others = base_file(bundle, order.base), [task for task in bundle.entry.tasks if task not in places]
    for path in bundle.weight_files(others):
        weight_shapes(path)
    say(f"reading {base_path.name}")
    base, done = load_backbone(bundle, base_path), {}
    for task, checkpoint in checkpoints.items():
        say(f"{task}: cutting what {checkpoint.name} differs by from the base to {cut}")
        done[task] = _compress_task(bundle, checkpoint, base, cut)
    _write(order, bundle, base_path, base, done, cut)
    base_parameters = sum(value.numel() for value in base.parameters())
    return Compressed(read_folder(order.out), cut, done, base_parameters, others if order.base is not None else ())


def _cut(order: CompressRequest) -> Cut:
    if order.rank is not None and order.energy is not None:
        raise UsageError(f"--rank, --energy: expected one of them; found {order.rank} and {order.energy:g}")
    if order.energy is not None:
        if not 0 < order.energy <= 1:
            raise UsageError(f"--energy: expected a share above 0 and at most 1; found {order.energy:g}")
        return Cut(energy=order.energy)
    if order.rank is not None and order.rank < 1:
        raise UsageError(f"--rank: expected 1 or more; found {order.rank}")
    return Cut(rank=order.rank or RANK)


def _parse_tasks(bundle: Bundle, texts: Sequence[str]) -> dict[str, Path]:
    """Checkpoints by the sub-task that they are for."""
    base, found = bundle.entry.base, dict[str, Path]()
    known = [task for task in bundle.entry.tasks if task != base]
    wanted = f"a sub-task of {bundle.name}, {', '.join(known) or 'which has none'}"
    for text in texts:
        task, equals, where = text.partition("=")
        if not equals or not where:
            raise UsageError(f"--task: expected NAME=CHECKPOINT; found {text!r}")
        if task == base:
            raise UsageError(f"--task: expected {wanted}; found its base {task!r}, whose weights --base replaces")
        if task not in known:
            raise UsageError(f"--task: expected {wanted}; found {task!r}{nearest(task, known)}")
        if task in found:
            raise UsageError(f"--task: expected each name once; found {task!r} twice")
        found[task] = Path(where).expanduser()
    if not found:
        raise UsageError("--task: expected at least one NAME=CHECKPOINT; found none")
    return found


def _resplit(bundle: Bundle, names: Sequence[str], split: int | None) -> Bundle:
    if split is None:
        return bundle
    tasks = {name: bundle.entry.tasks[name].model_copy(update={"split": split}) for name in names}
    entry = changed_entry(bundle.entry, {"tasks": {**bundle.entry.tasks, **tasks}}, "--split")
    return Bundle(bundle.folder, entry, bundle.kinds)


def _compress_task(bundle: Bundle, checkpoint: Checkpoint, base: Backbone, cut: Cut) -> CompressedTask:
    task = bundle.entry.tasks[checkpoint.task]
    assert task.split is not None, checkpoint.task
    head, tuned = checkpoint.read_head(), load_backbone(bundle, checkpoint.backbone)
    delta, fits = compress_blocks(base.blocks, tuned.blocks, task.split, max(task.taps), cut)
    return CompressedTask(checkpoint, task.split, delta, head, fits, below_split(base, tuned, task.split))


def _write(
    order: CompressRequest,
    bundle: Bundle,
    base_path: Path,
    base: Backbone,
    done: Mapping[str, CompressedTask],
    cut: Cut,
) -> None:
    """All files, `bundle.yaml` last: the other tasks' as they were, and one with head and delta for each of ours."""
    entry, out = bundle.entry, order.out
    kept = entry.weight_names([task for task in entry.tasks if task not in done])
    tasks, taken = dict(entry.tasks), set(kept)
    with filled_or_emptied(out):
        for name in kept[1:]:
            shutil.copyfile(bundle.folder / name, out / name)
        _write_base(base_path, base, out / entry.backbone.weights)
        for task, made in done.items():
            name = _free_name(task, taken)
            taken.add(name)
            delta = {f"{DELTA}{part}": tensor for part, tensor in made.delta.to_tensors().items()}
            write_weights(out / name, {**made.head, **delta})
            files = {"weights": None if name == f"{task}.safetensors" else name, "delta": name if delta else None}
            tasks[task] = tasks[task].model_copy(update=files)
        told = _evidence(bundle, base_path if order.base is not None else None, done, cut)
        write_bundle(out, entry.model_copy(update={"name": "", "tasks": tasks, "evidence": told}))


def _free_name(task: str, taken: Collection[str]) -> str:
    """The usual name of a task's file, longer where another task's or the base's has it."""
    return next(name for lines in count() if (name := f"{task}{'_' * lines}.safetensors") not in taken)


def _write_base(path: Path, base: Backbone, to: Path) -> None:
    """The base's file as it is; without what else stands in it, a classifier."""
    names = set(base.state_dict())
    if set(weight_shapes(path)) == names:
        shutil.copyfile(path, to)
    else:
        write_weights(to, {name: tensor for name, tensor in load_file(path).items() if name in names})


def _evidence(bundle: Bundle, base_path: Path | None, done: Mapping[str, CompressedTask], cut: Cut) -> dict[str, Any]:
    """How the bundle was made; what its source said of itself goes along, but no longer as the bundle's own."""
    before = dict(bundle.entry.evidence)
    licences = {
        key: f"{before.pop(key)} (of {bundle.name}; the checkpoints' own isn't known here)"
        for key in _LICENCES
        if isinstance(before.get(key), str)
    }
    references = {"single_task": before.pop("single_task")} if "single_task" in before else {}
    tasks = {task: _task_evidence(made) for task, made in done.items()}
    made = {"cut": str(cut), **({} if base_path is None else {"base": base_path.name}), "tasks": tasks}
    summary = f"{', '.join(done)}: separately fine-tuned networks as deltas of {cut}; not scored since"
    source = {"name": bundle.name, **({"evidence": before} if before else {})}
    return {"summary": summary, **licences, **references, "compress": made, "made_from": source}


def _task_evidence(made: CompressedTask) -> dict[str, Any]:
    return {
        "checkpoint": made.checkpoint.name,
        "head": "the checkpoint's" if made.checkpoint.own_head else "the bundle's",
        "split": made.split,
        "parameters": made.delta.parameters,
        "relative_error": _short(relative_error(made.fits)),
        "change": _short(relative_change(made.fits)),
        "change_below_split": _short(relative_change(made.below)),
    }


def _short(number: float) -> float:
    return float(f"{number:.4g}")
