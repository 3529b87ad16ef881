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
    """What to compress, and where to.

    Attributes:
        model: bundle with the base's weights, the tasks and their heads: a packaged name, a folder or a URL.
        tasks: `NAME=CHECKPOINT` each.
        out: new folder for the resulting bundle.
        base: checkpoint in place of the bundle's base.
        rank: as of `Cut`; `RANK` where neither it nor `energy` is given.
        energy: as of `Cut`.
        split: split of these tasks in place of the bundle's.
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
    """A compressed sub-task.

    Attributes:
        checkpoint: the fine-tuned network that it was made from.
        split: number of blocks that it shares with the base.
        delta: its delta weights.
        head: its head's tensors by their names in a file.
        fits: fit of every tensor from the split to the last tap.
        below: changes of the tensors before the split, which are lost.
    """

    checkpoint: Checkpoint
    split: int
    delta: DeltaWeights
    head: Mapping[str, Tensor]
    fits: Sequence[TensorFit]
    below: Sequence[TensorFit]


@dataclass(frozen=True, slots=True)
class Compressed:
    """Result of a compression.

    Attributes:
        bundle: the new bundle, read from its folder.
        cut: how the weights' changes were cut.
        tasks: compressed tasks by name.
        base_parameters: parameters of the base's network.
        strangers: tasks that are copied unchanged although they were made for the base that was replaced.
    """

    bundle: Bundle
    cut: Cut
    tasks: Mapping[str, CompressedTask]
    base_parameters: int
    strangers: Sequence[str]


def compress(request: CompressRequest, say: Callable[[str], object] = lambda text: None) -> Compressed:
    """Makes the bundle; all inputs are checked before anything is written.

    Args:
        request: what to compress.
        say: called with a line of text at each step.

    Raises:
        UsageError: the request doesn't fit the bundle, a checkpoint doesn't, or the folder can't be used.
    """
    cut = _cut(request)
    source = read_bundle(request.model)
    places = _parse_tasks(source, request.tasks)
    refuse_full(request.out)
    bundle = _resplit(source, list(places), request.split)
    checkpoints = {
        task: open_checkpoint(bundle, task, where, allow_code=request.allow_code) for task, where in places.items()
    }
    base_path, others = base_file(bundle, request.base), [task for task in bundle.entry.tasks if task not in places]
    for path in bundle.weight_files(others):
        weight_shapes(path)
    say(f"reading {base_path.name}")
    base, done = load_backbone(bundle, base_path), {}
    for task, checkpoint in checkpoints.items():
        say(f"{task}: cutting what {checkpoint.name} differs by from the base to {cut}")
        done[task] = _compress_task(bundle, checkpoint, base, cut)
    _write(request, bundle, base_path, base, done, cut)
    base_parameters = sum(value.numel() for value in base.parameters())
    return Compressed(read_folder(request.out), cut, done, base_parameters, others if request.base is not None else ())


def _cut(request: CompressRequest) -> Cut:
    if request.rank is not None and request.energy is not None:
        raise UsageError(f"--rank, --energy: expected one of them; found {request.rank} and {request.energy:g}")
    if request.energy is not None:
        if not 0 < request.energy <= 1:
            raise UsageError(f"--energy: expected a share above 0 and at most 1; found {request.energy:g}")
        return Cut(energy=request.energy)
    if request.rank is not None and request.rank < 1:
        raise UsageError(f"--rank: expected 1 or more; found {request.rank}")
    return Cut(rank=request.rank or RANK)


def _parse_tasks(bundle: Bundle, texts: Sequence[str]) -> dict[str, Path]:
    """Checkpoints by their sub-task."""
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
    request: CompressRequest,
    bundle: Bundle,
    base_path: Path,
    base: Backbone,
    done: Mapping[str, CompressedTask],
    cut: Cut,
) -> None:
    """Writes all files, `bundle.yaml` last: other tasks' files unchanged, one with head and delta for each new task."""
    entry, out = bundle.entry, request.out
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
        evidence = _evidence(bundle, base_path if request.base is not None else None, done, cut)
        write_bundle(out, entry.model_copy(update={"name": "", "tasks": tasks, "evidence": evidence}))


def _free_name(task: str, taken: Collection[str]) -> str:
    """The default name of a task's file, with underscores added where another file has it."""
    return next(name for lines in count() if (name := f"{task}{'_' * lines}.safetensors") not in taken)


def _write_base(path: Path, base: Backbone, to: Path) -> None:
    """Copies the base's file, or writes it without tensors that aren't the network's, such as a classifier."""
    names = set(base.state_dict())
    if set(weight_shapes(path)) == names:
        shutil.copyfile(path, to)
    else:
        write_weights(to, {name: tensor for name, tensor in load_file(path).items() if name in names})


def _evidence(bundle: Bundle, base_path: Path | None, done: Mapping[str, CompressedTask], cut: Cut) -> dict[str, Any]:
    """Evidence of the new bundle: how it was made, with its source's evidence under `made_from`."""
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
