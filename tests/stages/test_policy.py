"""What a frame needs: every situation has one policy and one reason."""

from dataclasses import replace
from itertools import pairwise, product
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltascene.stages.policy import (
    POLICIES,
    Reason,
    Rules,
    Situation,
    asks_for_standing,
    choose_policy,
    refresh_due,
)

RULES = Rules(
    reuse=True,
    hold_identical=True,
    every=2,
    max_age_s=0.5,
    refresh=24,
    refresh_s=10.0,
    camera_share=0.5,
    camera_standing=0.3,
    camera_from="computed",
    camera_every=6,
    camera_price=None,
    rolling=0.0,
    refresh_idle=True,
    camera_s=0.5,
    cut_share=0.6,
    light_step=1.35,
)
EXACT = replace(RULES, reuse=False)

# A frame in the middle of a clip, two frames after rows last ran, in which a third of the patches moved.
MOVED = Situation(
    moved=0.3,
    frames_since_computed=2,
    seconds_since_computed=0.08,
    frames_since_dense=9,
    seconds_since_dense=0.36,
)
STILL = replace(MOVED, moved=0.0)
PAN = replace(MOVED, moved=0.51, standing=0.29)
SAME = replace(STILL, identical=True)
SAME_AS_DENSE = replace(SAME, frames_since_computed=9)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (MOVED, ("rows", "changed")),
        (replace(MOVED, frames_since_computed=1), ("warped", "between")),
        (replace(MOVED, frames_since_computed=1, seconds_since_computed=0.5), ("rows", "changed")),
        (STILL, ("held", "unchanged")),
        (replace(STILL, frames_since_computed=1), ("held", "unchanged")),
        (SAME, ("held", "unchanged")),
        # refresh, in frames and in seconds
        (replace(MOVED, refresh_due=True), ("dense", "refresh")),
        (replace(STILL, refresh_due=True), ("dense", "refresh")),
        (replace(MOVED, seconds_since_dense=10.0), ("dense", "refresh")),
        (replace(MOVED, seconds_since_dense=9.99), ("rows", "changed")),
        # the same picture: held unless a refresh is due; straight after a dense pass even then
        (replace(SAME, refresh_due=True), ("dense", "refresh")),
        (replace(SAME, seconds_since_dense=10.0), ("dense", "refresh")),
        (replace(SAME_AS_DENSE, refresh_due=True), ("held", "unchanged")),
        (replace(SAME_AS_DENSE, seconds_since_dense=1e6), ("held", "unchanged")),
        # cut before light before camera
        (replace(MOVED, jumped=0.61), ("dense", "cut")),
        (replace(MOVED, jumped=0.6), ("rows", "changed")),
        (replace(MOVED, jumped=0.9, moved=0.9, gain=3.0), ("dense", "cut")),
        (replace(MOVED, moved=0.9, gain=1.36), ("dense", "light")),
        (replace(MOVED, gain=1 / 1.36), ("dense", "light")),
        (replace(MOVED, gain=1.34), ("rows", "changed")),
        (replace(MOVED, gain=1 / 1.34), ("rows", "changed")),
        # the camera: dense now and then, warped in between, never rows
        (replace(PAN, frames_since_computed=6), ("dense", "camera")),
        (replace(PAN, frames_since_computed=5), ("warped", "camera")),
        (replace(PAN, frames_since_computed=1, seconds_since_computed=0.5), ("dense", "camera")),
        (replace(PAN, moved=0.5), ("rows", "changed")),
        (replace(PAN, standing=0.3), ("rows", "changed")),
        (replace(MOVED, moved=0.9), ("rows", "changed")),  # a crowd before a still camera
        # evidence counts where there is a bound for it, with a still camera and a moving one
        (replace(MOVED, frames_since_computed=1, residual=99.0), ("warped", "between")),
        (replace(PAN, frames_since_computed=5, residual=99.0), ("warped", "camera")),
        # nothing is known before, or nothing should be
        (replace(MOVED, first=True), ("dense", "reset")),
        (replace(SAME, first=True, refresh_due=True), ("dense", "reset")),
        (replace(MOVED, valid=False, first=True), ("skipped", "invalid")),
        (replace(SAME, valid=False), ("skipped", "invalid")),
    ],
)
def test_every_situation_has_its_policy(now, expected):
    assert choose_policy(RULES, now) == expected


WARPED = {"seconds_since_computed": 0.2, "unexplained_s": 0.05}  # a mean of 0.25, and of the price of 0.1 in 0.2 s


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        # a frame is warped while it is below the mean of what is unexplained and paid since rows ran
        (replace(PAN, residual=0.74, **WARPED), ("warped", "camera")),
        (replace(PAN, residual=0.76, **WARPED), ("dense", "camera")),
        (
            replace(MOVED, residual=9.0, seconds_since_computed=0.09),
            ("warped", "between"),
        ),  # a still camera goes by time
        (replace(PAN, residual=9.0, seconds_since_computed=0.09), ("warped", "camera")),  # not before rows would be due
        # at first only the price counts
        (replace(PAN, residual=0.9, seconds_since_computed=0.1), ("warped", "camera")),
        (replace(PAN, residual=1.1, seconds_since_computed=0.1), ("dense", "camera")),
        (replace(STILL, residual=9.0, **WARPED), ("held", "unchanged")),
        (replace(MOVED, seconds_since_computed=0.5), ("rows", "changed")),
        (replace(PAN, seconds_since_computed=0.6), ("warped", "camera")),
        (replace(PAN, seconds_since_computed=0.7), ("dense", "camera")),
        # nothing is refreshed where nothing ran since the last dense frame
        (replace(STILL, refresh_due=True, frames_since_computed=9), ("held", "unchanged")),
        (replace(STILL, seconds_since_dense=1e6, frames_since_computed=9), ("held", "unchanged")),
        (replace(STILL, refresh_due=True), ("dense", "refresh")),
    ],
)
def test_evidence_decides_when_and_there_is_no_refresh_without_need(now, expected):
    rules = replace(RULES, every=None, camera_every=None, camera_price=0.1, refresh_idle=False, camera_s=0.7)
    rules = replace(rules, max_age_s=0.1)
    assert choose_policy(rules, now) == expected


