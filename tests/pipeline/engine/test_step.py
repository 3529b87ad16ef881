"""One frame after another through the whole walk: what runs, what it costs, and that nothing else changes."""

from collections import Counter
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional

from deltascene.cache.segment import SegmentInfo, check_record
from deltascene.pipeline.bundles.bundle import read_bundle
from deltascene.pipeline.bundles.scene_model import handing_over, load_model
from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.audit import FLOOR_SHARE, AuditState, one_of
from deltascene.pipeline.engine.step import StreamState, plan_geometry, step
from deltascene.pipeline.numerics.settle import split_dtype
from deltascene.stages.age import age_map
from deltascene.stages.change import rows_of
from deltascene.stages.motion import estimate_flow, plan_lookup, to_grey, warp, warp_age
from deltascene.stages.preprocess import normalise, resize_frame
from deltascene.stages.types import Frame

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = (48, 64)  # of the tiny bundle's input: 3 x 4 patches of 16 pixels, so nothing is resized
WIDTH, TOKENS = 64, 13
TASKS = ("parts", "height", "flow", "hands")
WITH_DELTA = ("height", "flow")
FLOAT32 = ["numerics.dtype=float32"]  # as the model, which isn't prepared for anything


@pytest.fixture(scope="module")
def bundle(tiny_delta):
    return read_bundle(tiny_delta)


@pytest.fixture(scope="module")
def model(bundle):
    return load_model(bundle, TASKS)


def settings_for(preset, **values):
    keys = {"policy.refresh": 100_000, "policy.refresh_s": 1_000_000, **values}
    return load_config(preset, overrides=[*FLOAT32, *(f"{key}={value}" for key, value in keys.items())])


def still(seed=0, size=SIZE):
    coarse = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(seed)) * 110 + 60
    soft = functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False)[0]
    return soft.permute(1, 2, 0).numpy().astype(np.uint8)


def with_object(left, top=17):
    image = still()
    image[top : top + 12, left : left + 12] = (240, 40, 90)
    return image


# An object crosses the picture, rests, is covered by a bad frame and goes on: all policies but cut and light.
PATH = [2, 4, 6, 8, 10, 10, 10, 10, 14, 18, 22, 26, 26, 30]
FILM = [with_object(left) for left in PATH]


def play(model, config, images, start=0, fps=25.0, invalid=()):
    """Results of a stream; a bad frame has a picture that must not be looked at."""
    state, results = StreamState(), []
    for number, image in enumerate(images, start=start):
        bad = number in invalid
        frame = Frame("a", number, number / fps, image, valid=not bad, cause="corrupt" if bad else "")
        state, result = step(model, config, state, frame)
        results.append(result)
    return results


def assert_same(found, expected):
    """Predictions of two frames, byte for byte."""
    assert found.predictions.keys() == expected.predictions.keys()
    for task, prediction in found.predictions.items():
        np.testing.assert_array_equal(prediction.array, expected[task].array)
        np.testing.assert_array_equal(prediction.age, expected[task].age)


def test_a_still_film_costs_nothing_after_its_first_frame(model):
    results = play(model, load_config("defaults", overrides=FLOAT32), [still()] * 61)
    assert [result.policy for result in results] == ["dense"] + ["held"] * 60
    for result in results[1:]:
        assert result.cost.macs_executed == 0
        assert len(result.record.rows) == 0
        assert all(cost.rows_computed == 0 for cost in result.cost.tasks.values())
        assert result.cost.macs_dense == results[0].cost.macs_executed == results[0].cost.macs_dense
        for task in TASKS:
            np.testing.assert_array_equal(result[task].array, results[0][task].array)
    assert [int(result["hands"].age.max()) for result in results] == list(range(61))


def test_all_policies_come_up_in_the_film(model):
    policies = [result.policy for result in play(model, settings_for("defaults"), FILM)]
    assert policies == ["dense"] + ["warped", "rows"] * 2 + ["held"] * 3 + ["rows"] + ["warped", "rows"] * 2 + [
        "warped"
    ]


