"""What a frame needs: a pure function of what changed and what is due.

`dense`: all rows run. `rows`: the moved rows run. `warped`: the last computed outputs, moved by optical flow. `held`:
they stand as they are. `skipped`: the frame isn't what the camera saw; nothing is predicted.
"""

import math
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal

Policy = Literal["dense", "rows", "warped", "held", "skipped"]
POLICIES: tuple[Policy, ...] = ("dense", "rows", "warped", "held", "skipped")

# Why: `reset` covers the first frame of a segment and a change of size.
Reason = Literal["reset", "every", "refresh", "cut", "light", "camera", "changed", "between", "unchanged", "invalid"]


@dataclass(frozen=True, slots=True)
class Rules:
    """The numbers of a policy.

    Attributes:
        reuse: False computes every frame in full.
        hold_identical: keep the outputs where the input is byte-identical to the last computed one.
        every: moved rows run every so many frames; outputs are warped in between; None leaves it to the time.
        max_age_s: and at the latest after so many seconds.
        rolling: this share of the tokens, those that weren't computed for longest, joins the moved rows.
        refresh: a dense frame every so many frames; None leaves it to the time.
        refresh_s: and at the latest after so many seconds.
        refresh_idle: also where no rows ran since the last dense frame, so that there is nothing to refresh.
        camera_share: only if more patches than this share moved may the camera move,
        camera_standing: and only if fewer corners than this share stand where they stood: a crowd leaves some.
        camera_from: whether corners are compared with the last `dense` frame, or with the last `computed` one, where
            some rows ran; the seconds of `camera_s` count from it.
        camera_every: a dense frame every so many frames while it does; None leaves it to the time,
        camera_s: and at the latest after so many seconds.
        camera_price: what a dense frame costs while the camera moves, in seconds during which the flow leaves all of a
            picture's texture unexplained. It comes as soon as one more warped frame would raise the mean, since rows
            ran, of both: what is unexplained and what is paid; but not before `max_age_s`. None goes by count and time
            alone.
        cut_share: more patches than this share that jumped since the last frame mean a cut.
        light_step: a ratio of exposure beyond this, or below its inverse, against the last dense frame is a light step.
    """

    reuse: bool
    hold_identical: bool
    every: int | None
    max_age_s: float
    rolling: float
    refresh: int | None
    refresh_s: float
    refresh_idle: bool
    camera_share: float
    camera_standing: float
    camera_from: Literal["computed", "dense"]
    camera_every: int | None
    camera_s: float
    camera_price: float | None
    cut_share: float
    light_step: float


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of a frame before anything is computed; shares are of its patches.

    Attributes:
        valid: the frame is what the camera saw.
        first: nothing was computed yet in this segment, or the size changed.
        identical: the input is byte-identical to the last computed one.
        moved: share that differs from what was last computed.
        standing: share of the corners of the image named by `camera_from` that are where they were; asked only if
            need be.
        jumped: share that differs much from the frame before.
        gain: exposure against the last dense frame.
        frames_since_computed: frames since rows last ran.
        seconds_since_computed: the same in seconds.
        frames_since_dense: frames since all rows last ran.
        seconds_since_dense: the same in seconds.
        refresh_due: it is this frame's turn to run dense.
        residual: what the flow is expected to leave unexplained if this frame is warped, as a share of the texture.
        unexplained_s: the same of the frames that were warped since rows last ran, times the seconds that they stood.
    """

    valid: bool = True
    first: bool = False
    identical: bool = False
    moved: float = 0.0
    standing: float = 1.0
    jumped: float = 0.0
    gain: float = 1.0
    frames_since_computed: int = 1
    seconds_since_computed: float = 0.0
    frames_since_dense: int = 1
    seconds_since_dense: float = 0.0
    refresh_due: bool = False
    residual: float = 0.0
    unexplained_s: float = 0.0


def choose_policy(rules: Rules, now: Situation) -> tuple[Policy, Reason]:
    """The policy of one frame, and why."""
    if not now.valid:
        return "skipped", "invalid"
    if now.first:
        return "dense", "reset"
    just_dense = now.frames_since_dense == now.frames_since_computed
    refresh = rules.reuse and (now.refresh_due or now.seconds_since_dense >= rules.refresh_s)
    if just_dense and not rules.refresh_idle:
        refresh = False
    if now.identical and rules.hold_identical and (just_dense or not refresh):
        return "held", "unchanged"  # after a dense pass, computing the same picture again changes nothing
    if not rules.reuse:
        return "dense", "every"
    if refresh:
        return "dense", "refresh"
    if now.jumped > rules.cut_share:
        return "dense", "cut"
    if abs(math.log(now.gain)) > math.log(rules.light_step):
        return "dense", "light"
    if now.moved > rules.camera_share and now.standing < rules.camera_standing:
        return ("dense" if _too_old(rules, now) or _pays(rules, now) else "warped"), "camera"
    if now.moved == 0:
        return "held", "unchanged"
    if now.seconds_since_computed >= rules.max_age_s or _due(now.frames_since_computed, rules.every):
        return "rows", "changed"
    return "warped", "between"


def _too_old(rules: Rules, now: Situation) -> bool:
    """Whether a moving camera's outputs are; counted from the last dense frame, not before rows would be due."""
    if _due(now.frames_since_computed, rules.camera_every):
        return True
    if rules.camera_from == "computed":
        return now.seconds_since_computed >= rules.camera_s
    return now.seconds_since_computed >= rules.max_age_s and now.seconds_since_dense >= rules.camera_s


def _pays(rules: Rules, now: Situation) -> bool:
    """Whether a dense frame now is better than warping once more.

    From one dense frame to the next, the mean over time of what is unexplained and paid falls while one more warped
    frame is below that mean, and rises after: the least mean is where they meet.

    Source: the marginal value theorem (Charnov, "Optimal foraging, the marginal value theorem", 1976).
    """
    if rules.camera_price is None or now.seconds_since_computed < rules.max_age_s:
        return False
    return now.residual * now.seconds_since_computed > now.unexplained_s + rules.camera_price


def _due(frames: int, every: int | None) -> bool:
    return every is not None and frames >= every


def asks_for_standing(rules: Rules, now: Situation) -> bool:
    """Whether what is done with a frame depends on the share of corners that stand, which takes time to find out."""
    outcomes = {choose_policy(rules, replace(now, standing=standing))[0] for standing in (0.0, 1.0)}
    return len(outcomes) > 1


def refresh_due(source: str, index: int, refresh: int | None) -> bool:
    """Whether a frame is its source's turn to run dense.

    The phase is a hash of the source's name, so that many streams take turns, and the same video does the same wherever
    and whenever it runs.
    """
    if refresh is None:
        return False
    phase = int.from_bytes(sha256(source.encode("utf-8", "surrogateescape")).digest()[:8], "big")
    return (index + phase) % refresh == 0
