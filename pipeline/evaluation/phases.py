"""Scores over several phases of the first dense frame.

Where outputs stand for long, much of a policy's loss is the luck of which frame was kept. So a clip is begun at several
frames, and what is scored are the frames that all of these passes have.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.evaluation.clip_scores import EDGES_EVERY, Columns
from deltascene.pipeline.evaluation.clips import Clip
from deltascene.pipeline.evaluation.walk import EXACT, Walker, walk
from deltascene.stages.kinds import Kind

APART = EDGES_EVERY  # frames; so edges are scored on the same frames in all phases
COSTS = ("seconds", "macs")
SHARE = 4  # the last phase begins within the first quarter of a clip


def phases_that_fit(clip: Clip, frames: int, phases: int) -> int:
    """Number of phases that a clip is long enough for, of those asked for."""
    return phases_of(min(frames, len(clip.moving)), phases)


def phases_of(length: int, phases: int) -> int:
    """Number of phases that so many frames are long enough for, of those asked for."""
    return min(phases, 1 + length // (SHARE * APART))


def passes(names: Iterable[str], phases: int) -> dict[str, tuple[str, int]]:
    """Policy and first frame of every pass, by the pass's name; dense prediction needs only one."""
    found = {}
    for name in names:
        for start in range(0, APART * (1 if name == EXACT else phases), APART):
            found[f"{name} from {start}" if start else name] = (name, start)
    return found


def walk_phases(
    clip: Clip,
    kinds: Mapping[str, Kind],
    starters: Mapping[str, Callable[[], Walker]],
    dense_classes: NDArray[Any] | None = None,
    *,
    frames: int,
    phases: int,
) -> dict[str, Columns]:
    """Runs every policy through a clip from several first frames on, all in one pass.

    Args:
        clip: a clip with truth.
        kinds: by task.
        starters: functions that create the policies, by name.
        dense_classes: classes of dense prediction [T, H, W], if `exact` isn't among the policies.
        frames: maximum number of frames.
        phases: number of first frames 0, 5, ..., of which a short clip has fewer (`phases_that_fit`).

    Returns:
        A record for each policy, as `over_phases` makes it.

    Raises:
        UsageError: the truth has another size than the predictions, or the clip is too short.
    """
    phases = phases_that_fit(clip, frames, phases)
    planned = passes(starters, phases)
    walkers = {key: starters[name]() for key, (name, _) in planned.items()}
    starts = {key: start for key, (_, start) in planned.items()}
    walked = walk(clip, kinds, walkers, dense_classes, frames=frames, starts=starts)
    return over_phases(walked, starters, phases)


def over_phases(walked: Mapping[str, Columns], names: Iterable[str], phases: int) -> dict[str, Columns]:
    """A record for each policy out of those of its passes: sums over phases, of the frames that all of them have.

    The costs of a pass count in full: those before these frames are added to the first of them, as otherwise the
    opening frame of some passes would be left out. Policies and reasons are [T, phases].

    Args:
        walked: records by pass, named as by `passes`.
        names: of the policies.
        phases: number of phases.
    """
    last, found = APART * (phases - 1), dict[str, Columns]()
    planned = passes(names, phases)
    for name in dict.fromkeys(name for name, _ in planned.values()):
        mine = [since(walked[key], last - start) for key, (whose, start) in planned.items() if whose == name]
        found[name] = mine[0] if len(mine) == 1 else _sum(mine)
    return found


def since(record: Columns, first: int) -> Columns:
    """The record of the frames from `first` on, with the costs of those before."""
    cut = {column: values[first:] for column, values in record.items()}
    for column in cut.keys() & COSTS if first else ():
        cut[column] = np.concatenate([record[column][: first + 1].sum(0, keepdims=True), record[column][first + 1 :]])
    return cut


def _sum(records: Sequence[Columns]) -> Columns:
    return {
        column: np.sum([record[column] for record in records], axis=0)
        if values.dtype == np.float64
        else np.stack([record[column] for record in records], axis=1)
        for column, values in records[0].items()
    }