def test_exact_is_a_fresh_stream_in_every_frame(model):
    config = load_config("exact", overrides=FLOAT32)
    results = play(model, config, FILM)
    for number, result in enumerate(results):
        assert result.policy == ("held" if number and PATH[number] == PATH[number - 1] else "dense")
        assert_same(replace_ages(result), play(model, config, [FILM[number]])[0])


def replace_ages(result):
    """A result as if just computed."""
    young = {task: replace(one, age=np.zeros_like(one.age)) for task, one in result.predictions.items()}
    return replace(result, predictions=young)


def test_a_dense_frame_amid_a_film_forgets_what_was(model):
    config = load_config("defaults", overrides=[*FLOAT32, "policy.refresh=5"])
    results = play(model, config, FILM)
    dense = [number for number, result in enumerate(results) if result.reason == "refresh"]
    assert dense
    for number in dense:
        assert_same(results[number], play(model, config, [FILM[number]])[0])


def test_an_invalid_frame_changes_no_later_result(model):
    config = settings_for("defaults")
    images = [*FILM[:3], np.zeros((*SIZE, 3), np.uint8), *FILM[3:]]
    with_bad = play(model, config, images, invalid={3})
    without = play(model, config, FILM)
    bad = with_bad.pop(3)
    assert (bad.policy, bad.reason, bad.cause, bad.valid) == ("skipped", "invalid", "corrupt", False)
    assert (bad.cost.macs_executed, bad.cost.macs_dense, bad.predictions) == (0, 0, {})
    for found, expected in zip(with_bad, without, strict=True):
        assert found.policy == expected.policy
        assert_same(found, expected)


def test_a_bad_first_frame_and_one_without_a_picture_are_passed_through(model):
    config = settings_for("defaults")
    state, result = step(model, config, StreamState(), Frame("a", 0, 0.0, None, valid=True, cause="missing"))
    assert (result.policy, result.valid, result.predictions) == ("skipped", False, {})
    state, result = step(model, config, state, Frame("a", 1, 0.04, FILM[0]))
    assert (result.policy, result.reason) == ("dense", "reset")


def test_another_size_resets(model):
    config, other = settings_for("defaults"), still(1, (72, 96))
    state = StreamState()
    for number, image in enumerate([*FILM[:3], other]):
        state, result = step(model, config, state, Frame("a", number, number / 25, image))
    assert (result.policy, result.reason, result.cause, result.valid) == ("dense", "reset", "resized", True)
    assert_same(result, play(model, config, [other])[0])


@pytest.mark.parametrize(
    ("last", "reason"),
    [(255 - still(5), "cut"), ((still() * 1.45).astype(np.uint8), "light")],
)
def test_cut_and_light_run_dense(model, last, reason):
    config = settings_for("defaults")
    results = play(model, config, [still(), still(), last])
    assert [(result.policy, result.reason) for result in results[1:]] == [("held", "unchanged"), ("dense", reason)]
    assert_same(results[2], play(model, config, [last])[0])


def test_a_camera_pan_is_warped_between_dense_frames(model):
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    wave = 128 + 40 * np.sin(2 * np.pi * x / 32) + 40 * np.sin(2 * np.pi * (x + y) / 32)
    pan = [np.repeat(np.roll(wave, 2 * number, 1)[..., None], 3, 2).astype(np.uint8) for number in range(13)]
    results = play(model, settings_for("defaults", **{"change.threshold": 5, "policy.camera_every": 6}), pan)
    told = [(result.policy, result.reason) for result in results]
    period = [("warped", "between"), *[("warped", "camera")] * 4, ("dense", "camera")]  # rows are due every 2 frames
    assert told == [("dense", "reset"), *period, *period]
    assert np.abs(np.median(results[3].record.flow[0][2:-2, 2:-2]) / 32 + 6) < 1  # content came from 6 px further left


def block_macs(rows):
    """One block of test_vit: width 64, MLP ratio 3, two heads of 32."""
    return rows * (3 + 1 + 3 + 3) * WIDTH * WIDTH + 2 * rows * TOKENS * WIDTH


