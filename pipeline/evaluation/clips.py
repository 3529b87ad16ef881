"""Clips with their truth."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.runs.accuracy import read_truth
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import probe
from deltascene.pipeline.sources.spec import VIDEO_SUFFIXES
from deltascene.stages.kinds import Array, Kind
from deltascene.stages.metrics import moved_region, moving_window

Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Clip:
    """A clip with its truth.

    Attributes:
        name: of its file.
        path: of the video.
        truth: stored-form arrays by task, time first.
        moving: pixels whose class or depth changed within the last 8/15 s [T, H, W].
    """

    name: str
    path: Path
    truth: Mapping[str, NDArray[Any]]
    moving: Masks

    def natural(self, kinds: Mapping[str, Kind], frame: int) -> dict[str, Array]:
        """Truth of a frame as natural values, by task."""
        return {task: kinds[task].decode(stored[frame]) for task, stored in self.truth.items()}


def find_clips(folder: Path) -> list[Path]:
    """Videos of a folder with truth, `<stem>.truth.npz`, beside them; sorted by name."""
    suffix = ".truth.npz"
    stems = [path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}")]
    return sorted(path for path in folder.iterdir() if path.stem in stems and path.suffix in VIDEO_SUFFIXES)


def open_clip(path: Path, kinds: Mapping[str, Kind]) -> Clip:
    """A clip and its truth for the tasks of a model.

    Args:
        path: of the video; its truth is beside it.
        kinds: by task; one must be `classes`.

    Raises:
        UsageError: the truth can't be read, or has no classes.
        SourceError: the truth doesn't say the video's rate, `fps`, and the video can't be read.
    """
    truth, fps = truth_of(path, kinds)
    classes = next(truth[task] for task, kind in kinds.items() if kind.name == "classes" and task in truth)
    numbers = [truth[task] for task, kind in kinds.items() if kind.name == "scalar" and task in truth]
    depth = numbers[0].astype(np.float32) if numbers else np.zeros(classes.shape, np.float32)
    fps = fps or float(probe(find_sources([str(path)])[0]).fps)
    return Clip(path.stem, path, truth, moving_region(classes, depth, fps))


def moving_region(classes: NDArray[Any], depth: NDArray[Any], fps: float) -> Masks:
    """Pixels whose class or depth [T, H, W] changed within the last 8/15 s, in every frame."""
    window = moving_window(fps)
    return np.stack([moved_region(classes, depth, frame, window) for frame in range(len(classes))])


def truth_of(path: Path, kinds: Mapping[str, Kind]) -> tuple[dict[str, NDArray[Any]], float | None]:
    """Stored-form truth beside a video by task, time first, and the video's rate if the truth says it.

    Raises:
        UsageError: the truth can't be read, or has no classes.
    """
    truth_path = path.with_name(f"{path.stem}.truth.npz")
    found = read_truth(truth_path)
    truth = {task: np.ascontiguousarray(np.moveaxis(found[task], -1, 0)) for task in kinds if task in found}
    if not any(kind.name == "classes" and task in truth for task, kind in kinds.items()):
        known = (
            ", ".join(task for task, kind in kinds.items() if kind.name == "classes") or "which the model has none of"
        )
        raise UsageError(f"{truth_path}: expected truth of a task of classes, {known}; found {', '.join(found)}")
    rate = found.get("fps", np.array("unknown"))
    said = rate.ndim == 0 and rate.dtype.kind in "fiu" and 0 < rate < np.inf
    return truth, float(rate) if said else None
