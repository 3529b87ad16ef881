"""`deltascene models ls`, `check` and `new`: list the packaged models, check one, write a new bundle."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deltascene.errors import ExitCode
from deltascene.pipeline.bundles.check import ModelCheck, TaskCheck, check_model
from deltascene.pipeline.bundles.new import new_model
from deltascene.pipeline.bundles.packaged import ModelRow, list_models
from deltascene.pipeline.commands.terminal import print_line
from deltascene.pipeline.units import compact, share


def list_command(console: Console) -> ExitCode:
    """Prints the packaged models.

    Raises:
        BundleError: one of them can't be read; the package is damaged.
    """
    print_models(console, list_models())
    return ExitCode.OK


def check_command(model: str, console: Console) -> ExitCode:
    """Checks a backbone or a bundle; the exit code is `USAGE` where it isn't supported.

    Raises:
        BundleError: there is no such bundle, or its description can't be read.
    """
    check = check_model(model)
    print_check(console, check)
    return ExitCode.OK if check.supported else ExitCode.USAGE


def new_command(
    folder: Path,
    backbone: str,
    tasks: Sequence[str],
    console: Console,
    *,
    weights: Path | None = None,
    base: str | None = None,
    size: int | tuple[int, int] | None = None,
    random: bool = False,
) -> ExitCode:
    """Writes a bundle with untrained heads; the values are those of `new_model`.

    Raises:
        UsageError: the folder isn't empty, or a value can't be used.
        BundleError: the backbone can't be run by rows, or a head doesn't fit it.
    """
    bundle = new_model(folder, backbone, tasks, weights=weights, base=base, size=size, random=random)
    entry = bundle.entry
    print_line(console, f"{bundle.folder}: {', '.join(entry.tasks)} on {entry.backbone.timm}; its heads are untrained")
    return ExitCode.OK


def print_models(console: Console, rows: Sequence[ModelRow]) -> None:
    """Prints a table of models; file sizes are in megabytes of a million bytes."""
    if not rows:
        print_line(console, "no packaged models in this installation")
        return
    table = Table(box=None, pad_edge=False)
    for header in ("model", "backbone", "tasks", "MB"):
        table.add_column(header, no_wrap=True)
    table.add_column("evidence")
    for row in rows:
        tasks = "\n".join(f"{name} ({kind})" for name, kind in row.tasks.items())
        cells = (row.name, row.backbone, tasks, f"{row.size_bytes / 1e6:.1f}", row.about)
        table.add_row(*map(Text, cells))
    console.print(table)


def print_check(console: Console, check: ModelCheck) -> None:
    """Prints whether a model is supported, its problems and warnings, what it is, and its tasks."""
    console.print(Text(f"{check.name}: {'supported' if check.supported else 'not supported'}"))
    for label, lines in (("problem", check.problems), ("warning", check.warnings)):
        for line in lines:
            console.print(Text(f"  {label}: {line}"), soft_wrap=True)
    for topic, fact in check.facts.items():
        console.print(Text(f"  {topic}: {fact}"), soft_wrap=True)
    if check.tasks:
        columns = ("  task", "kind", "split", "taps", "blocks", "head", "MACs", "share")
        table = Table(*columns, box=None, pad_edge=False, collapse_padding=True)
        for name, task in check.tasks.items():
            table.add_row(*map(Text, _task_cells(name, task)))
        console.print(table)


def _task_cells(name: str, task: TaskCheck) -> tuple[str, ...]:
    split, taps = str(task.split or "base"), " ".join(map(str, task.taps))
    own = compact(task.blocks_macs, "MAC") if task.blocks_macs else "base's"
    return f"  {name}", task.kind, split, taps, own, task.head, compact(task.head_macs, "MAC"), share(task.share)