def test_macs_of_rows_by_hand(model):
    result = play(model, settings_for("defaults"), FILM)[2]
    assert result.policy == "rows"
    rows = len(result.record.rows)
    patches = rows - 1
    assert 1 <= patches <= 4
    costs = result.cost.tasks
    assert costs["parts"].executed.embed == patches * 3 * 16 * 16 * WIDTH
    assert costs["parts"].executed.blocks == 6 * block_macs(rows)
    assert costs["parts"].executed.head == patches * (2 * WIDTH * 16 + 16 * 3 * 16)
    assert costs["height"].executed.blocks == 3 * block_macs(rows)  # blocks 4 to 6
    assert costs["height"].executed.head == patches * 2 * WIDTH * 16
    assert costs["flow"].executed.blocks == 2 * block_macs(rows)
    assert costs["flow"].executed.head == patches * WIDTH * 3 * 4
    assert costs["hands"].executed.blocks == 0
    assert costs["hands"].executed.head == patches * (2 * WIDTH * 8 + 8 * 2 * 16)
    assert {task: cost.rows_computed for task, cost in costs.items()} == {
        "parts": rows,
        "height": rows,
        "flow": rows,
        "hands": 0,
    }
    dense = sum((6 + 3 + 2) * [block_macs(TOKENS)]) + 12 * 3 * 16 * 16 * WIDTH
    assert result.cost.macs_dense == dense + 12 * (
        2 * WIDTH * 16 + 16 * 3 * 16 + 2 * WIDTH * 16 + WIDTH * 3 * 4 + 2 * WIDTH * 8 + 8 * 2 * 16
    )


def told_of(model, evidence):
    return replace(
        model, bundle=replace(model.bundle, entry=model.bundle.entry.model_copy(update={"evidence": evidence}))
    )


def test_macs_of_networks_of_single_tasks_by_hand(model):
    """The same for every valid frame, whatever ran."""
    known = told_of(model, {"single_task": {task: {} for task in TASKS}})
    results = play(known, settings_for("defaults"), FILM, invalid=(3,))
    embed, block = 12 * 3 * 16 * 16 * WIDTH, block_macs(TOKENS)
    by_hand = {
        "parts": embed + 6 * block + 12 * (2 * WIDTH * 16 + 16 * 3 * 16),
        "height": embed + 6 * block + 12 * 2 * WIDTH * 16,
        "flow": embed + 6 * block + 12 * WIDTH * 3 * 4,
        "hands": embed + 6 * block + 12 * (2 * WIDTH * 8 + 8 * 2 * 16),
    }
    for number, result in enumerate(results):
        found = {task: cost.single_task for task, cost in result.cost.tasks.items()}
        assert found == (dict.fromkeys(TASKS, 0) if number == 3 else by_hand), number


def test_a_base_that_nobody_asked_for_is_no_network_of_its_own(bundle):
    lone = told_of(load_model(bundle, ["height"]), {"single_task": {"parts": {}, "height": {}}})
    costs = play(lone, settings_for("defaults"), FILM[:1])[0].cost.tasks
    assert costs["parts"].single_task == 0
    assert costs["height"].single_task > 0


@pytest.mark.parametrize("evidence", [{}, {"single_task": "none"}, {"single_task": {"parts": {}}}])
def test_without_evidence_nothing_is_said_of_single_tasks(model, evidence):
    costs = play(told_of(model, evidence), settings_for("defaults"), FILM[:1])[0].cost.tasks
    assert costs["height"].single_task is None
    assert (costs["parts"].single_task is None) == (evidence.get("single_task") in (None, "none"))


def test_low_rank_products_are_counted(bundle, model):
    """Rank 2 beside each of a block's four weights; the same answers up to rounding."""
    low = load_model(bundle, TASKS, merged=False)
    config = settings_for("defaults")
    for merged, beside in zip(play(model, config, FILM[:5]), play(low, config, FILM[:5]), strict=True):
        rows = len(beside.record.rows)
        extra = 2 * (WIDTH + 3 * WIDTH + WIDTH + WIDTH + 2 * (WIDTH + 3 * WIDTH))
        if rows:
            found, plain = (one.cost.tasks["height"].executed.blocks for one in (beside, merged))
            assert found - plain == 3 * rows * extra
        assert beside["parts"].array.tobytes() == merged["parts"].array.tobytes()
        for task in ("height", "flow"):
            np.testing.assert_allclose(beside[task].array, merged[task].array, rtol=2e-3, atol=2e-4)


