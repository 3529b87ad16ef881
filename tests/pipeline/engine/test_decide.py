"""What a frame needs, from its pixels alone: whole little films of decisions, without a network."""

import re
from collections import Counter
from itertools import pairwise, product

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.decide import TemporalState, decide, follow
from deltascene.stages.types import Frame, TokenGrid

pytestmark = pytest.mark.usefixtures("one_thread")

GRID = TokenGrid(height=6, width=8, patch=14, prefix=1)
BY_COUNT = load_config("defaults", overrides=["policy.camera_every=3"])  # every so many frames
REFRESH = BY_COUNT.policy.refresh


def still(seed=0):
    """Soft shapes, away from black and white."""
    coarse = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(seed)) * 120 + 60
    soft = torch.nn.functional.interpolate(coarse, size=GRID.image_size, mode="bilinear", align_corners=False)
    return soft[0].to(torch.uint8)


def with_object(number, pixels=None):
    """One bright square of a patch's size, one patch further in each frame."""
    pixels = still() if pixels is None else pixels.clone()
    row, column = number // 8 % 6 * 14, number % 8 * 14
    pixels[:, row : row + 14, column : column + 14] = 250
    return pixels


def walk(films, config=BY_COUNT, fps=25.0, times=None, start=0, source="a camera"):
    """The decision about every frame; frame numbers count in strides, as sources give them."""
    state, decisions = TemporalState(), []
    for number, pixels in enumerate(films):
        index = (start + number) * config.source.stride
        pts_s = times[number] if times is not None else index / fps
        state, decision = decide(config, GRID, state, Frame(source, index, pts_s, None), pixels)
        decisions.append(decision)
    return decisions


def told(decisions):
    return [(decision.policy, decision.reason) for decision in decisions]


def without_refresh(**values):
    keys = {"policy.camera_every": 3, "policy.refresh": 100_000, "policy.refresh_s": 1_000_000, **values}
    return load_config("defaults", overrides=[f"{key}={value}" for key, value in keys.items()])


def test_a_moving_object_alternates_rows_and_warps():
    decisions = walk(map(with_object, range(7)), without_refresh())
    assert [decision.policy for decision in decisions] == ["dense", "warped", "rows"] + ["warped", "rows"] * 2
    assert decisions[2].rows.tolist() == [0, 1, 3]  # prefix; where the object was computed; where it is
    assert decisions[4].rows.tolist() == [0, 3, 5]
    assert np.flatnonzero(decisions[3].moved).tolist() == [2, 3]
    assert all(torch.equal(each.picture.pixels, with_object(number)) for number, each in enumerate(decisions))
    assert decisions[3].strength.reshape(6, 8)[0, 3] > 60
    assert decisions[3].strength.reshape(6, 8)[0, 5] == 0
    assert [len(decision.rows) for decision in decisions[1::2]] == [0, 0, 0]


def test_with_every_frame_in_turn_nothing_is_warped():
    decisions = walk(map(with_object, range(7)), without_refresh(**{"policy.every": 1}))
    assert Counter(told(decisions)) == {("dense", "reset"): 1, ("rows", "changed"): 6}


def test_a_still_film_is_held_for_ever():
    """Also past every refresh: after a dense pass, the same picture again gives nothing new."""
    assert told(walk([still()] * 60)) == [("dense", "reset")] + [("held", "unchanged")] * 59


