"""The 24 classes of the packaged bundle and the label table of the furniture models."""

import csv
from dataclasses import dataclass
from importlib import resources

from deltascene.pipeline.training.rooms.errors import LabelsWrong

CLASSES = (
    "wall", "floor", "ceiling", "door", "window", "person", "animal", "vehicle",
    "bed", "sofa", "chair", "table", "cabinet", "shelf", "lamp", "plant",
    "screen", "appliance", "bath", "picture", "textile", "small_object", "structure", "sky",
)  # fmt: skip


@dataclass(frozen=True)
class Label:
    """One row of the label table.

    Attributes:
        catalog: name of the furniture library.
        model: path of the OBJ inside the library; (catalog, model) is the key.
        name: English name as the library gives it.
        class_id: position in `CLASSES`.
        placement: floor, wall, ceiling, tabletop, outdoor, person or skip.
        moving: whether it could plausibly move in a video.
        creator: author as the library gives it.
        licence: SPDX id.
        notes: short remarks on pose and mesh faults.
    """

    catalog: str
    model: str
    name: str
    class_id: int
    placement: str
    moving: bool
    creator: str
    licence: str
    notes: str


def class_id(name: str) -> int:
    """Position of a class in the label list.

    Raises:
        LabelsWrong: no class has that name.
    """
    if name not in CLASSES:
        raise LabelsWrong(f"class {name!r} is none of {', '.join(CLASSES)}")
    return CLASSES.index(name)


def read_labels() -> tuple[Label, ...]:
    """The label table that ships with the package, in file order.

    Raises:
        LabelsWrong: a row names an unknown class.
    """
    table = resources.files("deltascene.pipeline.training.rooms").joinpath("furniture_labels.csv")
    return tuple(_label(row) for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines()))


def _label(row: dict[str, str]) -> Label:
    return Label(
        catalog=row["catalog"],
        model=row["model"],
        name=row["name"],
        class_id=class_id(row["class"]),
        placement=row["placement"],
        moving=row["moving"] == "yes",
        creator=row["creator"],
        licence=row["licence"],
        notes=row["notes"],
    )