def test_only_what_somebody_reads_runs(bundle, model):
    assert model.base_depth == 6
    lone = load_model(bundle, ["height"])
    assert lone.base_depth == 3  # its split
    costs = play(lone, settings_for("defaults"), FILM[:1])[0].cost.tasks
    assert costs["parts"].executed.blocks == 3 * block_macs(TOKENS)
    assert costs["parts"].executed.head == 0
    assert replace(lone, hand_over=(3, 5)).base_depth == 5


def test_a_run_hands_over_to_its_archive_and_to_tasks_elsewhere(bundle):
    lone = load_model(bundle, ["height"])
    archiving, bare = (settings_for("defaults", **{"archive.enabled": wanted}) for wanted in ("true", "false"))
    for config, splits, points in (
        (archiving, (), (3, 4)),
        (archiving, (5, 3), (3, 4, 5)),
        (bare, (), ()),
        (bare, (4,), (4,)),
    ):
        model = handing_over(lone, config, splits)
        assert model.hand_over == points
        assert model.base_depth == max((3, *points))
        result = play(model, config, FILM[:1])[0]
        assert sorted(result.record.activations) == sorted({3, *points})
        assert result.cost.tasks["parts"].executed.blocks == model.base_depth * block_macs(TOKENS)


def test_a_task_alone_answers_as_it_does_among_others(bundle, model):
    config = settings_for("defaults")
    together = play(model, config, FILM)
    for task in TASKS:
        for alone, among in zip(play(load_model(bundle, [task]), config, FILM), together, strict=True):
            assert alone[task].array.tobytes() == among[task].array.tobytes()


def test_handing_on_more_changes_no_prediction(bundle, model):
    config = settings_for("defaults")
    for few in (model, load_model(bundle, ["flow"])):
        asking = replace(few, hand_over=(1, 3, 6))
        for plain, asked in zip(play(few, config, FILM), play(asking, config, FILM), strict=True):
            assert {1, 3, 6} <= set(asked.record.activations)
            assert_same(asked, plain)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_record_is_of_the_archives_form(model, dtype):
    config = settings_for("defaults", **{"numerics.split_dtype": dtype})
    geometry = plan_geometry(model, config, SIZE)
    info = SegmentInfo((3, 4), split_dtype(config), TOKENS, 1, WIDTH, (3, 4), 16, SIZE, SIZE, geometry.plan.content)
    images = [*FILM[:6], FILM[0], *FILM[6:]]
    results = play(replace(model, hand_over=(3, 4)), config, images, invalid={6})
    assert {result.policy for result in results} == {"dense", "rows", "warped", "held", "skipped"}
    for result in results:
        check_record(result.record, info)


def test_a_warped_frame_is_moved_from_what_was_computed_never_from_another_warp(model):
    """Two in a row: both are the outputs of the last computed frame, looked up under their own flow."""
    config = settings_for("defaults", **{"policy.every": 3})
    state, policies, computed, image, travelled = StreamState(), [], None, None, 0
    for number, now in enumerate(map(with_object, (2, 6, 10, 18, 24, 30))):
        before = state
        state, result = step(model, config, state, Frame("a", number, number / 25, now))
        policies.append(result.policy)
        if result.policy != "warped":
            computed, image = result, now
            continue
        grey = [to_grey(one.transpose(2, 0, 1)) for one in (now, image)]
        moved = result.record.change.reshape(3, 4) >= config.change.threshold
        np.testing.assert_array_equal(result.record.flow, estimate_flow(grey[0], grey[1], moved, state.geometry.grid))
        where = plan_lookup(result.record.flow, SIZE)
        assert np.abs(result.record.flow).max() > 32
        for task in TASKS:
            expected = warp(computed[task].array, model.bundle.kinds[task], where)
            np.testing.assert_array_equal(result[task].array, expected)
            np.testing.assert_array_equal(result[task].age, warp_age(age_map(state.ages, state.geometry.grid), where))
            assert state.tasks[task].value is before.tasks[task].value
        travelled += (result["parts"].age != age_map(state.ages, state.geometry.grid)).sum()
    assert policies == ["dense", "warped", "warped", "rows", "warped", "warped"]
    assert travelled > 0


