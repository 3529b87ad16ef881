"""One walk through a clip: every policy sees every frame in turn, so that their times can be compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.engine.replay import Carrier, in_segments
from deltascene.pipeline.evaluation.clip_scores import Columns, count_pixels, score_frame
from deltascene.pipeline.evaluation.clips import Clip
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import read_frames
from deltascene.stages.kinds import Array, Kind
from deltascene.stages.types import Frame

EXACT = "exact"


@dataclass(frozen=True)
class Outcome:
    """What a policy made of a frame.

    Attributes:
        values: predictions by task, natural values.
        seconds: of all stages; decoding, resizing and writing left out, as for timm's forward.
        macs: that ran.
        macs_dense: of the same frame with every row.
        policy: name of what was done.
        reason: why.
    """

    values: Mapping[str, Array]
    seconds: float
    macs: int
    macs_dense: int
    policy: str
    reason: str = ""


class Walker(Carrier, Protocol):
    """A policy that walks through a clip, and starts anew with every segment, as in a run."""

    def __call__(self, frame: Frame, dense: Outcome | None) -> Outcome:
        """One frame; `dense` is what the dense network says about it, for policies that reuse that."""


class ByEngine:
    """A preset or any other config of the engine."""

    def __init__(self, model: SceneModel, config: Config) -> None:
        self._stream = Engine(model, config).open_stream("clip")
        self.segment_frames = config.segment.frames

    def reset(self) -> None:
        """A segment starts."""
        self._stream.reset()

    def __call__(self, frame: Frame, dense: Outcome | None) -> Outcome:
        """One step of the engine."""
        result = self._stream(frame)
        values = {task: prediction.array for task, prediction in result.predictions.items()}
        cost = result.cost
        resizing = sum(task.seconds.get("preprocess", 0.0) for task in cost.tasks.values())
        macs = (cost.macs_executed, cost.macs_dense)
        return Outcome(values, cost.seconds - resizing, *macs, result.policy, result.reason)


def walk(
    clip: Clip,
    kinds: Mapping[str, Kind],
    walkers: Mapping[str, Walker],
    said_dense: NDArray[Any] | None = None,
    *,
    frames: int,
    judged: bool = True,
) -> dict[str, Columns]:
    """Takes every policy through a clip, frame by frame.

    Args:
        clip: with truth.
        kinds: by task.
        walkers: policies by name. `exact` goes first, if it is there; who is next changes from frame to frame.
        said_dense: classes of dense prediction [T, H, W] where `exact` doesn't walk along.
        frames: at most so many.
        judged: whether to score; without it only times and costs are kept.

    Returns:
        A record for each policy; that of `exact` has its `classes`, too.
    """
    task = next(task for task, kind in kinds.items() if kind.name == "classes")
    others = [name for name in walkers if name != EXACT]
    rows: dict[str, list[dict[str, NDArray[Any]]]] = {name: [] for name in walkers}
    before: dict[str, Array] = {}
    with read_frames(find_sources([str(clip.path)])[0]) as reader:
        walked = islice(reader, min(frames, len(clip.moving)))
        for number, frame in enumerate(in_segments(walked, *walkers.values())):
            dense = walkers[EXACT](frame, None) if EXACT in walkers else None
            first = number % max(1, len(others))
            turns = [*others[first:], *others[:first]]
            outcomes = {name: walkers[name](frame, dense) for name in turns}
            outcomes |= {} if dense is None else {EXACT: dense}
            truth = clip.natural(kinds, number) if judged else {}
            for name, out in outcomes.items():
                row = _costs(out)
                if judged:
                    said, moving = out.values[task], clip.moving[number]
                    reference = dense.values[task] if dense is not None else said_dense[number]  # type: ignore[index]
                    row |= score_frame(kinds, truth, out.values, moving, number)
                    row["flicker"] = count_pixels(before.get(name, said) != said, ~moving)
                    row["agreement"] = count_pixels(said == reference)
                    before[name] = said
                    row |= {"classes": said} if name == EXACT else {}
                rows[name].append(row)
    return {name: {key: np.stack([row[key] for row in found]) for key in found[0]} for name, found in rows.items()}


def _costs(out: Outcome) -> dict[str, NDArray[Any]]:
    return {
        "seconds": np.array([[out.seconds], [1.0]]),
        "macs": np.array([[float(out.macs)], [float(out.macs_dense)]]),
        "policy": np.array(out.policy),
        "reason": np.array(out.reason),
    }
