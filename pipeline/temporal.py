"""What a frame needs, decided from its pixels alone: no network, no weights.

The same decision drives a run, a live stream and a what-if replay; `decide` is a pure function of config, state and
frame.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deltascene.pipeline.config import Config
from deltascene.stages.change import (
    Reference,
    as_computed,
    cell_means,
    change_strength,
    exposure,
    moved_patches,
    rows_of,
)
from deltascene.stages.policy import Policy, Reason, Rules, Situation, choose_policy, refresh_due
from deltascene.stages.types import Frame, TokenGrid


@dataclass(frozen=True, slots=True)
class TemporalState:
    """What a stream remembers of its pixels inside a segment; it starts empty.

    Attributes:
        pixels: input at the last computed frame, uint8 [3, H, W].
        reference: every patch as it was last computed.
        cells_PQ: cell means of the frame before.
        frames_since_computed: frames since rows last ran.
        frames_since_dense: frames since all rows last ran.
        computed_s: time of the frame where rows last ran.
        dense_s: time of the frame where all rows last ran.
    """

    pixels: Tensor | None = None
    reference: Reference | None = None
    cells_PQ: Tensor | None = None
    frames_since_computed: int = 0
    frames_since_dense: int = 0
    computed_s: float = 0.0
    dense_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What will be done with a frame.

    Attributes:
        policy: how its outputs come about.
        reason: why.
        rows: tokens to compute, increasing int64 [R]; None is all, an empty one none.
        strength: change of every patch against what was last computed, steps of 255 that saturate [h*w] uint8.
        moved: whether it is over the threshold [h, w].
        computed: input at the last computed frame, where a flow has to be found.
    """

    policy: Policy
    reason: Reason
    rows: Tensor | None
    strength: NDArray[np.uint8]
    moved: NDArray[np.bool_]
    computed: Tensor | None = None


def rules_of(config: Config) -> Rules:
    """The policy's numbers out of a config."""
    return Rules(**config.policy.model_dump())


def decide(
    config: Config, grid: TokenGrid, state: TemporalState, frame: Frame, pixels: Tensor
) -> tuple[TemporalState, Decision]:
    """Decides about a valid frame.

    Args:
        config: resolved config.
        grid: token grid of its size.
        state: what the stream remembers; an empty one asks for a dense frame.
        frame: the frame.
        pixels: it at the model's size, uint8 [3, H, W].

    Returns:
        The state after the decision was carried out, and the decision.
    """
    rules, change = rules_of(config), config.change
    first = state.pixels is None
    identical = state.pixels is not None and torch.equal(pixels, state.pixels)
    if not rules.reuse:
        policy, reason = choose_policy(rules, Situation(first=first, identical=identical))
        if policy == "held":
            return state, _still(grid)
        return TemporalState(pixels=pixels), _all(reason, torch.zeros(grid.patches), grid)
    cells_PQ = cell_means(pixels, grid, change.cell_px)
    gain, strength_P, jumped = _compare(cells_PQ, state, change.cut_threshold)
    moved = moved_patches(strength_P, change.threshold)
    policy, reason = choose_policy(
        rules,
        Situation(
            first=first,
            identical=identical,
            moved=len(moved) / grid.patches,
            jumped=jumped,
            gain=gain,
            frames_since_computed=state.frames_since_computed + 1,
            seconds_since_computed=frame.pts_s - state.computed_s,
            frames_since_dense=state.frames_since_dense + 1,
            seconds_since_dense=frame.pts_s - state.dense_s,
            refresh_due=refresh_due(frame.source, frame.index // config.source.stride, rules.refresh),
        ),
    )
    if policy == "dense":
        after = TemporalState(pixels, as_computed(Reference(cells_PQ), cells_PQ, 1.0, None), cells_PQ, 0, 0)
        return replace(after, computed_s=frame.pts_s, dense_s=frame.pts_s), _all(reason, strength_P, grid)
    assert state.reference is not None
    waited = replace(
        state,
        reference=replace(state.reference, gain=gain),
        cells_PQ=cells_PQ,
        frames_since_computed=state.frames_since_computed + 1,
        frames_since_dense=state.frames_since_dense + 1,
    )
    if policy != "rows":
        nothing = torch.empty(0, dtype=torch.int64)
        decision = _decision(policy, reason, nothing, strength_P, grid, change.threshold)
        return waited, replace(decision, computed=state.pixels)
    after = replace(
        waited,
        pixels=pixels,
        reference=as_computed(state.reference, cells_PQ, gain, moved),
        frames_since_computed=0,
        computed_s=frame.pts_s,
    )
    return after, _decision(policy, reason, rows_of(moved, grid), strength_P, grid, change.threshold)


def _compare(cells_PQ: Tensor, state: TemporalState, cut_threshold: float) -> tuple[float, Tensor, float]:
    """Exposure against the last dense frame, change of every patch, and the share of patches that jumped."""
    if state.reference is None or state.cells_PQ is None:
        return 1.0, torch.zeros(len(cells_PQ)), 0.0
    gain = exposure(cells_PQ, state.reference)
    since_last = Reference(state.cells_PQ)
    jump_P = change_strength(cells_PQ, since_last, gain / state.reference.gain)
    jumped = float((jump_P > cut_threshold).float().mean())
    return gain, change_strength(cells_PQ, state.reference, gain), jumped


def _still(grid: TokenGrid) -> Decision:
    return _decision("held", "unchanged", torch.empty(0, dtype=torch.int64), torch.zeros(grid.patches), grid, 255.0)


def _all(reason: Reason, strength_P: Tensor, grid: TokenGrid) -> Decision:
    return _decision("dense", reason, None, strength_P, grid, 255.0)


def _decision(
    policy: Policy, reason: Reason, rows: Tensor | None, strength_P: Tensor, grid: TokenGrid, threshold: float
) -> Decision:
    strength = strength_P.clamp(0, 255).floor().to(torch.uint8).numpy()
    moved = (strength_P > threshold).numpy().reshape(grid.height, grid.width)
    return Decision(policy, reason, rows, strength, moved)
