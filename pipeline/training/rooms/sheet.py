"""A contact sheet of a data set: a column for each frame, with picture, seg, depth, normals and edges."""

import colorsys
import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deltascene.pipeline.training.rooms.labels import CLASSES

FAR_M = 6.0


def class_colours() -> NDArray[np.uint8]:
    """A colour for each class [24, 3], with hues at steps of the golden ratio."""
    turns = [
        (index * 0.618 % 1.0, 0.45 + 0.2 * (index % 3), 0.95 - 0.15 * (index % 4)) for index in range(len(CLASSES))
    ]
    return np.array([[round(255 * part) for part in colorsys.hsv_to_rgb(*turn)] for turn in turns], dtype=np.uint8)


def depth_picture(depth_HW: NDArray[np.float16]) -> NDArray[np.uint8]:
    """Depth as grey: near is light, FAR_M and beyond is dark, invalid is black [H, W, 3]."""
    depth = depth_HW.astype(np.float32)
    grey = np.where(depth > 0, 255 - 215 * np.clip(depth / FAR_M, 0, 1), 0)
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def normals_picture(normals_HW3: NDArray[np.int8]) -> NDArray[np.uint8]:
    """The usual picture of normals: x red, y up green, toward the camera blue [H, W, 3]."""
    return np.asarray(np.clip(normals_HW3.astype(np.int16) * [1, -1, -1] + 128, 0, 255), dtype=np.uint8)


def column(set_dir: Path, stem: str) -> NDArray[np.uint8]:
    """Picture and truth of one frame, one below the other [5*H, W, 3]."""
    edges = np.asarray(Image.open(set_dir / "edges" / f"{stem}.png"))
    return np.concatenate(
        [
            np.asarray(Image.open(set_dir / "images" / f"{stem}.png").convert("RGB")),
            class_colours()[np.asarray(Image.open(set_dir / "seg" / f"{stem}.png"))],
            depth_picture(np.load(set_dir / "depth" / f"{stem}.npy")),
            normals_picture(np.load(set_dir / "normals" / f"{stem}.npy")),
            np.repeat(edges[..., None], 3, axis=2),
        ]
    )


def write_sheet(set_dir: Path, out: Path, split: str, columns: int, quality: int = 82) -> None:
    """Writes a sheet of the first view of the first rooms of a split.

    Raises:
        ValueError: the split has no frames.
    """
    with (set_dir / "split.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    first = {row["room"]: row["stem"] for row in reversed(rows)}
    stems = sorted(first.values())[:columns]
    if not stems:
        raise ValueError(f"{set_dir / 'split.csv'} has no frame of split {split!r}")
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([column(set_dir, stem) for stem in stems], axis=1)).save(out, quality=quality)
