"""What a frame needs, decided from its pixels alone: no network, no weights.

The same decision drives a run, a live stream and a what-if replay; `decide` is a pure function of config, state and
frame.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deltascene.pipeline.config import Config, PolicyConfig
from deltascene.stages.change import (
    Reference,
    as_computed,
    cell_means,
    change_strength,
    exposure,
    moved_patches,
    rows_of,
)
from deltascene.stages.motion import (
    Flow,
    Grey,
    Points,
    estimate_flow,
    find_corners,
    flow_residual,
    no_flow,
    standing_share,
    to_grey,
)
from deltascene.stages.policy import Policy, Reason, Rules, Situation, asks_for_standing, choose_policy, refresh_due
from deltascene.stages.types import Frame, TokenGrid

WHOLE_RANGE = 255.0  # no difference is over it
MOVES = 0.35  # without corners that tell, more patches than this share that moved mean that the camera does
FADES = 0.8
"""Share of an expected residual that is left after rows ran without a warped frame in between."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame at the model's size, uint8 [3, H, W]."""

    pixels: Tensor

    @cached_property
    def grey(self) -> Grey:
        """The same as a grey picture [H, W], made once."""
        return to_grey(self.pixels.numpy())

    @cached_property
    def corners(self) -> Points:
        """Its corners, found once."""
        return find_corners(self.grey)


@dataclass(frozen=True, slots=True)
class TemporalState:
    """What a stream remembers of its pixels inside a segment; it starts empty.

    Attributes:
        computed: picture where rows last ran.
        dense: picture where all rows last ran.
        reference: every patch as it was last computed.
        cells_PQ: cell means of the frame before.
        frames_since_computed: frames since rows last ran.
        frames_since_dense: frames since all rows last ran.
        computed_s: time of the frame where rows last ran.
        dense_s: time of the frame where all rows last ran.
        computed_P: number of the processed frame, in the segment, at which each patch last ran, int64 [patches].
        frames: processed frames so far.
        gain: exposure of the last computed frame against the last dense one.
        flow: flow of the last warped frame since rows ran; None where there was none.
        residual: what the flow left unexplained in the last warped frame since rows ran; None where there was none.
        first_residual: the same of the last frame that was warped right after rows ran; it fades while none is.
        unexplained_s: residuals of the frames that were warped since rows ran, times the seconds that they stood.
        last_s: time of the frame before.
        step_s: seconds from the frame before that to it.
    """

    computed: Picture | None = None
    dense: Picture | None = None
    reference: Reference | None = None
    cells_PQ: Tensor | None = None
    frames_since_computed: int = 0
    frames_since_dense: int = 0
    computed_s: float = 0.0
    dense_s: float = 0.0
    computed_P: Tensor | None = None
    frames: int = 0
    gain: float = 1.0
    flow: Flow | None = None
    residual: float | None = None
    first_residual: float = 0.0
    unexplained_s: float = 0.0
    last_s: float = 0.0
    step_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What will be done with a frame.

    Attributes:
        policy: how its outputs come about.
        reason: why.
        rows: tokens to compute, increasing int64 [R]; None is all, an empty one none.
        strength: change of every patch against what was last computed, steps of 255 that saturate [h*w] uint8.
        moved: whether it is over the threshold [h, w].
        picture: the frame, in which a flow may have to be found.
    """

    policy: Policy
    reason: Reason
    rows: Tensor | None
    strength: NDArray[np.uint8]
    moved: NDArray[np.bool_]
    picture: Picture


def rules_of(config: Config) -> Rules:
    """The policy's numbers out of a config."""
    return _rules(config.policy)


@lru_cache
def _rules(policy: PolicyConfig) -> Rules:
    numbers = policy.model_dump(exclude={"flow"})
    return Rules(**{**numbers, "camera_s": numbers["camera_s"] or numbers["max_age_s"]})


