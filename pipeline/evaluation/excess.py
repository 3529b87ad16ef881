"""Drift of configs on some frames, every frame computed in full beside them: the excess over dense prediction's floor.

Words and numbers are those of audits (`pipeline.engine.audit`, `pipeline.report.audits`): drift is the distance from
dense prediction, the floor what dense prediction itself changes from frame to frame in the patches that didn't move
lately, excess the difference of their means, not below 0; dense frames count as 0 in each.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan

import numpy as np
import torch
from numpy.typing import NDArray

from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.engine.audit import AuditState, Drift, draw, measure
from deltascene.pipeline.engine.engine import Engine, Stream
from deltascene.pipeline.engine.replay import begins_segment, in_segments
from deltascene.pipeline.engine.results import FrameResult
from deltascene.pipeline.evaluation.bounds import MEAN
from deltascene.pipeline.evaluation.clip_scores import REGIONS
from deltascene.stages.kinds import ALL_WRONG, Kind
from deltascene.stages.types import Frame

_NO_PIXELS = torch.empty(0, dtype=torch.uint8)

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Excess:
    """Means over frames, as shares; 1 is all wrong. NaN where nothing moved, or nothing stood still to measure a floor.

    Attributes:
        drift: distance from dense prediction.
        floor: what dense prediction itself changes from frame to frame where nothing moved.
        excess: drift beyond the floor; all of the drift where there is no floor.
    """

    drift: float = nan
    floor: float = nan
    excess: float = nan


@dataclass(frozen=True)
class Measured:
    """Sums over frames that ran under a config and in full.

    Attributes:
        sums: by task [regions, 5]: drift, frames with one, floor, frames with one, dense frames.
        macs: MACs executed.
        macs_dense: MACs of dense prediction.
        seconds: time of all stages without decoding, resizing and writing.
        frames: valid frames.
        resizing_s: time of resizing.
        opening_s: time of the frames that opened a segment, resizing included.
        opening: number of these frames.
    """

    sums: Mapping[str, Numbers]
    macs: int
    macs_dense: int
    seconds: float
    frames: int
    resizing_s: float = 0.0
    opening_s: float = 0.0
    opening: int = 0

    def ms_per_frame(self, segment_frames: int) -> float:
        """Mean time of a frame with resizing in a run whose segments have so many frames; NaN without a frame.

        These frames may have opened segments more often than a run does.
        """
        if not self.opening:
            return nan
        later, opening = self.frames - self.opening, self.opening_s / self.opening
        steady = (self.seconds + self.resizing_s - self.opening_s) / later if later else opening
        return 1e3 * (steady + (opening - steady) / segment_frames)

    def excess(self, kinds: Mapping[str, Kind]) -> dict[str, dict[str, Excess]]:
        """Excess by region and task, and the mean over tasks under `MEAN`."""
        found = {}
        for at, region in enumerate(REGIONS):
            tasks = {task: _excess(sums[at], ALL_WRONG.get(kinds[task].name, 1.0)) for task, sums in self.sums.items()}
            means = [_mean_of([getattr(each, name) for each in tasks.values()]) for name in Excess.__slots__]
            found[region] = {MEAN: Excess(*means), **tasks}
        return found


def compare(
    model: SceneModel, configs: Sequence[Config], dense: Config, frames: Iterable[Frame], starts: Sequence[int] = (0,)
) -> list[Measured]:
    """Runs frames of one stream under every config, and in full; all see a frame before the next one.

    Args:
        model: the model.
        configs: resolved configs with the same segments.
        dense: config of dense prediction with the same.
        frames: the frames; segments are counted from the first of them.
        starts: numbers of first frames, from each of which every config runs.
    """
    full = Engine(model, dense).open_stream("dense")
    runs = [(start, _Run(model, config)) for config in configs for start in starts]
    before: FrameResult | None = None
    for number, frame in enumerate(in_segments(frames, full)):
        reference = full(frame)
        for start, run in (*runs[number % len(runs) :], *runs[: number % len(runs)]):
            if number >= start:
                run.add(number - start, frame, reference, before)
        before = reference if reference.predictions else before
    passes = [run.measured for _, run in runs]
    return [add_up(passes[at : at + len(starts)]) for at in range(0, len(passes), len(starts))]


def add_up(parts: Sequence[Measured]) -> Measured:
    """Sums over the frames of several parts."""
    tasks = {task for part in parts for task in part.sums}
    return Measured(
        {task: np.sum([part.sums[task] for part in parts if task in part.sums], axis=0) for task in sorted(tasks)},
        sum(part.macs for part in parts),
        sum(part.macs_dense for part in parts),
        sum(part.seconds for part in parts),
        sum(part.frames for part in parts),
        sum(part.resizing_s for part in parts),
        sum(part.opening_s for part in parts),
        sum(part.opening for part in parts),
    )


class _Run:
    """A config's stream, with what is measured on it."""

    def __init__(self, model: SceneModel, config: Config) -> None:
        silent = config.run.model_copy(update={"audit": "off", "audit_every": None})
        self._config = config.model_copy(update={"run": silent})
        self._stream: Stream = Engine(model, self._config).open_stream("reused")
        self._audits = AuditState()
        self.measured = Measured({}, 0, 0, 0.0, 0)

    def add(self, number: int, frame: Frame, dense: FrameResult, before: FrameResult | None) -> None:
        """Runs a frame, and measures it against dense prediction of it and of the valid frame before."""
        if begins_segment(number, self._config.segment.frames):
            self._stream.reset()
            self._audits = AuditState()
        result = self._stream(frame)
        if not result.predictions:
            return
        first = result.reason == "reset"
        self._audits, drawn = draw(self._config, self._stream.grid, self._audits, result, _NO_PIXELS)
        assert drawn.moved is not None
        sums, drifts = dict(self.measured.sums), {}
        if result.policy != "dense":
            drifts = measure(result, dense, None if first else before, drawn.moved, self._stream.grid)
        for task, found in frame_sums(result.predictions, drifts, moved=bool(drawn.moved.any())).items():
            sums[task] = sums.get(task, 0) + found
        cost, total = result.cost, self.measured
        resizing = sum(task.seconds.get("preprocess", 0.0) for task in cost.tasks.values())
        self.measured = Measured(
            sums,
            total.macs + cost.macs_executed,
            total.macs_dense + cost.macs_dense,
            total.seconds + cost.seconds - resizing,
            total.frames + 1,
            total.resizing_s + resizing,
            total.opening_s + first * cost.seconds,
            total.opening + first,
        )


