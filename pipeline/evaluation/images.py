"""Scores of several models on the same labelled images, by group of images, with bootstrap intervals over groups.

A candidate is one bundle for all tasks or a network for each task; its MACs and its time are sums over its networks.
Groups are independent of each other, for example rooms; the views of one room are similar. G groups.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.engine.engine import Engine, Stream
from deltascene.pipeline.evaluation.clip_scores import interval95
from deltascene.pipeline.training.data import LabelledFolder, check_truth
from deltascene.stages.kinds import Kind
from deltascene.stages.metrics import METRICS, Sums, multi_task_gain

Interval = tuple[float, float]
DRAWS = 1000


@dataclass(frozen=True, slots=True)
class ImageScores:
    """Scores of a candidate.

    Attributes:
        kinds: kinds by task.
        sums: by task, the metric's counts for the images of each group [G, rows, n].
        macs: mean MACs of one image, all networks together.
        seconds: time of every image, all networks together.
    """

    kinds: Mapping[str, Kind]
    sums: Mapping[str, Sums]
    macs: int
    seconds: NDArray[np.float64]

    def measures(self, task: str, weights_G: NDArray[np.float64] | None = None) -> dict[str, float]:
        """Metrics of a task over all groups, each weighted by `weights_G`."""
        sums = self.sums[task]
        total = sums.sum(0) if weights_G is None else np.tensordot(weights_G, sums, axes=1)
        return METRICS[self.kinds[task].name].of(total).result()

    def headlines(self, weights_G: NDArray[np.float64] | None = None) -> dict[str, float]:
        """The headline metric of every task."""
        return {task: self.measures(task, weights_G)[METRICS[self.kinds[task].name].headline] for task in self.sums}


def score_images(
    candidates: Mapping[str, Sequence[Engine]],
    data: LabelledFolder,
    part: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, ImageScores]:
    """Runs every candidate on a part's images, each as a dense frame of its own, in rotating order.

    Args:
        candidates: engines by name.
        data: images and truth at the models' input size.
        part: name of the part.
        progress: called with the number of images done and in total.

    Raises:
        UsageError: an image or its truth is missing, or the truth hasn't the stored form of a task's kind.
    """
    streams = {name: [engine.open_stream(name) for engine in engines] for name, engines in candidates.items()}
    kinds = {name: _kinds(engines) for name, engines in candidates.items()}
    stems = data.stems(part)
    groups = {group: place for place, group in enumerate(dict.fromkeys(data.group[stem] for stem in stems))}
    counters = {
        name: [{task: METRICS[kind.name]() for task, kind in of.items()} for _ in groups] for name, of in kinds.items()
    }
    seconds, macs = {name: np.zeros(len(stems)) for name in candidates}, dict.fromkeys(candidates, 0)
    names = list(candidates)
    for number, stem in enumerate(stems):
        image, group = data.image(stem), groups[data.group[stem]]
        truth = {task: data.truth(task, stem) for task in {task for of in kinds.values() for task in of}}
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            cost = 0
            for stream in streams[name]:
                spent, cost_of_one, values = _run(stream, image)
                seconds[name][number] += spent
                cost += cost_of_one
                for task, value in values.items():
                    kind, where = kinds[name][task], f"{data.root / task}/{stem}"
                    known = check_truth(truth[task], kind, (value.shape[0], value.shape[1]), where)
                    counters[name][group][task].update(kind.decode(known), value)
            macs[name] += cost
        progress(number + 1, len(stems))
    return {
        name: ImageScores(
            kinds=of,
            sums={task: stacked([each[task].sums() for each in counters[name]]) for task in of},
            macs=round(macs[name] / len(stems)),
            seconds=seconds[name],
        )
        for name, of in kinds.items()
    }


def intervals(
    scores: ImageScores, reference: ImageScores | None = None, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """95 % intervals by drawing groups: of every headline metric by task, and of `gain` where there is a reference.

    The same groups are drawn of the reference, so that groups hard for both don't widen the interval of the gain.
    """
    rng, groups = np.random.default_rng(seed), len(next(iter(scores.sums.values())))
    found: dict[str, list[float]] = {}
    for weights_G in rng.multinomial(groups, np.full(groups, 1 / groups), size=draws).astype(np.float64):
        drawn = scores.headlines(weights_G)
        if reference is not None:
            drawn |= {"gain": gain(drawn, reference.headlines(weights_G), scores.kinds)}
        for name, value in drawn.items():
            found.setdefault(name, []).append(value)
    return {name: interval95(values) for name, values in found.items()}


def gain(headlines: Mapping[str, float], single_task: Mapping[str, float], kinds: Mapping[str, Kind]) -> float:
    """Delta m against single-task networks in percent, over the common tasks; there must be one."""
    common = [task for task in headlines if task in single_task]
    lower = {task: METRICS[kinds[task].name].lower_is_better for task in common}
    return multi_task_gain(headlines, {task: single_task[task] for task in common}, lower)


def _run(stream: Stream, image: NDArray[np.uint8]) -> tuple[float, int, dict[str, NDArray[np.generic]]]:
    stream.reset()
    began = time.perf_counter()
    result = stream(image)
    spent = time.perf_counter() - began
    values = {task: prediction.array for task, prediction in result.predictions.items()}
    return spent, result.cost.macs_executed, values


def _kinds(engines: Sequence[Engine]) -> dict[str, Kind]:
    return {task: engine.model.bundle.kinds[task] for engine in engines for task in engine.model.tasks}


def stacked(sums: Sequence[Sums]) -> Sums:
    """Stacks the sums of one task, group by group; counts are padded with zeros where a group has fewer classes."""
    width = max(each.shape[1] for each in sums)
    return np.stack([np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in sums])
