"""The catalogue of the furniture libraries: models, their sizes and their placement."""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.training.rooms.errors import MeshesMissing
from deltascene.pipeline.training.rooms.labels import CLASSES, Label, read_labels

HOW_TO_GET = "apt-get download sweethome3d-furniture && dpkg -x sweethome3d-furniture_*.deb DIR"


@dataclass(frozen=True)
class Model:
    """One furniture model of the libraries.

    Attributes:
        label: its row of the label table.
        library: the .sh3f file that holds it.
        category: category as the library gives it, for example "Bedroom".
        size_m: width, height and depth in metres; depth runs from the back to the front.
        elevation_m: height of its underside above the floor, None where it isn't given.
        rotation_33: rotation that the OBJ needs before it is scaled, row-major.
    """

    label: Label
    library: Path
    category: str
    size_m: tuple[float, float, float]
    elevation_m: float | None
    rotation_33: tuple[float, ...]

    @property
    def key(self) -> str:
        """Name that is unique over all libraries and fit for a file."""
        return re.sub(r"[^A-Za-z0-9]+", "_", f"{self.label.catalog}{self.label.model}")

    @property
    def class_name(self) -> str:
        """Name of the model's class."""
        return CLASSES[self.label.class_id]

    def rotation(self) -> NDArray[np.float64]:
        """Rotation of the OBJ's vertices before scaling [3, 3]."""
        return np.array(self.rotation_33).reshape(3, 3)


def load_catalogue(meshes_dir: Path) -> tuple[Model, ...]:
    """Every labelled model under a folder, in the order of the label table.

    Models that the table marks `skip` or `heavy` (50 000 faces or more) are left out.

    Args:
        meshes_dir: folder that holds the .sh3f libraries at any depth.

    Raises:
        MeshesMissing: the folder lacks one of the five libraries, or one of them lacks labelled models.
    """
    libraries = {path.stem: path for path in sorted(meshes_dir.rglob("*.sh3f"))}
    labels = read_labels()
    missing = sorted({label.catalog for label in labels} - set(libraries))
    if missing:
        names = ", ".join(f"{name}.sh3f" for name in missing)
        raise MeshesMissing(f"{names} not found under {meshes_dir.absolute()}; get them with: {HOW_TO_GET}")
    rows = {name: _read_properties(libraries[name]) for name in sorted({label.catalog for label in labels})}
    absent = [lb for lb in labels if lb.model not in rows[lb.catalog]]
    if absent:
        library = libraries[absent[0].catalog]
        raise MeshesMissing(
            f"{library.absolute()} lacks {len(absent)} models, first {absent[0].model}; get 1.8 with: {HOW_TO_GET}"
        )
    usable = [lb for lb in labels if lb.placement != "skip" and "heavy" not in lb.notes]
    return tuple(_model(lb, libraries[lb.catalog], rows[lb.catalog][lb.model]) for lb in usable)


def _read_properties(library: Path) -> dict[str, dict[str, str]]:
    """Properties of a library's models by OBJ path."""
    with zipfile.ZipFile(library) as archive:
        text = archive.read("PluginFurnitureCatalog.properties").decode("latin-1")
    by_number: dict[str, dict[str, str]] = {}
    for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*)$", text, re.MULTILINE):
        by_number.setdefault(number, {})[key] = value.strip()
    return {entry["model"]: entry for entry in by_number.values()}


def _model(label: Label, library: Path, entry: dict[str, str]) -> Model:
    width, height, depth = (float(entry[key]) / 100 for key in ("width", "height", "depth"))
    hang = re.search(r"hang at about ([\d.]+)", label.notes)
    elevation = float(hang[1]) if hang else None
    if "elevation" in entry:
        elevation = float(entry["elevation"]) / 100
    identity = "1 0 0 0 1 0 0 0 1"
    return Model(
        label=label,
        library=library,
        category=entry["category"],
        size_m=(width, height, depth),
        elevation_m=elevation,
        rotation_33=tuple(float(value) for value in entry.get("modelRotation", identity).split()),
    )