def frame_sums(tasks: Iterable[str], drifts: Mapping[str, Drift], *, moved: bool) -> dict[str, Numbers]:
    """What a frame adds to the sums of `Measured`.

    Args:
        tasks: those that were predicted.
        drifts: by task; none for a dense frame, which counts as 0.
        moved: whether any patch moved lately.
    """
    if not drifts:
        return {task: np.array([[0, 0, 0, 0, 1], [0, 0, 0, 0, moved]], np.float64) for task in tasks}
    return {task: np.array(_rows(drifts[task], moved=moved)) for task in tasks}


def _rows(drift: Drift, *, moved: bool) -> list[list[float]]:
    return [_row(drift.whole, drift.floor), _row(drift.moved, drift.floor if moved else None)]


def _row(drift: float | None, floor: float | None) -> list[float]:
    return [drift or 0.0, drift is not None, floor or 0.0, floor is not None, 0]


def _excess(row: Numbers, all_wrong: float) -> Excess:
    drift, frames, floor, floors, zero = map(float, row)
    if not frames + zero:
        return Excess()
    part = frames / (frames + zero) / all_wrong
    mean = part * drift / frames if frames else 0.0
    below = part * floor / floors if floors else (nan if frames else 0.0)
    return Excess(mean, below, max(0.0, mean - (0.0 if isnan(below) else below)))


def _mean_of(values: Sequence[float]) -> float:
    known = [value for value in values if not isnan(value)]
    return float(np.mean(known)) if known else nan
