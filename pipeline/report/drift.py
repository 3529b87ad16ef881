"""Drift of the predictions of run B from those of run A, frame by frame, in the unit of each task's kind."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.report.pairs import Pair
from deltascene.pipeline.report.series import evenly
from deltascene.pipeline.runs.reader import RunVideo
from deltascene.stages.kinds import Array, Kind

COMPARED_CAP = 2000  # frames of all videos together; beyond, evenly sampled ones
READ_FRAMES = 16  # frames of predictions read at once
WORST = 3  # frames of every task that are listed
POINTS = 300  # of a plot


@dataclass(frozen=True, slots=True)
class TaskDrift:
    """One task on the compared frames of one video.

    Attributes:
        where: which of the pair's common frames [frames].
        drift: of B's prediction from A's, in the kind's unit [frames].
        equal: share of pixels with the same stored value [frames].
    """

    where: NDArray[np.int64]
    drift: NDArray[np.float64]
    equal: NDArray[np.float64]


def compare_pair(pair: Pair, tasks: Sequence[str], cap: int) -> dict[str, TaskDrift]:
    """Drift of every task on the common frames that both runs predicted it for, at most `cap` of them."""
    chosen = evenly(len(pair.places), cap)
    return {
        task: _compare_task(pair, task, [where for where in chosen if _predicted(pair, task, where)])
        for task in tasks
        if task in pair.a.kinds and task in pair.b.kinds
    }


def summarise(pairs: Sequence[Pair], found: Sequence[Mapping[str, TaskDrift]], tasks: Sequence[str]) -> dict[str, Any]:
    """Drift of every task over all videos.

    Returns:
        By task: unit; frames compared; mean, p95 and max; equal (mean share of pixels with the same stored value),
        identical (number of frames in which all are); worst: the frames with the largest drift, none close to
        another: pair and where (places in lists), video, index, pts_s, drift.
    """
    return {task: _summary(pairs, found, task) for task in tasks}


def drift_series(pair: Pair, found: Mapping[str, TaskDrift], policies: Sequence[str]) -> dict[str, Any]:
    """Drift over time for plots: per point the index and pts_s of its first frame, B's policy there, and by task the
    largest drift of its frames.

    Args:
        pair: a video of both runs.
        found: result of `compare_pair`.
        policies: of B's frames, by place.
    """
    size = max(1, -(-len(pair.places) // POINTS))
    starts = range(0, len(pair.places), size)
    firsts = [pair.places[start][1] for start in starts]
    return {
        "frames_per_point": size,
        "index": [int(pair.b.arrays.index[place]) for place in firsts],
        "pts_s": [float(pair.b.arrays.pts_s[place]) for place in firsts],
        "policy": [policies[place] for place in firsts],
        "drift": {task: _largest(each, size, len(starts)) for task, each in found.items()},
        "marks": evenly(len(starts), 5),
    }


def _compare_task(pair: Pair, task: str, chosen: Sequence[int]) -> TaskDrift:
    kind = pair.a.kinds[task]
    places = [pair.places[where] for where in chosen]
    stored = zip(
        _stored(pair.a, task, [ours for ours, _ in places]),
        _stored(pair.b, task, [theirs for _, theirs in places]),
        strict=True,
    )
    measured = [_measure(kind, reference, value) for reference, value in stored]
    drift, equal = np.array(measured, np.float64).reshape(-1, 2).T
    known = np.isfinite(drift)
    return TaskDrift(np.array(chosen, np.int64)[known], drift[known], equal[known])


def _measure(kind: Kind, reference: Array, value: Array) -> tuple[float, float]:
    same = (value == reference) | ((value != value) & (reference != reference))  # NaN counts as equal to NaN
    return kind.drift(kind.decode(value), kind.decode(reference)), float(same.mean())


def _stored(video: RunVideo, task: str, places: Sequence[int]) -> Iterator[Array]:
    """Stored values at increasing places; adjacent frames are read together."""
    start, block = 0, np.empty(0)
    for place in places:
        if not start <= place < start + len(block):
            start = place - place % READ_FRAMES
            block = video.arrays.stored(task, slice(start, start + READ_FRAMES))
        yield block[place - start]


def _predicted(pair: Pair, task: str, where: int) -> bool:
    ours, theirs = pair.places[where]
    return bool(pair.a.arrays.valid[task][ours] and pair.b.arrays.valid[task][theirs])


def _summary(pairs: Sequence[Pair], found: Sequence[Mapping[str, TaskDrift]], task: str) -> dict[str, Any]:
    kind = next(pair.a.kinds[task] for pair in pairs if task in pair.a.kinds)
    parts = [each[task] for each in found if task in each]
    drift, equal = (np.concatenate([getattr(part, name) for part in parts]) for name in ("drift", "equal"))
    if not len(drift):
        return {"unit": kind.drift_unit, "frames": 0, "mean": None, "p95": None, "max": None, "equal": None} | {
            "identical": 0,
            "worst": [],
        }
    return {
        "unit": kind.drift_unit,
        "frames": len(drift),
        "mean": float(drift.mean()),
        "p95": float(np.percentile(drift, 95)),
        "max": float(drift.max()),
        "equal": float(equal.mean()),
        "identical": int((equal == 1).sum()),
        "worst": _worst(pairs, found, task),
    }


def _worst(pairs: Sequence[Pair], found: Sequence[Mapping[str, TaskDrift]], task: str) -> list[dict[str, Any]]:
    every = [
        (float(drift), number, int(where))
        for number, each in enumerate(found)
        if task in each
        for drift, where in zip(each[task].drift, each[task].where, strict=True)
        if drift > 0
    ]
    taken: list[tuple[float, int, int]] = []
    for drift, number, where in sorted(every, key=lambda each: (-each[0], each[1:])):
        apart = max(1, len(pairs[number].places) // 10)
        if len(taken) < WORST and all(number != other or abs(where - at) > apart for _, other, at in taken):
            taken.append((drift, number, where))
    return [_named(pairs[number], number, where, drift) for drift, number, where in taken]


def _named(pair: Pair, number: int, where: int, drift: float) -> dict[str, Any]:
    place = pair.places[where][0]
    index, pts_s = int(pair.a.arrays.index[place]), float(pair.a.arrays.pts_s[place])
    return {"pair": number, "where": where, "video": pair.a.id, "index": index, "pts_s": pts_s, "drift": drift}


def _largest(found: TaskDrift, size: int, points: int) -> list[float]:
    largest = np.zeros(points)
    np.maximum.at(largest, found.where // size, found.drift)
    return largest.tolist()
