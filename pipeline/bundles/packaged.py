"""The packaged models: name, tasks, size and evidence of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deltascene.pipeline.bundles.bundle import Bundle, packaged_models, read_folder
from deltascene.pipeline.text import one_line

_ABOUT = ("summary", "licence", "license", "licences", "licenses")


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One packaged model.

    Attributes:
        name: its name as a value of `--model`.
        backbone: timm's name.
        tasks: kind of every task by its name, the base first.
        size_bytes: size of all files that it needs.
        about: summary and licence from its evidence.
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
    lines = [one_line(evidence[key]) for key in _ABOUT if isinstance(evidence.get(key), str)]
    return "; ".join(lines) or "no summary and no licence in its evidence"


def _row(name: str, bundle: Bundle) -> ModelRow:
    entry = bundle.entry
    order = [entry.base, *(task for task in entry.tasks if task != entry.base)]
    files = [bundle.folder / "bundle.yaml", *bundle.weight_files(order)]
    size_bytes = sum(path.stat().st_size for path in files if path.is_file())
    tasks = {task: entry.tasks[task].kind for task in order}
    return ModelRow(name, entry.backbone.timm, tasks, size_bytes, about(entry.evidence))
