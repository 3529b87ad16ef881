"""Runs several policies through a clip together: all see a frame before the next one, so that times are comparable."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.engine.replay import Carrier, begins_segment
from deltascene.pipeline.engine.results import FrameResult
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.evaluation.clip_scores import Columns, count_pixels, score_frame
from deltascene.pipeline.evaluation.clips import Clip
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import read_frames
from deltascene.stages.kinds import Array, Kind
from deltascene.stages.types import Frame

EXACT = "exact"


@dataclass(frozen=True)
class Outcome:
    """Result of a policy for a frame.

    Attributes:
        values: predictions by task, natural values.
        seconds: time of all stages without decoding, resizing and writing, as for timm's forward.
        macs: MACs executed.
        macs_dense: MACs of dense prediction of the frame.
        policy: name of the policy that was applied.
        reason: why it was applied.
    """

    values: Mapping[str, Array]
    seconds: float
    macs: int
    macs_dense: int
    policy: str
    reason: str = ""


class Walker(Carrier, Protocol):
    """A policy that is run through a clip, and is reset at every segment, as in a run."""

    def __call__(self, frame: Frame, dense: Outcome | None) -> Outcome:
        """Processes one frame; `dense` is its dense prediction, for policies that reuse it."""


class ByEngine:
    """The engine with a preset or any other config; `result` is that of the last frame."""

    result: FrameResult

    def __init__(self, model: SceneModel, config: Config) -> None:
        self._stream = Engine(model, config).open_stream("clip")
        self.segment_frames = config.segment.frames

    def reset(self) -> None:
        """Starts a segment."""
        self._stream.reset()

    def __call__(self, frame: Frame, dense: Outcome | None) -> Outcome:
        """Processes one frame with the engine."""
        result = self.result = self._stream(frame)
        values = {task: prediction.array for task, prediction in result.predictions.items()}
        cost = result.cost
        resizing = sum(task.seconds.get("preprocess", 0.0) for task in cost.tasks.values())
        return Outcome(
            values=values,
            seconds=cost.seconds - resizing,
            macs=cost.macs_executed,
            macs_dense=cost.macs_dense,
            policy=result.policy,
            reason=result.reason,
        )


def walk(
    clip: Clip,
    kinds: Mapping[str, Kind],
    walkers: Mapping[str, Walker],
    dense_classes: NDArray[Any] | None = None,
    *,
    frames: int,
    judged: bool = True,
    starts: Mapping[str, int] | None = None,
) -> dict[str, Columns]:
    """Runs every policy through a clip, frame by frame.

    Args:
        clip: a clip with truth.
        kinds: by task.
        walkers: policies by name. `exact`, if present, is first; the order of the others rotates from frame to frame.
        dense_classes: classes of dense prediction [T, H, W], if `exact` isn't among the policies.
        frames: maximum number of frames.
        judged: whether to score; otherwise only times and costs are recorded.
        starts: frame at which a policy begins, as if the clip began there; 0 where it isn't named.

    Returns:
        A record for each policy, from its first frame on; that of `exact` also has its `classes`.

    Raises:
        UsageError: the truth has another size than the predictions, or the clip ends before a policy begins.
    """
    task = next(task for task, kind in kinds.items() if kind.name == "classes")
    others = [name for name in walkers if name != EXACT]
    begins = {name: (starts or {}).get(name, 0) for name in walkers}
    rows: dict[str, list[dict[str, NDArray[Any]]]] = {name: [] for name in walkers}
    before: dict[str, Array] = {}
    with read_frames(find_sources([str(clip.path)])[0]) as reader:
        walked = islice(reader, min(frames, len(clip.moving)))
        for number, frame in enumerate(walked):
            for name, walker in walkers.items():
                if (since := number - begins[name]) >= 0 and begins_segment(since, walker.segment_frames):
                    walker.reset()
            dense = walkers[EXACT](frame, None) if EXACT in walkers else None
            first = number % max(1, len(others))
            order = [name for name in (*others[first:], *others[:first]) if number >= begins[name]]
            outcomes = {name: walkers[name](replace(frame, index=frame.index - begins[name]), dense) for name in order}
            outcomes |= {} if dense is None else {EXACT: dense}
            truth = clip.natural(kinds, number) if judged else {}
            for name, out in outcomes.items():
                row = _costs(out)
                if judged:
                    classes, moving = out.values[task], clip.moving[number]
                    _refuse_other_size(clip, truth, out.values)
                    reference = dense.values[task] if dense is not None else dense_classes[number]  # type: ignore[index]
                    row |= score_frame(kinds, truth, out.values, moving, number)
                    row["flicker"] = count_pixels(before.get(name, classes) != classes, ~moving)
                    row["agreement"] = count_pixels(classes == reference)
                    before[name] = classes
                    row |= {"classes": classes} if name == EXACT else {}
                rows[name].append(row)
    if late := next((name for name, found in rows.items() if not found), None):
        raise UsageError(f"{clip.path}: expected more than {begins[late]} frames, where a policy begins; found fewer")
    return {name: {key: np.stack([row[key] for row in found]) for key in found[0]} for name, found in rows.items()}


def _refuse_other_size(clip: Clip, truth: Mapping[str, Array], predicted: Mapping[str, Array]) -> None:
    for task, true in truth.items():
        if (found := true.shape[:2]) != (wanted := predicted[task].shape[:2]):
            raise UsageError(f"{clip.path}: {task}: expected truth of {wanted}, as predicted; found {found}")


def _costs(out: Outcome) -> dict[str, NDArray[Any]]:
    return {
        "seconds": np.array([[out.seconds], [1.0]]),
        "macs": np.array([[float(out.macs)], [float(out.macs_dense)]]),
        "policy": np.array(out.policy),
        "reason": np.array(out.reason),
    }
