"""Labelled images: `images/<stem>.png`, `<task>/<stem>.png|npy`, `split.csv`; rooms and users' own alike."""

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from deltascene.pipeline.errors import UsageError
from deltascene.stages.types import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True)
class LabelledFolder:
    """A folder of images with dense truth.

    Attributes:
        root: the folder.
        split: name of the part (`train`, `val`, `test`) of every stem.
        group: what a stem's image shows, a room say: images of one group are alike; without a column `room`, the stem.
    """

    root: Path
    split: dict[str, str]
    group: dict[str, str] = field(default_factory=dict)

    def stems(self, part: str) -> list[str]:
        """Stems of one part, sorted.

        Raises:
            UsageError: the part is empty.
        """
        stems = sorted(stem for stem, where in self.split.items() if where == part)
        if not stems:
            raise UsageError(
                f"{self.root / 'split.csv'}: expected images of part {part!r}; found {sorted(set(self.split.values()))}"
            )
        return stems

    def image(self, stem: str) -> Image:
        """RGB [H, W, 3].

        Raises:
            UsageError: there is no such image.
        """
        for suffix in IMAGE_SUFFIXES:
            path = self.root / "images" / f"{stem}{suffix}"
            if path.is_file():
                return np.asarray(PillowImage.open(path).convert("RGB"))
        raise UsageError(f"{self.root / 'images'}: no image {stem}.png or .jpg")

    def truth(self, task: str, stem: str) -> NDArray[Any]:
        """A task's truth in its stored form, [H, W] or [H, W, components].

        Raises:
            UsageError: there is none.
        """
        array = self.root / task / f"{stem}.npy"
        if array.is_file():
            return np.asarray(np.load(array, allow_pickle=False))
        picture = self.root / task / f"{stem}.png"
        if picture.is_file():
            return np.asarray(PillowImage.open(picture))
        raise UsageError(f"{self.root / task}: no truth {stem}.npy or .png")


def open_labelled(root: Path) -> LabelledFolder:
    """Opens a folder by its `split.csv` (columns `stem` and `split`, perhaps `room`, others ignored).

    Raises:
        UsageError: there is none, or it lacks a column.
    """
    path = root / "split.csv"
    if not path.is_file():
        raise UsageError(f"{root}: expected a data folder with split.csv; found none")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"stem", "split"} <= rows[0].keys():
        raise UsageError(f"{path}: expected columns stem and split; found {list(rows[0]) if rows else 'no rows'}")
    split = {row["stem"]: row["split"] for row in rows}
    return LabelledFolder(root, split, {row["stem"]: row.get("room") or row["stem"] for row in rows})