def test_the_age_of_a_moving_camera_s_dense_frame_counts_from_where_its_motion_does():
    rules = replace(RULES, every=None, camera_every=None, camera_s=0.7)
    now = replace(PAN, seconds_since_computed=0.6, seconds_since_dense=0.8)
    assert choose_policy(rules, now) == ("warped", "camera")
    since_dense = replace(rules, camera_from="dense")
    assert choose_policy(since_dense, now) == ("dense", "camera")
    early = replace(now, seconds_since_computed=0.4)  # rows aren't due yet, so that corners needn't be looked at
    assert choose_policy(since_dense, early) == ("warped", "camera")
    assert not asks_for_standing(since_dense, early)


@given(
    growth=st.floats(0.1, 20),
    price=st.floats(0.001, 0.1),
    fps=st.sampled_from([5, 15, 30, 60]),
)
def test_the_price_gives_the_least_mean_at_any_rate(growth, price, fps):
    """Where residuals grow steadily, no other number of frames from run to run has a lower mean."""
    rules = replace(
        RULES, every=None, camera_every=None, camera_price=price, refresh_idle=False, camera_s=1e9, max_age_s=1e-9
    )

    def mean(frames: int) -> float:
        return sum(growth * frame / fps for frame in range(frames)) / frames + price * fps / frames

    unexplained_s, frames = 0.0, 1
    while True:
        residual = growth * frames / fps
        now = replace(PAN, residual=residual, unexplained_s=unexplained_s, seconds_since_computed=frames / fps)
        if choose_policy(rules, now)[0] == "dense":
            break
        unexplained_s, frames = unexplained_s + residual / fps, frames + 1
    assert mean(frames) <= min(mean(frames + 1), mean(max(1, frames - 1))) * (1 + 1e-9)


@pytest.mark.parametrize(("valid", "first", "identical", "hold"), list(product((False, True), repeat=4)))
def test_without_reuse_all_is_dense_but_what_is_byte_identical(valid, first, identical, hold):
    now = replace(MOVED, valid=valid, first=first, identical=identical, jumped=1.0, gain=9.0, refresh_due=True)
    now = replace(now, frames_since_computed=1, frames_since_dense=1, seconds_since_dense=1e9)
    found = choose_policy(replace(EXACT, hold_identical=hold), now)
    if not valid:
        assert found == ("skipped", "invalid")
    elif first:
        assert found == ("dense", "reset")
    else:
        assert found == (("held", "unchanged") if identical and hold else ("dense", "every"))


shares = st.floats(0, 1)
counts = st.integers(1, 100)


@given(
    st.builds(
        Situation,
        valid=st.booleans(),
        first=st.booleans(),
        identical=st.booleans(),
        moved=shares,
        standing=shares,
        jumped=shares,
        gain=st.floats(0.25, 4),
        frames_since_computed=counts,
        seconds_since_computed=st.floats(-1, 100),
        frames_since_dense=counts,
        seconds_since_dense=st.floats(-1, 100),
        refresh_due=st.booleans(),
    ),
    st.booleans(),
)
def test_every_answer_is_a_known_one_and_nothing_gets_too_old(now, reuse):
    rules = replace(RULES, reuse=reuse)
    policy, reason = choose_policy(rules, now)
    assert policy in POLICIES
    assert reason in get_args(Reason)
    assert (policy == "skipped") == (not now.valid)
    if now.valid and now.moved > 0 and not now.identical and now.seconds_since_computed >= rules.max_age_s:
        assert policy in ("dense", "rows")
    if not now.first and policy == "rows":
        assert now.moved > 0
        assert now.moved <= rules.camera_share or now.standing >= rules.camera_standing


@given(st.text(), st.integers(1, 40), st.integers(0, 10**7))
def test_it_is_a_sources_turn_exactly_once_in_so_many_frames(source, refresh, start):
    due = [index for index in range(start, start + 3 * refresh) if refresh_due(source, index, refresh)]
    assert len(due) == 3
    assert {after - before for before, after in pairwise(due)} == {refresh}


def test_sources_take_turns():
    """Of 240 cameras, about ten are due at each of 24 frames."""
    due = [sum(refresh_due(f"camera {number}", index, 24) for number in range(240)) for index in range(24)]
    assert sum(due) == 240
    assert max(due) <= 20


def test_a_name_that_is_not_text_has_a_turn_too():
    assert refresh_due("\udcff.mp4", 0, 1)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 30), st.integers(1, 30), st.booleans(), st.floats(0, 2))
def test_standing_corners_are_asked_for_where_they_decide_and_nowhere_else(
    moved, standing, since_computed, since_dense, due, seconds
):
    now = Situation(
        moved=moved,
        frames_since_computed=since_computed,
        seconds_since_computed=seconds,
        frames_since_dense=max(since_computed, since_dense),
        refresh_due=due,
    )
    told = choose_policy(RULES, replace(now, standing=standing))[0]
    if not asks_for_standing(RULES, now):
        assert told == choose_policy(RULES, now)[0]
    else:
        assert moved > RULES.camera_share
        assert told in ("dense", "rows", "warped")
