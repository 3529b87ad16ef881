"""The pilot of a run with a bound on drift or time: the steps of a ladder beside dense prediction, on windows of its
inputs.

Which windows, and so what is chosen for a bound on drift, is a function of inputs, config and seed alone.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isnan, nan, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from deltascene.errors import DeltasceneError
from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config, in_full
from deltascene.pipeline.engine.audit import uniform
from deltascene.pipeline.errors import UsageError, nearest
from deltascene.pipeline.evaluation.bounds import MEAN, Bounds, Goal
from deltascene.pipeline.evaluation.clip_scores import MOVING, REGIONS, WHOLE
from deltascene.pipeline.evaluation.excess import Excess, Measured, add_up, compare
from deltascene.pipeline.evaluation.ladder import Step, falling, ladder
from deltascene.pipeline.evaluation.progress import Progress, unseen
from deltascene.pipeline.numerics.plain_torch import plain_torch
from deltascene.pipeline.runs.pilot_record import PARTS
from deltascene.pipeline.sources.info import SourceInfo
from deltascene.pipeline.sources.reader import open_source, probe, selected_frames
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.stages.kinds import Kind

WINDOW_S = 2.0
SHARE = 0.02  # of the frames: what the windows have at most, unless one window is more
MOST = 16  # windows: more take longer and say little more
LOOKED_AT = 200  # inputs that are looked into for their lengths
PART = {MOVING: PARTS["moved"], WHOLE: PARTS["whole"]}  # of the bound that each region may reach
SURE = 0.9  # one-sided confidence with which a step keeps to a bound
SPREAD = 0.5  # of the mean: the least standard deviation of windows that is believed, as few windows show little of it

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Window:
    """Some adjacent processed frames of an input; `first` is the number of the first one in the source."""

    spec: SourceSpec
    info: SourceInfo
    first: int
    frames: int


@dataclass(frozen=True, slots=True)
class PilotPlan:
    """What a pilot reads.

    Attributes:
        windows: the windows.
        of: processed frames of the inputs that were looked into.
        fps: largest rate of processed frames among them.
    """

    windows: Sequence[Window]
    of: int
    fps: float

    @property
    def frames(self) -> int:
        """Frames of all windows."""
        return sum(window.frames for window in self.windows)

    def __str__(self) -> str:
        count, part = len(self.windows), self.frames / self.of
        text = f"{self.frames} of {self.of} frames ({100 * part:.1f} %) in {count} window{'s' if count > 1 else ''}"
        return text + (", more than 2 % as the inputs are short" if part > SHARE else "")


@dataclass(frozen=True)
class Judged:
    """A step on a pilot's windows.

    Attributes:
        step: the step.
        macs: its MACs as a share of dense prediction's.
        excess: by region, of every task and of their mean.
        upper: the same excess with its margin: what it is at most, as sure as `SURE`.
        ms: mean time of computing a frame, with resizing.
    """

    step: Step
    macs: float
    excess: Mapping[str, Mapping[str, Excess]]
    upper: Mapping[str, Mapping[str, float]]
    ms: float = nan

    def keeps(self, goal: Goal) -> bool:
        """Whether it keeps to the goal; a region in which nothing moves has no drift."""
        if goal.max_ms is not None:
            return self.ms <= goal.max_ms
        return not any(
            self.upper[region][of] > PART[region] * most for of, most in goal.max_drift.items() for region in REGIONS
        )

    def reached(self, of: str) -> float:
        """The smallest bound that it keeps to."""
        return max((self.upper[at][of] / PART[at] for at in REGIONS if not isnan(self.upper[at][of])), default=0.0)


@dataclass(frozen=True)
class Pilot:
    """Result of a pilot: the steps from the strictest on, the one chosen, and whether it keeps to the goal."""

    goal: Goal
    plan: PilotPlan
    judged: Sequence[Judged]
    chosen: Judged
    kept: bool

    def record(self) -> dict[str, Any]:
        """The pilot as plain values, for run.yaml."""
        return {
            **self.goal.record(),
            "frames": self.plan.frames,
            "of_frames": self.plan.of,
            "windows": [
                {"source": window.spec.id, "first": window.first, "frames": window.frames}
                for window in self.plan.windows
            ],
            "chosen": self.chosen.step.scale,
            "kept": self.kept,
            "steps": [_step_record(each) for each in self.judged],
        }


def check_bounds(bounds: Bounds, tasks: Sequence[str]) -> None:
    """Refuses bounds of tasks that don't run.

    Raises:
        UsageError: there is such a bound.
    """
    for task in bounds:
        if task != MEAN and task not in tasks:
            raise UsageError(f"--max-drift: tasks are {', '.join(tasks)}; found {task!r}{nearest(task, tasks)}")


def plan_pilot(config: Config, specs: Sequence[SourceSpec]) -> PilotPlan:
    """Draws the windows: one out of every equal part of the frames of all inputs.

    Of very many inputs, some that are drawn stand for all.

    Raises:
        UsageError: no input can be read.
    """
    seed, how = config.run.audit_seed, config.source
    drawn = sorted(specs, key=lambda spec: uniform(f"pilot {seed} {spec.id}"))[:LOOKED_AT]
    inputs = list[tuple[SourceSpec, SourceInfo, range]]()
    for spec in sorted(drawn, key=lambda spec: spec.id):
        try:
            info = probe(spec, decoder=how.decoder, fps=how.fps, timeout_s=how.timeout_s)
        except DeltasceneError:
            continue  # the run says why
        if wanted := selected_frames(how, info):
            inputs.append((spec, info, wanted))
    if not inputs:
        raise UsageError("pilot: expected an input that can be read; found none")
    of = sum(len(wanted) for *_, wanted in inputs)
    fps = max(float(info.fps) / how.stride for _, info, _ in inputs)
    count = min(MOST, max(1, int(SHARE * of / _length(fps))))
    part, windows = of / count, list[Window]()
    for number in range(count):
        u = uniform(f"pilot {seed} {number} {of} {inputs[0][0].id}")
        at = int(part * number + u * max(0.0, part - _length(fps)))
        for spec, info, wanted in inputs:
            if at < len(wanted):
                frames = min(len(wanted), _length(float(info.fps) / how.stride))
                windows.append(Window(spec, info, wanted[min(at, len(wanted) - frames)], frames))
                break
            at -= len(wanted)
    return PilotPlan(windows, of, fps)


@plain_torch()
def run_pilot(model: SceneModel, config: Config, plan: PilotPlan, progress: Progress = unseen) -> list[Judged]:
    """Runs every step of the config's ladder on the windows.

    Args:
        model: the model, with weights.
        config: resolved and settled config with a preset that reuses.
        plan: the windows.
        progress: is told of every window.

    Returns:
        The steps, the strictest first, without those that compute no less than a stricter one.

    Raises:
        UsageError: the config has no ladder, or no window can be read.
    """
    steps = ladder(config, plan.fps)
    parts, work = list[list[Measured]](), "pilot"
    progress(work, 0, len(plan.windows))
    for number, window in enumerate(plan.windows, 1):
        try:
            with open_source(config.source, window.spec, start_frame=window.first, info=window.info) as reader:
                frames = islice(reader, window.frames)
                parts.append(compare(model, [step.config for step in steps], in_full(config), frames))
        except DeltasceneError as error:
            _log.warning("pilot: a window of %s is left out: %s", window.spec.id, error)
        progress(work, number, len(plan.windows))
    if not any(found.frames for part in parts for found in part):
        raise UsageError("pilot: expected a window that can be read; found none")
    kinds, left = model.bundle.kinds, 1 - min(1.0, plan.frames / plan.of)
    judged = [
        judge(step, mine, kinds, left, config.segment.frames)
        for step, mine in zip(steps, zip(*parts, strict=True), strict=True)
    ]
    cheaper = falling([each.step for each in judged], [each.macs for each in judged])
    return [each for each in judged if each.step in cheaper]


def choose_step(goal: Goal, plan: PilotPlan, judged: Sequence[Judged]) -> Pilot:
    """Chooses a step out of what `run_pilot` found.

    For bounds on drift it is the cheapest that keeps to them, the strictest where none does; for a bound on time it is
    the strictest that keeps to it, the cheapest where none does.
    """
    best_first = judged[::-1] if goal.max_ms is None else judged
    keeping = [each for each in best_first if each.keeps(goal)]
    return Pilot(goal, plan, judged, [*keeping, best_first[-1]][0], bool(keeping))


def judge(
    step: Step, windows: Sequence[Measured], kinds: Mapping[str, Kind], left: float, segment_frames: int
) -> Judged:
    """A step's excess over all windows, what it is at most, and its time.

    The margin follows from how much the mean changes when one window is left out (jackknife), with Student's quantile;
    windows are taken to differ by half of the mean at least, so that one window alone has a margin, too.

    Args:
        step: the step.
        windows: what was measured in each.
        kinds: kind of every task.
        left: share of the frames that isn't in the windows; where it is 0, nothing is unsure.
        segment_frames: frames of a segment of the run.
    """
    windows = [window for window in windows if window.frames]
    total, count = add_up(windows), len(windows)
    whole = total.excess(kinds)
    without = [add_up([*windows[:at], *windows[at + 1 :]]).excess(kinds) for at in range(count)] if count > 1 else []
    upper: dict[str, dict[str, float]] = {}
    for region, tasks in whole.items():
        upper[region] = {}
        for task, found in tasks.items():
            others = [each[region].get(task, Excess()).excess for each in without]
            known = np.array([found.excess if isnan(other) else other for other in others])
            jackknife = sqrt((count - 1) / count * float(((known - known.mean()) ** 2).sum())) if count > 1 else 0.0
            error = max(jackknife, SPREAD * found.excess / sqrt(count))
            upper[region][task] = found.excess + _quantile(count - 1) * error * sqrt(left)
    macs = total.macs / max(1, total.macs_dense)
    return Judged(step, macs, whole, upper, total.ms_per_frame(segment_frames))


def _quantile(freedom: int) -> float:
    """Student's quantile at `SURE`; with few windows, whose spread is mostly assumed, that of a normal distribution."""
    if freedom < 4:
        return NormalDist().inv_cdf(SURE)
    from scipy.special import stdtrit  # takes longer to import than all else here

    return float(stdtrit(freedom, SURE))


def _length(fps: float) -> int:
    return max(2, round(WINDOW_S * fps))


def _step_record(judged: Judged) -> dict[str, Any]:
    macs = round(judged.macs, 5)
    record: dict[str, Any] = {"scale": judged.step.scale, "numbers": judged.step.numbers, "macs": macs}
    record["ms"] = None if isnan(judged.ms) else round(judged.ms, 3)
    for region, name in ((MOVING, "moved"), (WHOLE, "whole")):
        record[name] = {
            task: {
                "drift": _plain(found.drift),
                "floor": _plain(found.floor),
                "excess": _plain(found.excess),
                "at_most": _plain(judged.upper[region][task]),
            }
            for task, found in judged.excess[region].items()
        }
    return record


def _plain(value: float) -> float | None:
    return None if isnan(value) else round(value, 6)
