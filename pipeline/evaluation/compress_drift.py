"""How far a compressed sub-task's answers lie from those of the network it was made from, on a clip."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from deltascene.pipeline.bundles.bundle import Bundle
from deltascene.pipeline.bundles.scene_model import load_model
from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import read_frames
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.stages.backbone import Backbone


@dataclass(frozen=True, slots=True)
class ClipDrift:
    """Drift of one task over the frames of a clip, in its kind's unit.

    Attributes:
        unit: the kind's.
        compressed: of the compressed sub-task against the fine-tuned network, frame by frame.
        without: of the same head on the base's own activations, without a delta: what the delta is worth.
    """

    unit: str
    compressed: Sequence[float]
    without: Sequence[float]

    @property
    def mean(self) -> float:
        """Of the compressed sub-task."""
        return float(np.mean(self.compressed))

    @property
    def p95(self) -> float:
        """Of the compressed sub-task: 95 % of the frames lie below."""
        return float(np.percentile(self.compressed, 95))


def find_clip(clip: Path, frames: int) -> SourceSpec:
    """The one source at a path.

    Raises:
        UsageError: there are several, or no frames are asked for.
        SourceError: there is none.
    """
    if frames < 1:
        raise UsageError(f"--frames: expected 1 or more; found {frames}")
    found = find_sources([str(clip)])
    if len(found) != 1:
        raise UsageError(f"--clip {clip}: expected one video; found {len(found)}")
    return found[0]


def measure_drift(
    bundle: Bundle, task: str, tuned: Backbone, clip: SourceSpec, frames: int, *, allow_code: bool = False
) -> ClipDrift:
    """Runs a task three ways over a clip, every row of every frame: as a network of its own, compressed, without delta.

    Args:
        bundle: the compressed one.
        task: its sub-task.
        tuned: the network that was fine-tuned for the task; it gets the bundle's head and input.
        clip: the video.
        frames: at most so many are compared, from the start.
        allow_code: whether the head may be imported from the user's own package.

    Raises:
        UsageError: no frame can be predicted.
        SourceError: the clip can't be read.
    """
    model = load_model(bundle, [task], allow_code=allow_code)
    plain = replace(model, sub_tasks={})
    config = load_config("exact", values={"model": str(bundle.folder), "numerics.dtype": "float32"})
    models = (replace(plain, backbone=tuned), model, plain)
    streams = [Engine(each, config).open_stream(task) for each in models]
    kind, compressed, without = bundle.kinds[task], list[float](), list[float]()
    with read_frames(clip) as reader:
        for frame in islice((frame for frame in reader if frame.valid), frames):
            alone, ours, base = (stream(frame)[task].array for stream in streams)
            compressed.append(kind.drift(ours, alone))
            without.append(kind.drift(base, alone))
    if not compressed:
        raise UsageError(f"--clip {clip.id}: expected frames that can be predicted; found none")
    return ClipDrift(kind.drift_unit, compressed, without)