def decide(
    config: Config,
    grid: TokenGrid,
    state: TemporalState,
    frame: Frame,
    pixels: Tensor,
    ignored: NDArray[np.bool_] | None = None,
) -> tuple[TemporalState, Decision]:
    """Decides about a valid frame.

    Args:
        config: resolved config.
        grid: token grid of its size.
        state: what the stream remembers; an empty one asks for a dense frame.
        frame: the frame.
        pixels: it at the model's size, uint8 [3, H, W].
        ignored: patches [h*w] whose changes don't count; None is none.

    Returns:
        The state after the decision was carried out, and the decision.
    """
    if not config.policy.reuse:
        return _decide_without_reuse(config, grid, state, pixels)
    cells_PQ = cell_means(pixels, grid, config.change.cell_px)
    gain, strength_P, jumped = _compare(cells_PQ, state, config.change.cut_threshold, ignored)
    patches = moved_patches(strength_P, config.change.threshold)
    situation = replace(
        _situation(config, state, frame, pixels), moved=len(patches) / grid.patches, jumped=jumped, gain=gain
    )
    rules = rules_of(config)
    picture = Picture(pixels)
    earlier = state.dense if rules.camera_from == "dense" else state.computed
    if earlier is not None and asks_for_standing(rules, situation):
        untold = 0.0 if situation.moved > MOVES else 1.0
        standing = standing_share(picture.grey, earlier.grey, earlier.corners, untold, rules.camera_standing)
        situation = replace(situation, standing=standing)
    policy, reason = choose_policy(rules, situation)
    if policy == "dense":
        after = _after_dense(state, grid, frame, picture, cells_PQ, surprised=reason in ("reset", "cut"))
        return after, Decision(policy, reason, None, *_shown(strength_P, grid, WHOLE_RANGE), picture)
    assert state.reference is not None
    after = replace(
        state,
        reference=replace(state.reference, gain=gain),
        cells_PQ=cells_PQ,
        frames_since_computed=situation.frames_since_computed,
        frames_since_dense=situation.frames_since_dense,
        frames=state.frames + 1,
        last_s=frame.pts_s,
        step_s=frame.pts_s - state.last_s,
    )
    rows = torch.empty(0, dtype=torch.int64)
    if policy == "rows":
        assert state.computed_P is not None
        patches = _with_stalest(patches, state.computed_P, config.policy.rolling)
        rows, after = rows_of(patches, grid), _after_rows(after, frame, picture, patches)
    return after, Decision(policy, reason, rows, *_shown(strength_P, grid, config.change.threshold), picture)


def _after_dense(
    state: TemporalState, grid: TokenGrid, frame: Frame, picture: Picture, cells_PQ: Tensor, *, surprised: bool
) -> TemporalState:
    """The state after all rows ran; where the picture is a new one, nothing is known of its flow."""
    return TemporalState(
        picture,
        picture,
        as_computed(Reference(cells_PQ), cells_PQ, 1.0, None),
        cells_PQ,
        computed_s=frame.pts_s,
        dense_s=frame.pts_s,
        computed_P=torch.full((grid.patches,), state.frames),
        frames=state.frames + 1,
        first_residual=0.0 if surprised else _remembered(state),
        last_s=frame.pts_s,
    )


def _after_rows(state: TemporalState, frame: Frame, picture: Picture, patches: Tensor) -> TemporalState:
    """A state that has looked at a frame, after some of its patches ran."""
    assert state.reference is not None
    assert state.cells_PQ is not None
    assert state.computed_P is not None
    gain = state.reference.gain
    return replace(
        state,
        computed=picture,
        reference=as_computed(state.reference, state.cells_PQ, gain, patches),
        frames_since_computed=0,
        computed_s=frame.pts_s,
        computed_P=state.computed_P.index_fill(0, patches, state.frames - 1),
        gain=gain,
        flow=None,
        residual=None,
        first_residual=_remembered(state),
        unexplained_s=0.0,
    )


