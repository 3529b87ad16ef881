"""A task's part of a frame: the same from the base's records alone, and by rows as in full."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from deltascene.cache.segment import FrameRecord, decoded
from deltascene.pipeline.bundles.bundle import read_bundle
from deltascene.pipeline.bundles.scene_model import load_model, load_sub_task_model
from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.codec import decode_rows
from deltascene.pipeline.engine.cost import task_cost
from deltascene.pipeline.engine.step import StreamState, step
from deltascene.pipeline.engine.stopwatch import Stopwatch
from deltascene.pipeline.engine.task_step import TaskInput, TaskState, receive, step_task
from deltascene.stages.heads import build_head
from deltascene.stages.types import Frame, TokenGrid

pytestmark = pytest.mark.usefixtures("one_thread")

FLOAT32 = ["numerics.dtype=float32"]  # as the models, which aren't prepared for anything
GRID = TokenGrid(height=3, width=4, patch=16, prefix=1)
WIDTH = 64
WITH_DELTA = ("height", "flow")


@pytest.fixture(scope="module")
def bundle(tiny_delta):
    return read_bundle(tiny_delta)


def film():
    """An object crosses a picture, rests, goes on; then the light steps, and the camera cuts."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 4, 5, generator=generator) * 110 + 60
    soft = functional.interpolate(coarse, size=(48, 64), mode="bilinear", align_corners=False)[0]
    still = soft.permute(1, 2, 0).numpy()
    images = []
    for left in (2, 4, 6, 8, 10, 10, 10, 10, 10, 14, 18, 22, 26, 30):
        image = still.astype(np.uint8)
        image[17:29, left : left + 12] = (240, 40, 90)
        images.append(image)
    lit = (still * 1.45).astype(np.uint8)
    return [*images, lit, images[3], 255 - images[3], images[4]]


def play(model, config):
    """A stream's results, a bad frame among them."""
    state, results = StreamState(), []
    for number, image in enumerate(film()):
        frame = Frame("a", number, number / 25, image, valid=number != 6, cause="corrupt" if number == 6 else "")
        state, result = step(model, config, state, frame)
        results.append(result)
    return results


def sealed(record):
    """A record as it comes out of a store or another process: the same bytes elsewhere, read-only, and no pixels."""

    def copy(values):
        again = values.copy()
        again.flags.writeable = False
        return again

    handed = {point: copy(values) for point, values in record.activations.items()}
    flow = None if record.flow is None else copy(record.flow)
    return replace(record, rows=copy(record.rows), activations=handed, change=copy(record.change), flow=flow)


@torch.inference_mode()
def replay(model, records):
    """A task's predictions and costs by the records alone."""
    (task,) = model.tasks
    state, ages, found = TaskState(), None, []
    for record in records:
        if not record.valid:
            found.append(None)
            continue
        base_output, clock = receive(sealed(record), GRID, ages), Stopwatch()
        ages = base_output.ages
        [(state, prediction)] = step_task(model, task, [TaskInput(state, base_output, {}, clock)], keep=True)
        cost = task_cost(model, task, base_output.rows, base_output.grid, clock.of(task))
        found.append((prediction, cost, ages.oldest_s(record.pts_s)))
    return found


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("preset", ["balanced", "fast"])
def test_a_replay_of_the_records_is_the_run_byte_for_byte(bundle, merged, dtype, preset):
    """What an actor of its own and a backfill rest on: no pixels, and no weight below the split."""
    config = load_config(preset, overrides=[*FLOAT32, "policy.refresh=12", f"numerics.split_dtype={dtype}"])
    results = play(load_model(bundle, tuple(bundle.entry.tasks), merged=merged), config)
    told = {result.policy for result in results}
    assert told == {"dense", "rows", "warped", "held", "skipped"}
    assert {"light", "cut", "reset", "changed", "between"} <= {result.reason for result in results}
    for task in WITH_DELTA:
        lone = load_sub_task_model(bundle, task, merged=merged)
        assert lone.backbone.state_dict()["patch_embed.proj.weight"].is_meta
        for result, again in zip(results, replay(lone, [result.record for result in results]), strict=True):
            if again is None:
                assert result.policy == "skipped"
                continue
            prediction, cost, oldest_s = again
            assert prediction.array.tobytes() == result[task].array.tobytes(), (task, result.index, result.policy)
            assert prediction.age.tobytes() == result[task].age.tobytes()
            assert oldest_s == result.cost.oldest_s
            counted = result.cost.tasks[task]
            assert replace(cost, seconds={}) == replace(counted, seconds={})


def test_sub_tasks_take_the_decoded_value_in_the_run_as_well(bundle):
    """Else a replay could be the run only as long as nothing is rounded."""
    config = load_config("balanced", overrides=[*FLOAT32, "numerics.split_dtype=bfloat16"])
    for result in play(load_model(bundle, ("height",)), config):
        stored = result.record.activations[3]
        assert stored.dtype == np.uint16
        np.testing.assert_array_equal(decode_rows(stored).numpy(), decoded(stored, "bfloat16"))


