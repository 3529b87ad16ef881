"""The clips that savings are judged on: how each is made, and its truth as the scores want it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.accuracy import read_truth
from deltascene.stages.kinds import Array, Kind
from deltascene.stages.metrics import moved_region

Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class ClipSpec:
    """How a clip is made: arguments of `python -m deltascene.pipeline.training.rooms clip`.

    Attributes:
        name: of its files.
        seed: of its room.
        kind: of its content.
        noise: of the sensor, in steps of 255.
        crf: rate factor of the codec.
    """

    name: str
    seed: int
    kind: str
    noise: float = 2.0
    crf: int = 16

    @property
    def still(self) -> bool:
        """Whether one camera looks on without moving: these clips go into the mean."""
        return self.kind not in ("pan", "drift", "cut")

    def arguments(self, folder: Path, meshes: Path, cache: Path) -> list[str]:
        """Of the command that renders it."""
        where = ["--meshes", str(meshes), "--cache", str(cache), "--out", str(folder / f"{self.name}.mp4")]
        about = ["--seed", str(self.seed), "--kind", self.kind, "--noise", str(self.noise), "--crf", str(self.crf)]
        return ["clip", *where, *about]


# Thresholds are chosen on val; test is looked at once per release.
CLIPS: Mapping[str, Sequence[ClipSpec]] = {
    "demo": (ClipSpec("room", 300005, "lively"),),
    "val": (
        ClipSpec("val_static", 300100, "static"),
        ClipSpec("val_busy", 300102, "busy"),
        ClipSpec("val_lively", 300101, "lively"),
        ClipSpec("val_noise", 300103, "static", noise=5),
        ClipSpec("val_codec", 300104, "lively", crf=32),
        ClipSpec("val_flicker", 300107, "flicker"),
        ClipSpec("val_cut", 300106, "cut"),
        ClipSpec("val_pan", 300105, "pan"),
    ),
    "test": (
        ClipSpec("test_static", 300200, "static"),
        ClipSpec("test_busy", 300201, "busy"),
        ClipSpec("test_noise", 300202, "static", noise=5),
        ClipSpec("test_codec", 300203, "lively", crf=32),
        ClipSpec("test_flicker", 300206, "flicker"),
        ClipSpec("test_cut", 300205, "cut"),
        ClipSpec("test_pan", 300204, "pan"),
        ClipSpec("test_drift", 300207, "drift"),
    ),
}


@dataclass(frozen=True)
class Clip:
    """A clip with its truth.

    Attributes:
        spec: what it is.
        path: of the video.
        truth: stored-form arrays by task, time first.
        moving: where class or depth changed within the last 8 frames [T, H, W].
    """

    spec: ClipSpec
    path: Path
    truth: Mapping[str, NDArray[Any]]
    moving: Masks

    def natural(self, kinds: Mapping[str, Kind], frame: int) -> dict[str, Array]:
        """Truth of a frame in natural values, by task."""
        return {task: kinds[task].decode(stored[frame]) for task, stored in self.truth.items()}


def rendered(folder: Path, part: str) -> list[ClipSpec]:
    """Clips of a part that lie in a folder, with their truth."""
    return [spec for spec in CLIPS[part] if (folder / f"{spec.name}.truth.npz").is_file()]


def open_clip(folder: Path, spec: ClipSpec, kinds: Mapping[str, Kind]) -> Clip:
    """A clip and its truth for the tasks of a model.

    Args:
        folder: where it lies.
        spec: which.
        kinds: by task; one is of classes.

    Raises:
        UsageError: the truth can't be read.
    """
    found = read_truth(folder / f"{spec.name}.truth.npz")
    truth = {task: np.ascontiguousarray(np.moveaxis(found[task], -1, 0)) for task in kinds if task in found}
    classes = next(truth[task] for task, kind in kinds.items() if kind.name == "classes" and task in truth)
    numbers = [truth[task] for task, kind in kinds.items() if kind.name == "scalar" and task in truth]
    depth = numbers[0].astype(np.float32) if numbers else np.zeros(classes.shape, np.float32)
    moving = np.stack([moved_region(classes, depth, frame) for frame in range(len(classes))])
    return Clip(spec, folder / f"{spec.name}.mp4", truth, moving)
