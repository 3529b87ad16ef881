"""Model bundles: a folder with `bundle.yaml` and safetensors, found, read into a checked description, and written.

A task is data: `bundle.yaml` holds everything about it (entry.py has the rules). Weights are safetensors only, and all
files are in the bundle's folder. No weights are loaded here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deltascene.cache.places import write_whole
from deltascene.pipeline.bundles.entry import (
    BundleEntry,
    TaskEntry,
)
from deltascene.pipeline.bundles.fetch import fetch_bundle
from deltascene.pipeline.errors import BundleError, nearest
from deltascene.pipeline.safe_yaml import read_mapping, render_yaml
from deltascene.pipeline.text import first_problem, one_line, shown
from deltascene.stages.errors import StageError
from deltascene.stages.input_plan import InputPlan, ResizeMode, plan_input
from deltascene.stages.kinds import Classes, Heatmaps, Kind, Scalar, Stored, Vector

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was read and checked; no weights are loaded.

    Attributes:
        folder: folder with its files.
        entry: content of `bundle.yaml`.
        kinds: kind of every task by name.
    """

    folder: Path
    entry: BundleEntry
    kinds: Mapping[str, Kind]

    @property
    def name(self) -> str:
        """The name in `bundle.yaml`, or that of the folder."""
        return self.entry.name or self.folder.name

    def taps(self, tasks: Sequence[str]) -> tuple[int, ...]:
        """All points where one of these tasks reads the residual stream, increasing."""
        return tuple(sorted({tap for task in tasks for tap in self.entry.tasks[task].taps}))

    def input_plan(
        self,
        frame_size: tuple[int, int],
        patch: int,
        asked: int | tuple[int, int] | None = None,
        resize: ResizeMode | None = None,
    ) -> InputPlan:
        """How frames of a size become the model's input.

        Args:
            frame_size: height and width.
            patch: side of a patch in pixels.
            asked: short side, or height and width, that replaces the bundle's; with it, `aspect` is `stretch`, as a
                short side keeps the shape anyway, and a height and width are taken as they are.
            resize: what replaces the bundle's `resize`.

        Raises:
            StageError: the frames are smaller than one patch.
        """
        entry = self.entry.input
        size, short_side, how = entry.size, entry.short_side, resize or entry.resize
        if asked is not None:
            size, short_side = (None, asked) if isinstance(asked, int) else (asked, None)
            how = "stretch" if how == "aspect" else how
        return plan_input(frame_size, patch, size=size, short_side=short_side, resize=how)

    def backbone_file(self) -> Path:
        """File with the backbone's weights."""
        return self.folder / self.entry.backbone.weights

    def head_file(self, task: str) -> Path:
        """File with a task's head."""
        return self.folder / self.entry.head_weights(task)

    def delta_file(self, task: str) -> Path:
        """File with the delta weights of a task that has some; often the file of its head."""
        delta = self.entry.tasks[task].delta
        assert delta is not None, task
        return self.folder / delta

    def weight_files(self, tasks: Sequence[str]) -> list[Path]:
        """The weight files that these tasks need, the backbone's first."""
        return [self.folder / name for name in self.entry.weight_names(tasks)]


def packaged_models() -> dict[str, Path]:
    """Bundles that come with the package, by name."""
    root = Path(str(resources.files("deltascene.configs"))) / "models"
    return {path.parent.name: path.parent for path in sorted(root.glob("*/bundle.yaml"))}


def find_bundle(model: str) -> Path:
    """The folder of a packaged name, a folder, or an fsspec URL (copied to a local cache).

    Raises:
        BundleError: there is no such bundle.
    """
    packaged = packaged_models()
    if model in packaged:
        return packaged[model]
    if "://" in model:
        return fetch_bundle(model)
    try:
        folder = Path(model).expanduser()
        if (folder / "bundle.yaml").is_file():
            return folder
        there = folder.exists()
    except (OSError, ValueError, RuntimeError) as error:  # an invalid name, or an unknown user
        raise BundleError(f"model {shown(model)}: expected a folder with bundle.yaml; {one_line(error)}") from error
    if there:
        raise BundleError(f"model {model}: expected a folder with bundle.yaml; found none in it")
    known = ", ".join(packaged) or "none"
    raise BundleError(f"model: no packaged model or folder {model!r}; packaged: {known}{nearest(model, packaged)}")