def test_a_delta_of_nothing_answers_as_the_base_does(bundle):
    """Byte for byte, by rows and in full: so a sub-task differs from the base by its delta and nothing else."""
    config = load_config("balanced", overrides=FLOAT32)
    model = load_model(bundle, ("height", "flow"))
    subs = {
        task: replace(sub, blocks=tuple(model.backbone.blocks[sub.split :])) for task, sub in model.sub_tasks.items()
    }
    shared = replace(model, sub_tasks={})
    for one, other in zip(play(replace(model, sub_tasks=subs), config), play(shared, config), strict=True):
        for task in one.predictions:
            assert one[task].array.tobytes() == other[task].array.tobytes()


class Around(nn.Module):
    """A head as a user may write it: it looks at a patch and its eight neighbours."""

    receptive_field = 1

    def __init__(self, taps, channels, side=2):
        super().__init__()
        self.side = side
        self.layer = nn.Linear(9 * taps * WIDTH, channels * side * side)

    def cells(self, taps_RTD):
        return self.layer(taps_RTD.flatten(1))

    def macs_per_token(self):
        return self.layer.in_features * self.layer.out_features


def computed_at(number, policy, patches):
    """The base's record of a frame that computed some patches."""
    rows = np.array([0, *(patch + 1 for patch in sorted(patches))], np.int32)
    change = np.zeros(GRID.patches, np.uint8)
    return FrameRecord(number, number / 25, True, "", policy, "", rows, {}, change)


@pytest.fixture(scope="module", params=["token-wise", "looks around"])
def hands(request, bundle):
    """A model of one task that reads the base's tokens at taps 3 and 6."""
    torch.manual_seed(3)
    head = Around(2, 2) if request.param == "looks around" else build_head("linear", WIDTH, 2, 2, {"side": 2})
    model = load_model(bundle, ("hands",))
    return replace(model, heads={"hands": head.eval()})


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.frozensets(st.integers(0, 11), min_size=1) | st.just(frozenset(range(12))), min_size=1, max_size=3),
    st.integers(0, 2**16),
)
def test_by_rows_is_in_full_on_the_same_tokens(hands, steps, seed):
    """A head is run again only where its tokens, or those that it looks at, changed; and nothing else changes."""
    generator, head = torch.Generator().manual_seed(seed), hands.heads["hands"]
    tokens = {tap: torch.randn(GRID.tokens, WIDTH, generator=generator) for tap in (3, 6)}

    def run(state, number, policy, patches, ages):
        base_output = receive(computed_at(number, policy, patches), GRID, ages)
        shared = {
            tap: values if base_output.rows is None else values[base_output.rows] for tap, values in tokens.items()
        }
        [(state, prediction)] = step_task(
            hands, "hands", [TaskInput(state, base_output, shared, Stopwatch())], keep=True
        )
        return state, prediction, base_output

    with torch.inference_mode():
        state, before, base_output = run(TaskState(), 0, "dense", range(12), None)
        for number, patches in enumerate(steps, start=1):
            for values in tokens.values():
                rows = torch.tensor([0, *(patch + 1 for patch in patches)])
                values[rows] = torch.randn(len(rows), WIDTH, generator=generator)
            kept_PX, kept = state.cells_PX.clone(), before.array.copy()
            state, found, base_output = run(state, number, "rows", patches, base_output.ages)
            whole = run(TaskState(), number, "dense", range(12), None)
            np.testing.assert_allclose(found.array, whole[1].array, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(state.cells_PX, whole[0].cells_PX, rtol=1e-4, atol=1e-5)

            np.testing.assert_array_equal(before.array, kept)  # what was handed out stays as it was
            ran = within(patches, head.receptive_field)
            others = sorted(set(range(12)) - ran)
            assert torch.equal(state.cells_PX[others], kept_PX[others])
            for patch in set(range(12)) - within(patches, head.receptive_field + 1):
                there = np.s_[patch // 4 * 16 : patch // 4 * 16 + 16, patch % 4 * 16 : patch % 4 * 16 + 16]
                np.testing.assert_array_equal(found.array[there], kept[there])
            cost = task_cost(hands, "hands", base_output.rows, base_output.grid, {})
            assert cost.executed.head == len(ran) * head.macs_per_token()
            assert cost.dense.head == 12 * head.macs_per_token()
            before = found


def within(patches, reach):
    """Patches at most so many rows and columns away."""
    return {
        patch
        for patch in range(12)
        if any(max(abs(patch // 4 - one // 4), abs(patch % 4 - one % 4)) <= reach for one in patches)
    }


def test_a_frame_in_full_needs_nothing_kept(hands):
    """`exact` keeps no cache, and answers the same."""
    shared = {tap: torch.randn(GRID.tokens, WIDTH) for tap in (3, 6)}
    base_output = receive(computed_at(0, "dense", range(12)), GRID, None)
    with torch.inference_mode():
        task_input = TaskInput(TaskState(), base_output, shared, Stopwatch())
        [lone], [kept] = (step_task(hands, "hands", [task_input], keep=keep) for keep in (False, True))
    assert lone[0].cache is None
    assert kept[0].cache is not None
    np.testing.assert_array_equal(lone[1].array, kept[1].array)


def test_held_and_warped_frames_need_something_computed(hands):
    base_output = receive(replace(computed_at(0, "held", ()), rows=np.empty(0, np.int32)), GRID, None)
    with pytest.raises(AssertionError, match="starts with a dense frame"):
        step_task(hands, "hands", [TaskInput(TaskState(), base_output, {}, Stopwatch())], keep=True)