def _situation(config: Config, state: TemporalState, frame: Frame, pixels: Tensor) -> Situation:
    """What is known of a frame from what came before, and what is due; what changed isn't in it yet."""
    return Situation(
        first=state.computed is None,
        identical=_identical(pixels, state.computed),
        frames_since_computed=state.frames_since_computed + 1,
        seconds_since_computed=frame.pts_s - state.computed_s,
        frames_since_dense=state.frames_since_dense + 1,
        seconds_since_dense=frame.pts_s - state.dense_s,
        refresh_due=refresh_due(frame.source, frame.index // config.source.stride, config.policy.refresh),
        residual=state.first_residual if state.residual is None else state.residual,
        unexplained_s=state.unexplained_s,
    )


def uses_evidence(config: Config) -> bool:
    """Whether decisions depend on how well the flow fits."""
    return config.policy.camera_price is not None


def follow(config: Config, grid: TokenGrid, state: TemporalState, decision: Decision) -> tuple[TemporalState, Flow]:
    """Finds the flow of a frame that is to be warped and, if later decisions ask for it, how well it fits.

    Args:
        config: resolved config.
        grid: token grid of the frame.
        state: after `decide`.
        decision: about the frame.
    """
    reference = state.reference
    assert state.computed is not None
    assert reference is not None
    now, computed = decision.picture.grey, state.computed.grey
    start = None
    if config.policy.flow == "onward":
        start = no_flow(now.shape) if state.flow is None else state.flow
    flow = estimate_flow(now, computed, decision.moved, grid, start)
    state = replace(state, flow=flow)
    if not uses_evidence(config):
        return state, flow
    residual = flow_residual(flow, now, computed, reference.gain / state.gain, grid)
    first = residual if state.residual is None else state.first_residual
    unexplained_s = state.unexplained_s + residual * state.step_s
    return replace(state, residual=residual, first_residual=first, unexplained_s=unexplained_s), flow


def _remembered(state: TemporalState) -> float:
    """What to expect of the flow right after rows ran: fading where no flow was looked at since they ran before."""
    return FADES * state.first_residual if state.residual is None else state.first_residual


def _with_stalest(patches: Tensor, computed_P: Tensor, share: float) -> Tensor:
    """Patches to compute and, of the others, a share of the grid that wasn't computed for longest; increasing.

    Not more than were to be computed anyway, so that little motion stays cheap.
    """
    count = min(round(share * len(computed_P)), len(patches), len(computed_P) - len(patches))
    if count == 0:
        return patches
    chosen = np.zeros(len(computed_P), bool)
    chosen[patches.numpy()] = True
    others = np.flatnonzero(~chosen)
    chosen[others[np.argsort(computed_P.numpy()[others], kind="stable")[:count]]] = True
    return torch.from_numpy(np.flatnonzero(chosen))


def _decide_without_reuse(
    config: Config, grid: TokenGrid, state: TemporalState, pixels: Tensor
) -> tuple[TemporalState, Decision]:
    """Every frame in full, unless it is the last one byte for byte; no mask is needed."""
    situation = Situation(first=state.computed is None, identical=_identical(pixels, state.computed))
    policy, reason = choose_policy(rules_of(config), situation)
    picture = Picture(pixels)
    rows = torch.empty(0, dtype=torch.int64) if policy == "held" else None
    decision = Decision(policy, reason, rows, *_shown(torch.zeros(grid.patches), grid, WHOLE_RANGE), picture)
    return (state if policy == "held" else TemporalState(picture)), decision


def _identical(pixels: Tensor, computed: Picture | None) -> bool:
    if computed is None:
        return False
    now, before = pixels.numpy(), computed.pixels.numpy()  # torch would wait for threads
    return np.array_equal(now[:, 0], before[:, 0]) and np.array_equal(now, before)  # a row tells nearly all apart


def _compare(
    cells_PQ: Tensor, state: TemporalState, cut_threshold: float, ignored: NDArray[np.bool_] | None
) -> tuple[float, Tensor, float]:
    """Exposure against the last dense frame, change of every patch, and the share of patches that jumped."""
    if state.reference is None or state.cells_PQ is None:
        return 1.0, torch.zeros(len(cells_PQ)), 0.0
    gain = exposure(cells_PQ, state.reference)
    since_last = Reference(state.cells_PQ)
    jump_P = change_strength(cells_PQ, since_last, gain / state.reference.gain)
    strength_P = change_strength(cells_PQ, state.reference, gain)
    if ignored is not None:
        seen = torch.from_numpy(~ignored)
        jump_P, strength_P = jump_P[seen], strength_P * seen
    jumps = np.count_nonzero(jump_P.numpy() > cut_threshold)
    jumped = float(np.float32(jumps) / np.float32(len(jump_P))) if len(jump_P) else 0.0
    return gain, strength_P, jumped


def _shown(strength_P: Tensor, grid: TokenGrid, threshold: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Strength of change in whole steps of 255, and which patches are over a threshold."""
    strength = strength_P.numpy()
    return strength.clip(0, WHOLE_RANGE).astype(np.uint8), (strength > threshold).reshape(grid.height, grid.width)
