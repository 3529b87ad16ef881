"""Audits: frames that are drawn at random are also computed in full, to measure what reuse costs.

A frame's probability follows from what the segment has computed so far, so it is known before the frame's result is,
and the audits of a run are expected to cost no more than a stated share of what the run itself computes. Of the frames
whose probabilities add up to 1, one is drawn, by a hash of source, segment and seed: so audits are spread over time.
They write no state that a prediction depends on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from math import floor

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deltascene.pipeline.config import Config
from deltascene.pipeline.engine.results import FrameResult
from deltascene.stages.kinds import Array, Kind
from deltascene.stages.types import TokenGrid

AUTO_SHARE = 0.1  # of what a run computes: what its audits may cost
FLOOR_SHARE = 0.25  # of the audits: those that compute the frame before in full, too, to measure the floor
SPREAD_FRAMES = 12  # over which a frame's budget for audits is spent, about
MOVED_S = 8 / 15  # a patch counts as moved for so long after it was over the threshold


@dataclass(frozen=True, slots=True)
class AuditState:
    """What audits remember of a stream inside a segment.

    Attributes:
        pixels: the last valid frame at the model's size, uint8 [3, H, W], where frames are drawn.
        moved_s: time at which each patch was last over the threshold [patches].
        opening: audits that the segment's first frame pays for.
        balance: audits that the frames after it have paid for and that aren't spent.
        first: number of the segment's first valid frame in the source.
        drawn: sum of the probabilities so far.
    """

    pixels: Tensor | None = None
    moved_s: NDArray[np.float64] | None = None
    opening: float = 0.0
    balance: float = 0.0
    first: int = 0
    drawn: float = 0.0

    def moved(self, pts_s: float) -> NDArray[np.bool_]:
        """Patches that were over the threshold lately, as of a valid frame that was looked at [patches]."""
        assert self.moved_s is not None
        return self.moved_s >= pts_s - MOVED_S


@dataclass(frozen=True, slots=True)
class Draw:
    """Whether a frame is audited.

    Attributes:
        probability: with which it is drawn; None where it can't be.
        due: whether it was drawn.
        floor: whether the frame before is computed in full, too.
        moved: patches that moved lately [patches]; None where no change map is made.
    """

    probability: float | None = None
    due: bool = False
    floor: bool = False
    moved: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Drift:
    """What an audit measured of a task, in the unit of its kind; None where there is no such pixel, or no floor is due.

    Attributes:
        whole: distance of its prediction from dense prediction.
        moved: the same in the patches that moved lately.
        floor: distance of dense prediction from that of the frame before, in all other patches.
    """

    whole: float
    moved: float | None = None
    floor: float | None = None


def in_batch(config: Config) -> Config:
    """The config of a batch run: there `run.audit: auto` is a share, unless no actor holds all that an audit needs."""
    run = config.run
    if run.audit != "auto" or run.audit_every is not None or run.placement == "split":
        return config
    return config.model_copy(update={"run": run.model_copy(update={"audit": AUTO_SHARE})})


def draw(
    config: Config, grid: TokenGrid, state: AuditState, result: FrameResult, pixels: Tensor
) -> tuple[AuditState, Draw]:
    """Decides whether a valid frame is audited.

    Args:
        config: resolved config; frames are drawn if `run.audit` is a share, see `in_batch`.
        grid: token grid of the frame.
        state: of the audits; an empty one at the start of a segment.
        result: the frame's result before its audit; only its decision and its MACs are looked at.
        pixels: the frame at the model's size, uint8 [3, H, W].
    """
    if not config.policy.reuse:
        return state, Draw()
    frame, share, every = result.frame, config.run.audit, config.run.audit_every
    moved_s = np.full(grid.patches, -np.inf) if state.moved_s is None else state.moved_s
    moved_s = np.where(result.record.change >= max(1, floor(config.change.threshold)), frame.pts_s, moved_s)
    state = replace(state, pixels=pixels if isinstance(share, float) else None, moved_s=moved_s)
    moved = state.moved(frame.pts_s)
    if every is not None:
        due = result.policy != "dense" and frame.index // config.source.stride % every == 0
        return state, Draw(due=due, moved=moved)
    if not isinstance(share, float):
        return state, Draw(moved=moved)
    if result.reason == "reset":
        state = replace(state, first=frame.index, drawn=0.0)
    earned = share * result.cost.macs_executed / result.cost.macs_dense
    state, spent = spend(state, earned, result.policy, result.reason, config.segment.frames)
    if spent is None:
        return state, Draw(moved=moved)
    probability, due = one_of(state, spent, frame.source, config.run.audit_seed)
    with_floor = due and uniform(f"floor {config.run.audit_seed} {frame.index} {frame.source}") < FLOOR_SHARE
    return replace(state, drawn=state.drawn + spent), Draw(probability, due, with_floor, moved)


def spend(
    state: AuditState, earned: float, policy: str, reason: str, segment_frames: int
) -> tuple[AuditState, float | None]:
    """The part of an audit that is spent on a frame, None for a dense one; and the state after it.

    What the segment's first frame earns is spread over the segment, what the others earn over about `SPREAD_FRAMES`
    frames. So no more is ever spent than was earned.

    Args:
        state: of the audits.
        earned: dense frames that the frame's own compute pays for.
        policy: of the frame.
        reason: for it.
        segment_frames: largest number of frames of a segment.
    """
    earned /= 1 + FLOOR_SHARE
    if reason == "reset":
        return replace(state, opening=earned / segment_frames, balance=0.0), None
    balance = state.balance + earned
    if policy == "dense":
        return replace(state, balance=balance), None
    spent = balance / SPREAD_FRAMES
    return replace(state, balance=balance - spent), min(1.0, state.opening + spent)


def one_of(state: AuditState, spent: float, source: str, seed: int) -> tuple[float, bool]:
    """Probability with which a frame is drawn, and whether it is.

    The sums of what was spent before and after each frame of a segment cut the axis from 0 on into intervals. In every
    unit of the axis one point is drawn, and the frames are audited in whose intervals the points lie.
    """
    before, after = state.drawn, state.drawn + spent
    units = range(floor(before), floor(after) + 1)
    due = any(before <= unit + uniform(f"audit {seed} {state.first} {unit} {source}") < after for unit in units)
    here = min(after, units[0] + 1) - before
    return 1 - (1 - here) * (1 - (spent - here)), due


def uniform(about: str) -> float:
    """A number from 0 to 1 that follows from a text alone, wherever and whenever."""
    return int.from_bytes(sha256(about.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64


def measure(
    result: FrameResult,
    dense: FrameResult,
    before: FrameResult | None,
    moved: NDArray[np.bool_] | None,
    grid: TokenGrid,
) -> dict[str, Drift]:
    """Drift of every prediction of a frame, by task.

    Args:
        result: of the frame.
        dense: dense prediction of the same frame.
        before: dense prediction of the frame before, if it was made.
        moved: patches that moved lately [patches].
        grid: token grid of the frame.
    """
    earlier = {} if before is None else {task: made.array for task, made in before.predictions.items()}
    return {
        task: _measured(made.kind, made.array, dense[task].array, earlier.get(task), moved, grid)
        for task, made in result.predictions.items()
    }


def _measured(
    kind: Kind, value: Array, dense: Array, before: Array | None, moved: NDArray[np.bool_] | None, grid: TokenGrid
) -> Drift:
    whole = kind.drift(value, dense)
    if moved is None:
        return Drift(whole)
    where_HW = moved.reshape(grid.height, grid.width).repeat(grid.patch, 0).repeat(grid.patch, 1)
    inside = kind.drift(value[where_HW], dense[where_HW]) if moved.any() else None
    rest = None if before is None or moved.all() else kind.drift(dense[~where_HW], before[~where_HW])
    return Drift(whole, inside, rest)


def charged(result: FrameResult, drifts: Mapping[str, Drift], passes: int, seconds: Mapping[str, float]) -> FrameResult:
    """A result with what its audit found, and what that cost.

    Args:
        result: before the audit.
        drifts: by task.
        passes: dense passes that the audit took.
        seconds: of the audit, booked on the base, which comes first.
    """
    tasks = {}
    for number, (task, cost) in enumerate(result.cost.tasks.items()):
        found = drifts.get(task)
        tasks[task] = replace(
            cost,
            audit=cost.dense * passes,
            executed=cost.executed + cost.dense * passes,
            seconds={**cost.seconds, **seconds} if number == 0 else cost.seconds,
            drift=None if found is None else found.whole,
            drift_moved=None if found is None else found.moved,
            floor=None if found is None else found.floor,
        )
    return replace(result, cost=replace(result.cost, tasks=tasks))