def test_grain_is_held_but_refreshed():
    generator = torch.Generator().manual_seed(1)
    films = [
        (still().float() + 3 * torch.randn(still().shape, generator=generator)).clamp(0, 255).byte() for _ in range(60)
    ]
    decisions = walk(films)
    assert Counter(told(decisions[1:])).keys() <= {("held", "unchanged"), ("dense", "refresh")}
    assert sum(decision.policy == "dense" for decision in decisions) - 1 in (60 // REFRESH, 60 // REFRESH + 1)


@pytest.mark.parametrize(("fps", "rows"), [(2, 11), (10, 5), (60, 5)])
def test_rows_are_capped_in_time(fps, rows):
    """Every second frame, but at 2 frames a second all of them: outputs are never older than half a second."""
    decisions = walk(map(with_object, range(12)), without_refresh(), fps=fps)
    assert Counter(decision.policy for decision in decisions) == {"dense": 1, "rows": rows} | (
        {"warped": 11 - rows} if rows < 11 else {}
    )


@settings(max_examples=20)
@given(st.lists(st.floats(0.001, 2), min_size=5, max_size=40))
def test_no_output_gets_older_than_the_caps_allow(gaps):
    """Any variable rate: a changing picture is computed within max_age_s and refreshed within refresh_s."""
    times = [0.0, *np.cumsum(gaps).tolist()]
    decisions = walk(map(with_object, range(len(times))), BY_COUNT, times=times)
    computed_s = dense_s = 0.0
    for pts_s, decision in zip(times, decisions, strict=True):
        if decision.policy in ("warped", "held"):
            assert pts_s - computed_s < BY_COUNT.policy.max_age_s
            assert pts_s - dense_s < BY_COUNT.policy.refresh_s
            continue
        computed_s = pts_s
        dense_s = pts_s if decision.policy == "dense" else dense_s


@pytest.mark.parametrize("stride", [1, 3, 7])
def test_a_stride_applies_before_anything_is_counted(stride):
    """Every `refresh`-th of the frames that are processed is dense, whatever lies between them."""
    config = load_config("defaults", overrides=[f"source.stride={stride}", "policy.refresh_s=1000000"])
    decisions = walk(map(with_object, range(100)), config, fps=1000)
    dense = [number for number, decision in enumerate(decisions) if decision.reason == "refresh"]
    assert len(dense) in (100 // REFRESH, 100 // REFRESH + 1)
    assert {after - before for before, after in pairwise(dense)} == {REFRESH}
    one_by_one = load_config("defaults", overrides=["policy.refresh_s=1000000"])
    assert told(decisions) == told(walk(map(with_object, range(100)), one_by_one, fps=1000))


def test_the_turn_depends_on_source_and_frame_number_never_on_where_a_segment_starts():
    whole = walk(map(with_object, range(8 * REFRESH)))
    part = walk(map(with_object, range(4 * REFRESH, 8 * REFRESH)), start=4 * REFRESH)
    dense = [[decision.reason == "refresh" for decision in film] for film in (whole[4 * REFRESH + 1 :], part[1:])]
    assert dense[0] == dense[1]
    assert sum(dense[0]) == 4
    others = [told(walk(map(with_object, range(REFRESH + 1)), source=f"camera {number}")) for number in range(3)]
    assert len({tuple(film) for film in others}) > 1


def test_a_cut_runs_dense():
    decisions = walk([still(), still(), 255 - still(7), 255 - still(7)], without_refresh())
    assert told(decisions)[1:] == [("held", "unchanged"), ("dense", "cut"), ("held", "unchanged")]


@pytest.mark.parametrize(("gain", "expected"), [(1.4, ("dense", "light")), (0.7, ("dense", "light"))])
def test_a_light_step_runs_dense(gain, expected):
    lit = (still().float() * gain).round().byte()
    assert told(walk([still(), still(), lit, lit], without_refresh()))[2:] == [expected, ("held", "unchanged")]


def test_an_exposure_swing_is_held():
    """Twelve per cent up and down within two seconds."""
    films = [(still().float() * (1 + 0.12 * np.sin(number / 8))).round().byte() for number in range(50)]
    decisions = walk(films, without_refresh())
    assert told(decisions)[1:] == [("held", "unchanged")] * 49
    # and something that moves meanwhile is alone in moving
    lit = [with_object(number, film) for number, film in enumerate(films)]
    rows = [decision.rows for decision in walk(lit, without_refresh()) if decision.policy == "rows"]
    assert len(rows) == 24
    assert max(map(len, rows)) <= 1 + 2 + 1


def test_a_camera_pan_is_dense_now_and_then_and_warped_in_between():
    wide = np.arange(GRID.image_size[1])
    pan = [
        torch.from_numpy(
            np.broadcast_to(128 + 60 * np.sin(2 * np.pi * (wide - 3 * number) / 56), (3, *GRID.image_size))
            .round()
            .astype(np.uint8)
        )
        for number in range(13)
    ]
    every, due = BY_COUNT.policy.camera_every, BY_COUNT.policy.every  # before rows are due, nobody asks for the camera
    period = [("warped", "between")] * (due - 1) + [("warped", "camera")] * (every - due) + [("dense", "camera")]
    found = told(walk(pan, without_refresh()))
    assert found == [("dense", "reset")] + period * (12 // every)
    slow = told(walk(pan, without_refresh(), fps=2))
    assert "warped" not in {policy for policy, _ in slow}  # too old after one frame


def test_a_crowd_before_a_still_camera_is_rows_not_a_camera_pan():
    """Two thirds of the patches move, but corners in the background stand."""
    room = still()
    for row, column in product(range(2, 26, 8), range(4, 108, 12)):  # lamps on the wall
        room[:, row : row + 5, column : column + 6] = 240
    films = []
    for number in range(9):
        pixels = room.clone()
        for row, column in product(range(2, 6), range(8)):  # flat things, as clothes are, over four of six rows
            shade = 100 + 20 * ((row + column + number) % 3)
            pixels[:, 14 * row : 14 * row + 14, 14 * column : 14 * column + 14] = shade
        films.append(pixels)
    decisions = walk(films, without_refresh())
    assert all(decision.moved.mean() > 0.5 for decision in decisions[1:] if decision.policy != "held")
    assert {decision.policy for decision in decisions[1:]} == {"warped", "rows"}
    assert "camera" not in {decision.reason for decision in decisions}


def test_slow_change_is_never_lost():
    """One level a frame in one patch: its rows run when it is past the threshold, over and over."""
    pixels, films = still(), []
    for _ in range(60):
        pixels = pixels.clone()
        pixels[:, 14:28, 14:28] += 1
        films.append(pixels)
    decisions = walk(films, without_refresh())
    ran = [number for number, decision in enumerate(decisions) if decision.policy == "rows"]
    assert len(ran) == 4
    assert {after - before for before, after in zip([0, *ran], ran, strict=False)} <= {12, 13, 14}
    assert all(decisions[number].rows.tolist() == [0, 1 + 9] for number in ran)


def test_exact_reuses_identical_pictures_only():
    films = [still(), still(), with_object(1), with_object(1), with_object(2)]
    decisions = walk(films, load_config("exact"))
    assert [decision.policy for decision in decisions] == ["dense", "held", "dense", "held", "dense"]
    assert [decision.reason for decision in decisions] == ["reset", "unchanged", "every", "unchanged", "every"]


@settings(max_examples=15)
@given(st.floats(0, 60), st.floats(0, 60), st.lists(st.integers(0, 47), min_size=1, max_size=6), st.integers(0, 99))
def test_a_larger_threshold_runs_a_subset_of_the_rows(one, other, places, seed):
    """One decision on the same references: not a promise about a whole film, whose references part."""
    low, high = sorted((one, other))
    after = still()
    for depth, place in enumerate(places):
        row, column = place // 8 * 14, place % 8 * 14
        after[:, row : row + 14, column : column + 14] += 9 * (depth + 1)
    ran = []
    for threshold in (low, high):
        config = without_refresh(**{"change.threshold": threshold, "policy.every": 1, "policy.camera_share": 1.0})
        decision = walk([still(), after], config)[1]
        ran.append(set(decision.rows.tolist()) if decision.policy == "rows" else set())
    assert ran[1] <= ran[0]


def test_a_decision_changes_neither_state_nor_pixels():
    state, _ = decide(BY_COUNT, GRID, TemporalState(), Frame("a", 0, 0.0, None), still())
    kept = [tensor.clone() for tensor in (state.computed.pixels, state.reference.cells_PQ, state.cells_PQ)]
    for index in (1, 2):
        decide(BY_COUNT, GRID, state, Frame("a", index, index / 25, None), with_object(index))
    assert all(map(torch.equal, kept, (state.computed.pixels, state.reference.cells_PQ, state.cells_PQ)))


def walk_on(films, config, fps=25.0):
    """As `walk`, with the flow of warped frames looked at; also the states after every frame."""
    state, decisions, states = TemporalState(), [], []
    for number, pixels in enumerate(films):
        state, decision = decide(config, GRID, state, Frame("a", number, number / fps, None), pixels)
        if decision.policy == "warped":
            state, _ = follow(config, GRID, state, decision)
        decisions.append(decision)
        states.append(state)
    return decisions, states


def test_a_frame_that_differs_in_its_last_row_alone_is_not_the_same():
    config = load_config("exact")
    other = still()
    other[2, -1, -1] += 1
    assert told(walk([still(), still(), other], config)) == [
        ("dense", "reset"),
        ("held", "unchanged"),
        ("dense", "every"),
    ]


def test_nothing_is_refreshed_where_nothing_ran():
    generator = torch.Generator().manual_seed(1)
    films = [(still().float() + 3 * torch.randn(still().shape, generator=generator)).clamp(0, 255).byte()] * 60
    decisions = walk([still(), *films], load_config("defaults", overrides=["policy.refresh_idle=false"]))
    assert told(decisions) == [("dense", "reset")] + [("held", "unchanged")] * 60


def test_the_stalest_tokens_join_until_all_were_computed():
    """Never more of them than moved: two patches a frame here, so 48 are through in 24 frames at the latest."""
    config = without_refresh(**{"policy.every": 1, "policy.rolling": 0.1})
    decisions, states = walk_on(map(with_object, range(26)), config)
    assert {decision.policy for decision in decisions[1:]} == {"rows"}
    assert {len(decision.rows) - GRID.prefix for decision in decisions[1:]} == {4}
    assert int(states[-1].computed_P.min()) > 0
    for before, after, decision in zip(states, states[1:], decisions[1:], strict=False):
        patches = decision.rows[GRID.prefix :] - GRID.prefix
        assert patches.tolist() == sorted(set(patches.tolist()))
        kept = torch.ones(GRID.patches, dtype=torch.bool).index_fill(0, patches, False)
        rolled = patches[~torch.from_numpy(decision.moved.ravel())[patches]]
        assert len(rolled) == 2
        assert before.computed_P[rolled].max() <= before.computed_P[kept].min()
        assert torch.equal(before.computed_P[kept], after.computed_P[kept])


@pytest.mark.parametrize(("price", "longest"), [("0.00001", 1), ("200", 9)])
def test_a_moving_camera_is_computed_when_the_flow_leaves_too_much_unexplained(price, longest):
    """Nothing flows between pictures of noise. With a price out of reach, only age decides."""
    film = torch.randint(0, 256, (40, 3, 84, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    keys = {
        "camera_every": "null",
        "camera_price": price,
        "camera_s": 0.39,
        "max_age_s": 0.05,
        "cut_share": 1.0,
        "light_step": 100,
    }
    decisions, _ = walk_on(film, without_refresh(**{f"policy.{key}": value for key, value in keys.items()}))
    policies = "".join(decision.policy[0] for decision in decisions)
    assert policies.startswith("dw")
    assert max(map(len, re.findall("w+", policies))) == longest
    assert policies.count("d") == 40 - policies.count("w") >= 4


@pytest.mark.parametrize(("since", "seen"), [("computed", False), ("dense", True)])
def test_a_camera_that_creeps_is_seen_from_the_last_dense_frame_on(since, seen):
    """Half a pixel a frame, before shapes whose edges move it over the threshold now and then."""
    shapes = np.random.default_rng(3).integers(60, 200, (24, 32, 3), np.uint8).repeat(6, 0).repeat(6, 1)
    film = [
        torch.from_numpy(cv2.warpAffine(shapes, np.float32([[1, 0, -number / 2 - 8], [0, 1, -8]]), (112, 84)))
        .permute(2, 0, 1)
        .contiguous()
        for number in range(16)
    ]
    rows = {"policy.every": 1, "policy.max_age_s": 0.04, "policy.camera_every": "null", "policy.camera_s": 0.25}
    decisions = walk(film, without_refresh(**rows, **{"policy.camera_from": since, "policy.camera_share": 0.0}))
    reasons = [decision.reason for decision in decisions]
    assert ("camera" in reasons) == seen
    if seen:  # and it gets its dense frames, whether rows ran in between or not
        dense = [number for number, each in enumerate(decisions) if each.policy == "dense"]
        assert max(after - before for before, after in pairwise(dense)) <= 8


def test_the_flow_explains_what_glides_and_not_what_appears():
    soft = torch.from_numpy(
        cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8), (0, 0), 3)
    )
    film = [soft[10:94, 10 + left : 122 + left].permute(2, 0, 1).contiguous() for left in (0, 5)]
    config = without_refresh(
        **{
            "policy.every": "null",
            "policy.camera_every": "null",
            "policy.max_age_s": 9.0,
            "policy.cut_share": 1.0,
            "policy.camera_price": 200,
        }
    )
    _, gliding = walk_on(film, config)
    _, appearing = walk_on([film[0], with_object(9, film[1])], config)
    assert 2 * gliding[1].residual < appearing[1].residual
    assert gliding[1].first_residual == gliding[1].residual
    assert gliding[1].unexplained_s == pytest.approx(gliding[1].residual * gliding[1].step_s)


def test_exposure_is_taken_out_of_the_residual():
    config = without_refresh(**{"policy.every": "null", "policy.max_age_s": 9.0, "policy.camera_price": 200})
    darker = (with_object(3).float() * 0.85).round().byte()
    _, states = walk_on([still(), with_object(3)], config)
    _, dimmed = walk_on([still(), darker], config)
    assert dimmed[-1].residual == pytest.approx(states[-1].residual, rel=0.25)


def test_what_moves_in_a_zone_is_neither_computed_nor_a_cut():
    config = load_config("defaults", overrides=["policy.every=1", "policy.cut_share=0.1", "policy.refresh=1000"])
    top, frame = np.zeros(GRID.patches, bool), Frame("a", 0, 0.0, None)
    top[: 2 * GRID.width] = True
    state, _ = decide(config, GRID, TemporalState(), frame, still(), top)
    busy = still()
    busy[:, :28] = still(1)[:, :28]
    assert decide(config, GRID, state, frame, busy)[1].reason == "cut"
    after, decision = decide(config, GRID, state, frame, busy, top)
    assert (decision.policy, decision.moved.any(), decision.strength.any()) == ("held", False, False)
    _, decision = decide(config, GRID, after, frame, with_object(30, busy), top)  # below the zone
    assert (decision.policy, decision.rows.tolist()) == ("rows", [0, 31])
    assert decide(config, GRID, state, frame, busy, np.ones(GRID.patches, bool))[1].policy == "held"
