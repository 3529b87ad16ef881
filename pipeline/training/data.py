"""Folders of labelled images: `images/<stem>.png`, `<task>/<stem>.png|npy`, `split.csv`."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.text import one_line
from deltascene.stages.kinds import Kind, stored_shape
from deltascene.stages.types import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
TRUTH_SUFFIXES = (".npy", ".png")


@dataclass(frozen=True, slots=True)
class LabelledFolder:
    """A folder of images with dense truth.

    Attributes:
        root: the folder.
        split: name of the part (`train`, `val`, `test`) by stem.
        group: group by stem, for example a room; images of one group are similar. Without a column `room`, the stem.
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
            UsageError: there is no such image, or it can't be read.
        """
        return _picture(self.image_file(stem), "RGB")

    def truth(self, task: str, stem: str) -> NDArray[Any]:
        """A task's truth in its stored form, [H, W] or [H, W, components].

        Raises:
            UsageError: there is none, or it can't be read.
        """
        path = self.truth_file(task, stem)
        if path.suffix != ".npy":
            return _picture(path)
        try:
            return np.asarray(np.load(path, allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(f"{path}: can't be read: {one_line(error)}") from error

    def image_file(self, stem: str) -> Path:
        """Path of an image.

        Raises:
            UsageError: there is no such image.
        """
        return self._found("images", "image", stem, IMAGE_SUFFIXES)

    def truth_file(self, task: str, stem: str) -> Path:
        """Path of a task's truth.

        Raises:
            UsageError: there is none.
        """
        return self._found(task, "truth", stem, TRUTH_SUFFIXES)

    def _found(self, folder: str, what: str, stem: str, suffixes: Sequence[str]) -> Path:
        for suffix in suffixes:
            path = self.root / folder / f"{stem}{suffix}"
            if path.is_file():
                return path
        raise UsageError(f"{self.root / folder}: no {what} {stem}{' or '.join(suffixes)}")


def _picture(path: Path, mode: str | None = None) -> NDArray[Any]:
    try:
        with PillowImage.open(path) as picture:
            return np.asarray(picture if mode is None else picture.convert(mode))
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for damaged files
        raise UsageError(f"{path}: can't be read: {one_line(error)}") from error


def open_labelled(root: Path) -> LabelledFolder:
    """Opens a folder by its `split.csv` (columns `stem` and `split`, optionally `room`; others are ignored).

    Raises:
        UsageError: there is none, or it lacks a column.
    """
    path = root / "split.csv"
    if not path.is_file():
        raise UsageError(f"{root}: expected a data folder with split.csv; found none")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"stem", "split"} <= rows[0].keys():
        raise UsageError(f"{path}: expected columns stem and split; found {list(rows[0]) if rows else 'no rows'}")
    split = {row["stem"]: row["split"] for row in rows}
    return LabelledFolder(root, split, {row["stem"]: row.get("room") or row["stem"] for row in rows})


def check_truth(truth: NDArray[Any], kind: Kind, size: tuple[int, int], where: str) -> NDArray[Any]:
    """Checks that truth has the stored form of a task's kind; returns it, class ids in their stored type.

    Args:
        truth: [H, W] or [H, W, components].
        kind: of the task.
        size: height and width of the model's input.
        where: name of the truth in errors.

    Raises:
        UsageError: its size, shape, type or values don't match the kind's stored form.
    """
    if truth.shape[:2] != size:
        raise UsageError(f"{where}: expected truth of the input's size, {size}; found {truth.shape[:2]}")
    expected = stored_shape(kind, size)
    if truth.shape != expected:
        raise UsageError(f"{where}: expected {kind.name} of shape {expected}; found {truth.shape}")
    form = kind.stored
    if np.dtype(form.dtype).kind != "f" and truth.dtype.kind not in "ui":
        scaled = "" if form.scale == 1 else f", {form.scale:g} times the value"
        raise UsageError(f"{where}: expected whole numbers as stored ({form.dtype}{scaled}); found {truth.dtype}")
    if kind.name == "heatmaps":
        _refuse_beyond_one(truth, kind, where)
    if kind.name != "classes":
        return truth
    wrong = truth[((truth < 0) | (truth >= kind.channels)) & (truth != form.fill)]
    if wrong.size:
        raise UsageError(
            f"{where}: expected ids 0 to {kind.channels - 1}, or {form.fill:g} where there is none; found {wrong[0]}"
        )
    return truth.astype(form.dtype, copy=False)


def _refuse_beyond_one(truth: NDArray[Any], kind: Kind, where: str) -> None:
    most = kind.stored.scale
    if (truth > 1.001 * most).any():
        raise UsageError(
            f"{where}: expected heatmaps from 0 to {most:g}; found {np.nanmax(truth):g}; for pictures from 0 to 255 "
            "the task needs `stored: {dtype: uint8, scale: 255}` in bundle.yaml"
        )
