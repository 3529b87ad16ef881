"""Models side by side on labelled images, and a preset against dense prediction on clips with known truth."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deltascene.cache.places import write_whole
from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.evaluation.clip_scores import Columns
from deltascene.pipeline.evaluation.clip_table import Judged, judge
from deltascene.pipeline.evaluation.clips import find_clips, open_clip, truth_of
from deltascene.pipeline.evaluation.images import ImageScores, Interval, gain, intervals, score_images
from deltascene.pipeline.evaluation.phases import walk_phases
from deltascene.pipeline.evaluation.progress import Progress, unseen
from deltascene.pipeline.evaluation.tradeoff import Point, plot_tradeoff
from deltascene.pipeline.evaluation.walk import EXACT, ByEngine
from deltascene.pipeline.numerics.plain_torch import plain_torch
from deltascene.pipeline.numerics.settle import settle
from deltascene.pipeline.training.data import LabelledFolder
from deltascene.stages.metrics import METRICS

STL, FROZEN = "single-task", "frozen-shared"


ClipScores = Mapping[str, Mapping[str, Judged]]  # by clip and by policy; the clip `mean` is the mean over all clips


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """Values of `deltascene eval`.

    Attributes:
        data: folder of labelled images; None compares no images.
        part: part of the folder that is scored.
        models: bundles by the name under which they are shown.
        stl: bundles of single-task networks, one for each task.
        frozen: bundle whose heads were trained on the frozen base.
        clips: folder of videos with `<stem>.truth.npz`; None compares no clips.
        preset: preset that is compared with dense prediction on the clips.
        frames: largest number of frames that are read of each clip.
        out: folder for `eval.json` and `tradeoff.svg`; None writes neither.
        phases: number of first frames from which every clip is run.
    """

    data: Path | None
    part: str
    models: Mapping[str, str]
    stl: Sequence[str] = ()
    frozen: str | None = None
    clips: Path | None = None
    preset: str = "balanced"
    frames: int = 10_000
    out: Path | None = None
    phases: int = 1


@dataclass(frozen=True, slots=True)
class Row:
    """Scores of one candidate on the images.

    Attributes:
        measures: every measure of every task, by task and by name.
        intervals: 95 % intervals of the headline measures by task, and of `gain`.
        gain: Delta m against the single-task networks in percent; None where there are none.
        macs: mean MACs of one image.
        ms: median time of one image in milliseconds.
    """

    measures: Mapping[str, Mapping[str, float]]
    intervals: Mapping[str, Interval]
    gain: float | None
    macs: int
    ms: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result of `deltascene eval`.

    Attributes:
        request: the values it was made for.
        images: scores by candidate; empty where no images were compared.
        clips: scores by model; empty where no clips were compared.
    """

    request: EvalRequest
    images: Mapping[str, Row]
    clips: Mapping[str, ClipScores]

    @property
    def record(self) -> dict[str, Any]:
        """The content of `eval.json`; a number that isn't known is None."""
        found: dict[str, Any] = {"models": dict(self.request.models)}
        if self.images:
            found["images"] = {"part": self.request.part, **{name: asdict(row) for name, row in self.images.items()}}
        if self.clips:
            found["clips"] = {
                name: {clip: {policy: asdict(one) for policy, one in of.items()} for clip, of in scores.items()}
                for name, scores in self.clips.items()
            }
        plain: dict[str, Any] = _plain(found)
        return plain


def check_request(request: EvalRequest) -> None:
    """Refuses a request that can't be answered.

    Raises:
        UsageError: there is nothing to compare, or a model has a name that `eval.json` uses.
    """
    if request.data is None and request.clips is None:
        raise UsageError("eval: expected a labelled folder DATA, --clips FOLDER, or both; found neither")
    for name in (STL, FROZEN, "part"):
        if name in request.models:
            raise UsageError(f"--model: expected another name than {name}, which eval.json has; found {name!r}")


def write_tradeoff(out: Path, rows: Mapping[str, Row]) -> Path | None:
    """Plots gain over MACs into `out`; returns the file, or None where no candidate has a gain."""
    out.mkdir(parents=True, exist_ok=True)
    points = {
        name: Point(row.macs, row.gain, row.intervals.get("gain")) for name, row in rows.items() if row.gain is not None
    }
    return plot_tradeoff(points, out / "tradeoff.svg")


def write_comparison(out: Path, found: Comparison) -> Path:
    """Writes `eval.json` into `out`; returns the file."""
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "eval.json", json.dumps(found.record, indent=1, allow_nan=False) + "\n")
    return out / "eval.json"


