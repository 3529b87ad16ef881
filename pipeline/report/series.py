"""A video's frames over time: means for plots, frames listed one by one, and which of them are shown as pictures."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deltascene.pipeline.report.numbers import Array, column, in_order
from deltascene.pipeline.runs.ledger import STAGES, split_tasks

# Columns of the per-frame list: of a frame, and of each of its tasks.
FRAME_COLUMNS = (
    *("index", "pts_s", "valid", "cause", "policy", "reason", "rows", "rows_computed", "oldest_s"),
    *("macs_executed", "macs_dense", "seconds", *(f"seconds_{stage}" for stage in STAGES)),
)
TASK_COLUMNS = ("rows_computed", "macs_executed", "macs_dense", "seconds")
# Reasons for which a frame is shown as a picture, the most important first.
SHOWN_REASONS = ("cut", "light", "camera", "invalid", "refresh")


def series(frames: pa.Table, points: int) -> dict[str, Any]:
    """A video's frames as at most `points` means, for plots over time.

    Args:
        frames: result of `frame_table`, one video.
        points: maximum number of points.

    Returns:
        frames_per_point; per point: index and pts_s of its first frame, seconds by stage, macs_executed and macs_dense
        (means of its frames), rows_share (rows computed of all rows), oldest_s (largest), policy and reason (the most
        frequent), policy_shares (share of its frames by policy), invalid (number of frames).
    """
    size = max(1, -(-len(frames) // points))
    starts = np.arange(0, len(frames), size)
    counts = np.diff(starts, append=len(frames))

    def sums(values: Array) -> Array:
        return np.add.reduceat(values.astype(np.float64), starts) if len(starts) else starts

    def mean(name: str, digits: int = 0) -> list[float]:
        return [round(float(value), digits) for value in sums(column(frames, name)) / counts]

    whys = list(zip(frames["policy"].to_pylist(), frames["reason"].to_pylist(), strict=True))
    common = [Counter(whys[start : start + size]).most_common(1)[0][0] for start in starts]
    shares = {policy: sums(_equal(frames, policy)) / counts for policy in in_order({policy for policy, _ in whys})}
    oldest = column(frames, "oldest_s")
    return {
        "frames_per_point": size,
        "index": column(frames, "index")[starts].tolist(),
        "pts_s": column(frames, "pts_s")[starts].tolist(),
        "seconds": mean("seconds", 6),
        "seconds_by_stage": {stage: mean(f"seconds_{stage}", 6) for stage in STAGES},
        "macs_executed": mean("macs_executed"),
        "macs_dense": mean("macs_dense"),
        "rows_share": (sums(column(frames, "rows_computed")) / np.maximum(1, sums(column(frames, "rows")))).tolist(),
        "oldest_s": (np.maximum.reduceat(oldest, starts) if len(starts) else starts).tolist(),
        "policy": [policy for policy, _ in common],
        "reason": [reason or "" for _, reason in common],
        "policy_shares": {policy: values.tolist() for policy, values in shares.items()},
        "invalid": sums(~column(frames, "valid").astype(bool)).astype(int).tolist(),
    }


def listed_frames(ledger: pa.Table, frames: pa.Table, cap: int) -> dict[str, Any]:
    """The frames of one video, all of them up to `cap`, evenly sampled beyond.

    Args:
        ledger: of the video.
        frames: result of `frame_table`.
        cap: maximum number of frames.

    Returns:
        total; rows of `columns` per frame, all tasks together; and by task its rows of `task_columns`, in the same
        order.
    """
    places = evenly(len(frames), cap)
    chosen = frames.take(pa.array(places, pa.int64()))
    tasks = {task: _of_frames(part, chosen["index"].to_pylist()) for task, part in split_tasks(ledger).items()}
    return {
        "total": len(frames),
        "columns": list(FRAME_COLUMNS),
        "rows": _rows(chosen, FRAME_COLUMNS),
        "task_columns": list(TASK_COLUMNS),
        "tasks": {task: _rows(part, TASK_COLUMNS) for task, part in tasks.items()},
    }


def evenly(total: int, count: int) -> list[int]:
    """`count` places from 0 to `total` - 1, evenly spread, both ends included; all of them where there are no more."""
    if total <= count:
        return list(range(total))
    return [int(place) for place in np.linspace(0, total - 1, count).round()]


def in_steps(total: int, count: int) -> list[int]:
    """At most `count` places from 0 on, at equal steps, the last as close to `total` - 1 as possible."""
    return list(range(0, total, max(1, (total - 1) // max(1, count - 1))))[:count]


def ceiling(values: Sequence[float]) -> float:
    """Upper end of an axis: the smallest of 1, 1.5, 2, 3, 4, 5, 6 or 8 times a power of ten that no value exceeds."""
    top = max(values, default=0.0)
    if top <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(top))
    return float(next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= top * (1 - 1e-9)))


def film_places(frames: pa.Table, count: int) -> list[int]:
    """Places of the frames of a video that are shown in at most `count` pictures.

    Both ends. For up to half of the pictures: the first frame of a cut, a light step, a camera motion, an invalid
    stretch or a refresh, each with the frame after it, and the frame with the most computed rows that isn't dense. The
    others are put into the widest gaps.

    Args:
        frames: result of `frame_table`, one video.
        count: maximum number of pictures.
    """
    if len(frames) <= count:
        return list(range(len(frames)))
    policies = frames["policy"].to_pylist()
    taken = {0, len(frames) - 1} if count > 1 else {0}
    for wanted in _places_by_reason(frames):
        fresh = sorted(set(wanted) - taken)
        room = max(0, (count + 1) // 2 + 1 - len(taken))
        taken |= {fresh[place] for place in evenly(len(fresh), room)}
    while len(taken) < count:
        places = sorted(taken)
        before, after = max(pairwise(places), key=lambda pair: pair[1] - pair[0])
        middle = (before + after) // 2
        alike = policies[middle] == policies[before]  # where two policies alternate, both are shown
        taken.add(middle + 1 if alike and middle + 1 < after else middle)
    return sorted(taken)[:count]


def _places_by_reason(frames: pa.Table) -> Iterator[list[int]]:
    reasons = frames["reason"].to_pylist()
    for reason in SHOWN_REASONS:
        starts = [at for at, now in enumerate(reasons) if now == reason and (at == 0 or reasons[at - 1] != reason)]
        yield [place for start in starts for place in (start, start + 1) if place < len(reasons)]
    partial = _equal(frames, "rows") * column(frames, "rows_computed")
    yield [int(partial.argmax())] if partial.any() else []


def _equal(frames: pa.Table, policy: str) -> Array:
    """1 where a frame has this policy, 0 elsewhere [frames]."""
    return np.asarray(pc.equal(frames["policy"], policy).to_numpy(), np.int64)


def _of_frames(part: pa.Table, indices: Sequence[int]) -> pa.Table:
    """A task's rows of some frames, in their order."""
    places = {index: place for place, index in enumerate(part["index"].to_pylist())}
    return part.take(pa.array([places.get(index) for index in indices], pa.int64()))


def _rows(table: pa.Table, names: Sequence[str]) -> list[list[Any]]:
    return [list(row) for row in zip(*(table[name].to_pylist() for name in names), strict=True)]
