"""`deltascene models`: what `ls`, `check` and `new` know. `check` and `new` have files of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deltascene.pipeline.bundles.bundle import Bundle, packaged_models, read_folder
from deltascene.pipeline.text import one_line

if TYPE_CHECKING:
    from rich.console import Console

_TOLD_FIRST = ("summary", "licence", "license", "licences", "licenses")


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One packaged model.

    Attributes:
        name: what `--model` takes.
        backbone: timm's name.
        tasks: kind of every task by its name, the base first.
        size_bytes: of all files that it needs.
        about: what its evidence says first: a summary and a licence.
    """

    name: str
    backbone: str
    tasks: Mapping[str, str]
    size_bytes: int
    about: str


def list_models() -> list[ModelRow]:
    """Every packaged model.

    Raises:
        BundleError: one of them can't be read; the package is damaged.
    """
    return [_row(name, read_folder(folder)) for name, folder in packaged_models().items()]


def about(evidence: Mapping[str, Any]) -> str:
    """One line from a bundle's evidence: its summary and licence, as far as it has them."""
    said = [one_line(evidence[key]) for key in _TOLD_FIRST if isinstance(evidence.get(key), str)]
    return "; ".join(said) or "no summary and no licence in its evidence"


def print_models(console: "Console", rows: Sequence[ModelRow]) -> None:
    """Prints a table of models; file sizes in megabytes of a million bytes."""
    from rich.table import Table
    from rich.text import Text

    if not rows:
        console.print("no packaged models in this installation")
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


def _row(name: str, bundle: Bundle) -> ModelRow:
    entry = bundle.entry
    order = [entry.base, *(task for task in entry.tasks if task != entry.base)]
    files = [bundle.folder / "bundle.yaml", *bundle.weight_files(order)]
    size_bytes = sum(path.stat().st_size for path in files if path.is_file())
    tasks = {task: entry.tasks[task].kind for task in order}
    return ModelRow(name, entry.backbone.timm, tasks, size_bytes, about(entry.evidence))
