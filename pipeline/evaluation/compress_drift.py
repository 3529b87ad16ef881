"""Drift of a compressed sub-task from the fine-tuned network that it was made from, on a clip."""

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
    """Drift of one task on the frames of a clip, in the unit of its kind.

    Attributes:
        unit: unit of the kind's drift.
        compressed: drift of the compressed sub-task from the fine-tuned network, by frame.
        without: drift of the same head on the base's activations, without the delta, by frame.
    """

    unit: str
    compressed: Sequence[float]
    without: Sequence[float]

    @property
    def mean(self) -> float:
        """Mean drift of the compressed sub-task."""
        return float(np.mean(self.compressed))

    @property
    def p95(self) -> float:
        """95th percentile of the drift of the compressed sub-task."""
        return float(np.percentile(self.compressed, 95))


def find_clip(clip: Path, frames: int) -> SourceSpec:
    """The source at a path.

    Raises:
        UsageError: there are several, or the number of frames isn't positive.
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
    """Predicts a clip densely with the fine-tuned network, with the compressed sub-task, and without its delta.

    Args:
        bundle: the compressed bundle.
        task: name of the sub-task.
        tuned: the network fine-tuned for the task; it gets the bundle's head and input.
        clip: the video.
        frames: maximum number of frames, from the start.
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
            reference, own, base = (stream(frame)[task].array for stream in streams)
            compressed.append(kind.drift(own, reference))
            without.append(kind.drift(base, reference))
    if not compressed:
        raise UsageError(f"--clip {clip.id}: expected frames that can be predicted; found none")
    return ClipDrift(kind.drift_unit, compressed, without)
