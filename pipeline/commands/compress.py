"""`deltascene compress`: makes low-rank deltas, and prints what they lack, in weights and on a clip."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deltascene.errors import ExitCode
from deltascene.pipeline.bundles.compress import Compressed, CompressRequest, compress
from deltascene.pipeline.bundles.compress_inputs import load_backbone
from deltascene.pipeline.commands.terminal import print_line
from deltascene.pipeline.evaluation.compress_drift import ClipDrift, find_clip, measure_drift
from deltascene.pipeline.units import compact, count, share
from deltascene.stages.low_rank import TensorFit, relative_change, relative_error


def compress_command(request: CompressRequest, clip: Path | None, frames: int, console: Console) -> ExitCode:
    """Compresses fine-tuned networks; tables are printed as soon as their numbers are known.

    Args:
        request: what to compress.
        clip: video on which predictions are compared; None compares none.
        frames: largest number of frames that are read of the clip.
        console: where to print.

    Raises:
        DeltasceneError: a checkpoint, the bundle or the clip can't be used.
    """
    source = None if clip is None else find_clip(clip, frames)
    with console.status("compress") as status:
        made = compress(request, status.update)
    for task in made.tasks:
        _print_task(console, made, task)
    if source is not None:
        found = {}
        with console.status("clip") as status:
            for task, each in made.tasks.items():
                status.update(f"{task}: comparing predictions on {source.id}")
                tuned = load_backbone(made.bundle, each.checkpoint.backbone)
                found[task] = measure_drift(made.bundle, task, tuned, source, frames, allow_code=request.allow_code)
        _print_drift(console, source.id, found)
    for line in warnings(made):
        print_line(console, f"warning: {line}")
    print_line(console, f"{made.bundle.folder}: {', '.join(made.tasks)} at {made.cut}")
    return ExitCode.OK


def warnings(made: Compressed) -> Iterator[str]:
    """What the new sub-tasks lack, or take from another place than their checkpoint, one line each."""
    for task, each in made.tasks.items():
        if any(fit.change for fit in each.below):
            most = max(each.below, key=lambda fit: relative_change([fit]))
            yield (
                f"{task}: below its split, {each.split}, {each.checkpoint.name} differs from the base by "
                f"{_share(relative_change(each.below))} (relative Frobenius norm; most in {most.name}, "
                f"{_share(relative_change([most]))}): the sub-task lacks that"
            )
        if not each.delta.tensors:
            yield f"{task}: from its split on, {each.checkpoint.name} is the base: the sub-task has a head and no delta"
        if not each.checkpoint.own_head:
            yield f"{task}: {each.checkpoint.name} has no head of this task, so the bundle's own head stays"
    if made.strangers:
        yield f"{', '.join(made.strangers)}: made for the bundle's own base, not for that of --base"


def _print_task(console: Console, made: Compressed, task: str) -> None:
    each = made.tasks[task]
    print_line(console, f"{task}: {each.checkpoint.name} from block {each.split} on, {made.cut}")
    table = Table(box=None, pad_edge=False)
    table.add_column("tensor", no_wrap=True)
    for head in ("rank", "error", "change", "parameters"):
        table.add_column(head, justify="right", no_wrap=True)
    for fit in each.fits:
        table.add_row(*map(Text, (fit.name, *_cells(fit))))
    console.print(table)
    print_line(
        console,
        f"{task}: the deltas lack {_share(relative_error(each.fits))} of what changed, which is "
        f"{_share(relative_change(each.fits))} of the base; {compact(each.delta.parameters, '')} parameters, "
        f"{share(each.delta.parameters / made.base_parameters)} of the base's {compact(made.base_parameters, '')}\n",
    )


def _cells(fit: TensorFit) -> tuple[str, ...]:
    if not fit.change:
        return "–", "–", _share(0.0), "–"
    rank = "dense" if fit.rank is None else str(fit.rank)
    return rank, _share(relative_error([fit])), _share(relative_change([fit])), count(fit.parameters)


def _print_drift(console: Console, clip: str, found: Mapping[str, ClipDrift]) -> None:
    frames = len(next(iter(found.values())).compressed)
    print_line(console, f"Drift from the fine-tuned networks on {clip}, {count(frames, 'frame')}")
    table = Table(box=None, pad_edge=False)
    for head in ("task", "mean", "95 %", "largest", "no delta", "unit"):
        table.add_column(head, justify="left" if head in ("task", "unit") else "right", no_wrap=head != "unit")
    for task, drift in found.items():
        numbers = (drift.mean, drift.p95, max(drift.compressed), sum(drift.without) / len(drift.without))
        table.add_row(*map(Text, (task, *(f"{number:.3g}" for number in numbers), drift.unit)))
    console.print(table)


def _share(part: float) -> str:
    return "∞" if math.isinf(part) else share(part)