@plain_torch()
def compare_images(request: EvalRequest, data: LabelledFolder, progress: Progress = unseen) -> dict[str, Row]:
    """Scores all candidates on the images of a part.

    Args:
        request: names the candidates and the part.
        data: the labelled images.
        progress: is called after every image.

    Returns:
        Scores by candidate: the single-task networks first, if there are any, then the frozen bundle and the models.

    Raises:
        UsageError: the single-task networks don't match the models, or an image or its truth can't be used.
        BundleError: a model can't be loaded.
    """
    engines: dict[str, list[Engine]] = {}
    if request.stl:
        engines[STL] = [Engine.load(model, EXACT) for model in request.stl]
    if request.frozen is not None:
        engines[FROZEN] = [Engine.load(request.frozen, EXACT)]
    engines |= {name: [Engine.load(model, EXACT)] for name, model in request.models.items()}
    _refuse_unmatched(engines)
    work = f"images of {request.part}"
    scores = score_images(engines, data, request.part, lambda done, total: progress(work, done, total))
    alone = scores.get(STL)
    known = None if alone is not None else _known_single_task(engines)
    return {name: _row(one, alone, known) for name, one in scores.items()}


def _refuse_unmatched(engines: Mapping[str, Sequence[Engine]]) -> None:
    """Requires at most one single-task network for each task, and of every candidate a task in common with them."""
    if STL not in engines:
        return
    alone = [task for engine in engines[STL] for task in engine.model.tasks]
    for task in alone:
        if alone.count(task) > 1:
            raise UsageError(f"--stl: expected one network for each task; found {alone.count(task)} for {task!r}")
    for name, of in engines.items():
        tasks = [task for engine in of for task in engine.model.tasks]
        if not set(tasks).intersection(alone):
            raise UsageError(
                f"--stl: expected networks for tasks of {name}, {', '.join(tasks)}; found {', '.join(alone)}"
            )


@plain_torch()
def compare_clips(model: str, request: EvalRequest, progress: Progress = unseen) -> dict[str, dict[str, Judged]]:
    """Scores the preset and dense prediction on every clip.

    Args:
        model: bundle that runs.
        request: names the clips, the preset and the number of frames.
        progress: is called after every clip.

    Returns:
        Scores by clip and by policy; of several clips, `mean` is over all of them.

    Raises:
        UsageError: there are no clips, or the truth of one can't be used.
        SourceError: a clip can't be read.
    """
    assert request.clips is not None
    paths = find_clips(request.clips)
    if not paths:
        raise UsageError(f"{request.clips}: expected videos with <stem>.truth.npz beside them; found none")
    loaded = Engine.load(model).model
    for path in paths:
        truth_of(path, loaded.bundle.kinds)  # a damaged truth is refused now, not after an hour
    configs = {name: settle(load_config(name, values={"model": model})) for name in (EXACT, request.preset)}
    records: dict[str, dict[str, Columns]] = {}
    progress("clips", 0, len(paths))
    for path in paths:
        clip = open_clip(path, loaded.bundle.kinds)
        starters = {name: partial(ByEngine, loaded, config) for name, config in configs.items()}
        records[path.stem] = walk_phases(
            clip, loaded.bundle.kinds, starters, frames=request.frames, phases=request.phases
        )
        progress("clips", len(records), len(paths))
    judged = {clip: {name: judge([record], name) for name in configs} for clip, record in records.items()}
    if len(records) > 1:
        judged["mean"] = {name: judge(list(records.values()), name) for name in configs}
    return judged


def _known_single_task(engines: Mapping[str, Sequence[Engine]]) -> dict[str, float] | None:
    """Headline measures of single-task networks as a bundle's own evidence lists them; None where none does."""
    for (engine,) in engines.values():
        listed = engine.model.bundle.entry.evidence.get("single_task")
        if isinstance(listed, dict):
            kinds, known = engine.model.bundle.kinds, {}
            for task in engine.model.tasks:
                headline = METRICS[kinds[task].name].headline
                if isinstance(listed.get(task), dict) and headline in listed[task]:
                    known[task] = float(listed[task][headline])
            return known or None
    return None


def _row(scores: ImageScores, alone: ImageScores | None, known: Mapping[str, float] | None) -> Row:
    reference = alone.headlines() if alone is not None else known
    is_compared = reference is not None and not set(scores.sums).isdisjoint(reference)
    gained = gain(scores.headlines(), reference, scores.kinds) if reference is not None and is_compared else None
    measures = {task: scores.measures(task) for task in scores.sums}
    return Row(measures, intervals(scores, alone), gained, scores.macs, 1e3 * float(np.median(scores.seconds)))


def _plain(found: Any) -> Any:
    """The same with None for every number that isn't known, as JSON has no other word for it."""
    if isinstance(found, Mapping):
        return {key: _plain(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_plain(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found