def read_bundle(model: str) -> Bundle:
    """Reads and checks the description of a packaged bundle, a folder, or an fsspec URL.

    Raises:
        BundleError: it doesn't exist, isn't of this format, or its parts don't fit together.
    """
    return read_folder(find_bundle(model))


def read_folder(folder: Path) -> Bundle:
    """Reads and checks the description of the bundle in a folder.

    Raises:
        BundleError: it isn't of this format, or its parts don't fit together.
    """
    path = folder / "bundle.yaml"
    try:
        data = read_mapping(path)
        if data.get("format") != FORMAT:
            raise BundleError(f"{path}: format: expected {FORMAT}; found {shown(data.get('format'))}")
        entry = BundleEntry.model_validate(data)
        kinds = {name: _named_kind(name, task) for name, task in entry.tasks.items()}
    except ValidationError as error:
        raise BundleError(f"{path}: {first_problem(error, BundleEntry)}") from error
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from error
    return Bundle(folder, entry, kinds)


def changed_entry(entry: BundleEntry, changes: Mapping[str, Any], where: str) -> BundleEntry:
    """A description with some of its keys changed, checked again as a whole.

    Args:
        entry: the description; it isn't changed.
        changes: new values by key.
        where: beginning of an error's text.

    Raises:
        BundleError: the parts of the new description don't fit together.
    """
    try:
        return BundleEntry.model_validate(entry.model_copy(update=changes).model_dump(exclude_unset=True))
    except ValidationError as error:
        raise BundleError(f"{where}: {first_problem(error, BundleEntry)}") from error


def write_bundle(folder: Path, entry: BundleEntry) -> Path:
    """Writes `bundle.yaml` in a readable form: only values that differ from the defaults, short lists on one line.

    Args:
        folder: an existing folder.
        entry: the description.

    Returns:
        The file written.

    Raises:
        BundleError: `evidence` holds a value that YAML can't hold, or the folder can't be written.
    """
    path = folder / "bundle.yaml"
    try:
        text = render_yaml(entry.model_dump(exclude_defaults=True))
        write_whole(path, text)
    except (ValueError, OSError) as error:
        raise BundleError(f"{path}: can't be written: {one_line(error)}") from error
    return path


def build_kind(task: TaskEntry) -> Kind:
    """The kind of a task entry.

    Raises:
        StageError: the entry isn't valid for its kind.
    """
    kind = _KIND_OF[task.kind](task, _options(task))
    if task.channels not in (None, kind.channels):
        raise StageError(f"channels: expected {kind.channels} for its {task.kind}; found {task.channels}")
    return kind


_KIND_OF: Mapping[str, Callable[[TaskEntry, dict[str, Any]], Kind]] = {
    "classes": lambda task, options: Classes(_labels(task), task.colours, **options),
    "scalar": lambda task, options: Scalar(task.unit, task.range, task.log, **options),
    "vector": lambda task, options: Vector(task.channels or 3, task.unit_length, **options),
    "heatmaps": lambda task, options: Heatmaps(task.names or _numbered(task.channels or 1), **options),
}


def _named_kind(name: str, task: TaskEntry) -> Kind:
    try:
        return build_kind(task)
    except StageError as error:
        raise StageError(f"tasks.{name}.{error}") from error


def _labels(task: TaskEntry) -> tuple[str, ...]:
    labels = task.labels or _numbered(task.channels or 0)
    if not labels:
        raise StageError("labels: expected labels or channels for kind classes; found neither")
    return labels


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(count))


def _options(task: TaskEntry) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if task.stored is not None:
        options["stored"] = Stored(task.stored.dtype, task.stored.scale, task.stored.fill)
    elif task.kind == "classes" and len(_labels(task)) > 254:
        options["stored"] = Stored("uint16", fill=65535)
    if task.resample is not None:
        options["resample"] = task.resample
    return options


def choose_tasks(bundle: Bundle, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The tasks asked for, in the bundle's order; all of them for None.

    Raises:
        BundleError: a name that the bundle doesn't have.
    """
    known = tuple(bundle.entry.tasks)
    if wanted is None:
        return known
    for name in wanted:
        if name not in known:
            raise BundleError(f"task: {bundle.name} has {', '.join(known)}; found {name!r}{nearest(name, known)}")
    if not wanted:
        raise BundleError(f"task: expected at least one of {', '.join(known)}; found none")
    return tuple(name for name in known if name in wanted)