def halves(cache):
    return [half for pair in cache.keys_values for half in pair[:2]]


def contents(state):
    """All that a stream carries, as bytes."""
    tensors = [*halves(state.cache), state.temporal.computed.pixels, state.temporal.reference.cells_PQ]
    for task in state.tasks.values():
        tensors += [*halves(task.cache), *task.cache.taps.values(), task.cells_PX, torch.from_numpy(task.value)]
    return [tensor.numpy().tobytes() for tensor in tensors]


def test_warping_and_holding_leave_everything_computed_as_it_is(model):
    config, state = settings_for("defaults"), StreamState()
    seen = set()
    for number, image in enumerate(FILM):
        before = contents(state) if number else []
        state, result = step(model, config, state, Frame("a", number, number / 25, image))
        seen.add(result.policy)
        if result.policy in ("warped", "held"):
            assert contents(state) == before
        elif number:
            assert contents(state) != before
    assert seen == {"dense", "rows", "warped", "held"}


def test_rows_change_outputs_within_one_patch_of_theirs_only(model):
    config, earlier, kept = settings_for("defaults", **{"policy.every": 1}), None, 0
    for result in play(model, config, FILM):
        if result.policy == "rows":
            patches = {int(row) - 1 for row in result.record.rows if row}
            near = np.zeros((3, 4), bool)
            for number in patches:
                row, column = divmod(number, 4)
                near[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = True
            far = ~near.repeat(16, 0).repeat(16, 1)
            kept += far.any()
            for task in TASKS:
                assert result[task].array[far].tobytes() == earlier[task].array[far].tobytes()
        earlier = result
    assert kept >= 4


def test_rows_straight_after_a_dense_pass_on_the_same_picture_change_nothing(model):
    """The whole walk, with a picture that differs by one level in one place: past no threshold but 0."""
    config = settings_for("defaults", **{"policy.every": 1, "change.threshold": 0})
    almost = FILM[0].copy()
    almost[20, 20] ^= 1
    dense, rows = play(model, config, [FILM[0], almost])
    again = play(model, load_config("exact", overrides=FLOAT32), [almost])[0]
    assert rows.policy == "rows"
    for task in ("height", "flow", "hands"):
        np.testing.assert_allclose(rows[task].array, again[task].array, rtol=2e-2, atol=2e-2)
        np.testing.assert_allclose(rows[task].array, dense[task].array, rtol=2e-2, atol=2e-2)


def timms_answer(model, task, image):
    """A task's raw output by timm's own forward: the base up to the split, the merged network after it."""
    entry, sub = model.bundle.entry, model.sub_tasks[task]
    vit = timm.create_model("test_vit", img_size=64, num_classes=0, dynamic_img_size=True).eval()
    vit.load_state_dict(model.backbone.state_dict())
    for number, block in enumerate(sub.blocks, start=sub.split):
        vit.blocks[number] = block
    geometry = plan_geometry(model, load_config("exact", overrides=FLOAT32), image.shape[:2])
    pixels = normalise(resize_frame(image, geometry.plan), entry.input.mean, entry.input.std)
    taps = entry.tasks[task].taps
    with torch.inference_mode():
        layers = vit.forward_intermediates(
            pixels[None], indices=[tap - 1 for tap in taps], intermediates_only=True, output_fmt="NLC"
        )
        return model.heads[task].cells(torch.stack([layer[0] for layer in layers], 1))


@pytest.mark.parametrize("task", ["height", "flow"])
def test_a_sub_task_is_its_merged_network(model, task):
    state, _ = step(model, settings_for("defaults"), StreamState(), Frame("a", 0, 0.0, FILM[0]))
    cells = timms_answer(model, task, FILM[0])
    assert (state.tasks[task].cells_PX - cells).abs().max() <= 1e-4 * cells.abs().max()


@pytest.mark.parametrize("task", ["height", "flow"])
def test_without_its_delta_a_sub_task_would_answer_with_the_bases_tokens(model, task):
    """Which is what a dropped delta term looks like, so here is what tells the two apart."""
    own = play(model, settings_for("defaults"), FILM[:5])
    dropped = replace(model, tasks=(task,), sub_tasks={})
    for result, lost in zip(own, play(dropped, settings_for("defaults"), FILM[:5]), strict=True):
        assert np.abs(result[task].array - lost[task].array).mean() > 0.01


def test_the_bases_answers_do_not_depend_on_what_sub_tasks_get(model):
    """bfloat16 across the split changes the tasks with a delta, a little, and nobody else."""
    native, rounded = (
        play(model, settings_for("defaults", **{"numerics.split_dtype": dtype}), FILM[:5])
        for dtype in ("native", "bfloat16")
    )
    for one, other in zip(native, rounded, strict=True):
        for task in ("parts", "hands"):
            assert one[task].array.tobytes() == other[task].array.tobytes()
        for task in ("height", "flow"):
            assert one[task].array.tobytes() != other[task].array.tobytes()
            assert model.bundle.kinds[task].drift(other[task].array, one[task].array) < 1.0


def test_audits_write_no_state_and_are_charged(model):
    plain, audited, exact = (
        play(model, config, FILM)
        for config in (
            settings_for("defaults"),
            settings_for("defaults", **{"run.audit_every": 3}),
            load_config("exact", overrides=[*FLOAT32, "policy.hold_identical=false"]),
        )
    )
    assert {result.policy for result in audited[3::3]} == {"warped", "held", "rows"}
    for number, (one, other, dense) in enumerate(zip(plain, audited, exact, strict=True)):
        assert_same(other, one)
        np.testing.assert_array_equal(one.record.rows, other.record.rows)
        due = number % 3 == 0 and number > 0
        assert other.cost.macs_executed == one.cost.macs_executed + due * one.cost.macs_dense
        for task in TASKS:
            drift = model.bundle.kinds[task].drift(one[task].array, dense[task].array)
            assert other.cost.tasks[task].drift == (drift if due else None)


def test_the_rows_of_a_record_are_the_moved_patches(model):
    results = play(model, settings_for("defaults"), FILM)
    grid = plan_geometry(model, settings_for("defaults"), SIZE).grid
    for result in results:
        record = result.record
        if record.policy == "rows":
            moved = torch.from_numpy(np.flatnonzero(record.change >= 12).astype(np.int64))
            assert rows_of(moved, grid).tolist() == record.rows.tolist()
        assert (record.policy == "dense") == (len(record.rows) == TOKENS)


def test_rows_stay_one_tensor_from_the_decision_to_every_task(model, monkeypatch):
    """Only the record, which is stored and sent, has them as an array."""
    decided, given, ran = [], [], []

    def spy(where, keep):
        module, name = where.rsplit(".", 1)
        real = getattr(import_module(module), name)
        monkeypatch.setattr(where, lambda *about, **more: keep(about, real(*about, **more)))

    def keep_decision(about, found):
        decided.append(found[1].rows)
        return found

    def keep_task_inputs(about, found):
        given.extend(task_input.base_output.rows for task_input in about[2])
        return found

    def keep_rows(about, found):
        ran.extend(stream.rows for _, stream in about[1])
        return found

    spy("deltascene.pipeline.engine.step.decide", keep_decision)
    spy("deltascene.pipeline.engine.step.run_task_blocks", keep_task_inputs)
    spy("deltascene.pipeline.engine.task_step.run_streams", keep_rows)
    results = play(model, settings_for("defaults"), FILM)
    computed = [rows for rows, result in zip(decided, results, strict=True) if result.policy in ("dense", "rows")]
    assert {rows is None for rows in computed} == {True, False}
    assert all(found is rows for found, rows in zip(given, [rows for rows in decided for _ in TASKS], strict=True))
    assert all(found is rows for found, rows in zip(ran, [rows for rows in computed for _ in WITH_DELTA], strict=True))
    for result, rows in zip(results, decided, strict=True):
        assert rows is None or rows.dtype == torch.int64
        assert result.record.rows.dtype == np.int32
        assert result.record.rows.tolist() == (list(range(TOKENS)) if rows is None else rows.tolist())


def test_seconds_are_booked_on_who_spent_them(model):
    for result in play(model, settings_for("defaults"), FILM[:6]):
        base, sub = result.cost.tasks["parts"].seconds, result.cost.tasks["height"].seconds
        assert {"preprocess", "mask"} <= set(base)
        assert set(sub) == {"dense": {"blocks", "head"}, "rows": {"blocks", "head"}, "warped": {"warp"}}.get(
            result.policy, set()
        )
        assert ("flow" in base) == (result.policy == "warped")
        assert result.cost.seconds > 0


def test_random_audits_write_no_state_and_cost_their_share(model):
    """Audits on and off give the same bytes; what they may cost is paid for before it is spent."""
    images = [with_object(left) for left in range(2, 34)]
    keys = {"segment.frames": 32, "policy.refresh": 12}
    plain = play(model, settings_for("defaults", **keys), images)
    for share, seed in ((2.0, 1), (1000.0, 2)):
        audits = {"run.audit": share, "run.audit_seed": seed}
        audited = play(model, settings_for("defaults", **keys, **audits), images)
        earned = spent = drawn = 0.0
        for one, other in zip(plain, audited, strict=True):
            assert_same(other, one)
            extra = other.cost.macs_executed - one.cost.macs_executed
            drawn += extra > 0
            assert extra in (0, one.cost.macs_dense, 2 * one.cost.macs_dense)
            assert extra == sum(cost.audit.total for cost in other.cost.tasks.values())
            earned += one.cost.macs_executed / one.cost.macs_dense
            assert (other.cost.audit_p is None) == (one.policy == "dense")
            spent += (1 + FLOOR_SHARE) * (other.cost.audit_p or 0)
            assert spent <= share * earned * (1 + 1e-9)
            for cost in other.cost.tasks.values():
                assert (cost.drift is not None) == (extra > 0)
                assert (cost.floor is not None) <= (extra == 2 * one.cost.macs_dense)
        if share == 1000:
            assert [result.cost.audit_p for result in audited if result.policy != "dense"][:1] == [1.0]
            assert drawn == sum(result.policy != "dense" for result in plain)


def test_an_audit_measures_what_moved_and_what_dense_prediction_itself_changes(model):
    config = settings_for("defaults", **{"run.audit": 1000.0})
    audited = play(model, config, FILM)
    exact = play(model, settings_for("exact", **{"policy.hold_identical": False}), FILM)
    seen = Counter()
    for number, (result, dense) in enumerate(zip(audited, exact, strict=True)):
        lately = audited[max(0, number - 13) : number + 1]  # 8/15 s at 25 frames a second
        moved = np.any([each.record.change >= 12 for each in lately], axis=0)
        assert result.cost.patches_moved == moved.sum()
        where = moved.reshape(3, 4).repeat(16, 0).repeat(16, 1)
        for task, cost in result.cost.tasks.items():
            if cost.drift is None:
                continue
            kind, value, true = model.bundle.kinds[task], result[task].array, dense[task].array
            assert cost.drift == pytest.approx(kind.drift(value, true), rel=1e-4, abs=1e-6)
            inside = kind.drift(value[where], true[where]) if moved.any() else None
            assert cost.drift_moved == pytest.approx(inside, rel=1e-4, abs=1e-6)
            if cost.floor is not None:
                floor = kind.drift(true[~where], exact[number - 1][task].array[~where])
                assert cost.floor == pytest.approx(floor, rel=1e-4, abs=1e-6)
                seen["floor"] += 1
            seen["audit"] += 1
    assert seen["audit"] > 2 * seen["floor"] > 0


def test_of_the_frames_whose_probabilities_add_up_to_one_exactly_one_is_drawn():
    rng = np.random.default_rng(0)
    spent = rng.uniform(0, 0.4, 60)
    counts, hits, said = [], np.zeros(60), np.zeros(60)
    for seed in range(400):
        state, drawn = AuditState(), []
        for at, part in enumerate(spent):
            said[at], due = one_of(state, part, "a", seed)
            state = replace(state, drawn=state.drawn + part)
            drawn.append(due)
        hits += drawn
        counts.append(sum(drawn))
    assert max(counts) <= spent.sum() + 1
    assert min(counts) >= int(spent.sum()) * 0.7  # a frame may hold two points
    assert (said <= spent + 1e-12).all()
    np.testing.assert_allclose(hits / 400, said, atol=4.5 * 0.5 / 20)
    assert abs((hits / 400 - said).mean()) < 0.01
