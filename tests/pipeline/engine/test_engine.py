"""The Python face: one frame, many frames, several streams."""

import gc
import weakref

import numpy as np
import pytest
import torch

from deltascene import Engine, Frame
from deltascene.pipeline.errors import UsageError
from deltascene.stages.cost import blocks_macs
from deltascene.stages.preprocess import normalise, resize_frame

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def engine(tiny):
    return Engine.load(tiny, "exact")


@pytest.fixture
def images(rng=None):
    return list(np.random.default_rng(3).integers(0, 255, (3, 72, 96, 3), np.uint8))


def test_every_kind_gives_natural_values_at_the_models_size(engine, images):
    result = engine.open_stream("s")(images[0])
    assert result.policy == "dense"
    assert result["parts"].array.shape == (48, 64)
    assert result["parts"].array.dtype == np.uint8
    assert result["parts"].array.max() <= 2
    assert (result["height"].array > 0).all()
    assert result["flow"].array.shape == (48, 64, 3)
    np.testing.assert_allclose(np.linalg.norm(result["flow"].array, axis=-1), 1, atol=1e-5)
    assert result["hands"].array.shape == (48, 64, 2)
    assert 0 <= result["hands"].array.min() <= result["hands"].array.max() <= 1
    assert all((result[task].age == 0).all() for task in engine.model.tasks)


def test_predictions_come_from_timms_own_tokens(tiny, images):
    """The engine's walk, done again with timm's forward and nothing of ours between the frame and the head."""
    engine = Engine.load(tiny, overrides=["numerics.dtype=float32"])
    model = engine.model
    entry = model.bundle.entry
    pixels = normalise(resize_frame(images[0], engine.plan((72, 96))), entry.input.mean, entry.input.std)
    with torch.inference_mode():
        tokens = model.backbone.dense_taps(pixels[None], (6,))[6][0]
        raw = model.heads["flow"].cells(tokens[:, None])
    cells = raw.reshape(3, 4, 3, 2, 2)  # grid 3x4, channel, 2x2 cells
    first = torch.nn.functional.normalize(cells[0, 0, :, 0, 0], dim=0).numpy()
    got = engine.open_stream("s")(images[0])["flow"].array[0, 0]
    np.testing.assert_allclose(got, first, atol=1e-4)  # the corner pixel is the corner cell: bilinear clamps there


def test_held_only_when_byte_identical_and_ages_grow(engine, images):
    stream = engine.open_stream("s")
    almost = images[0].copy()
    almost[0:12, 0:12] ^= 16
    policies = [stream(image) for image in (images[0], images[0], images[0], almost, almost)]
    assert [result.policy for result in policies] == ["dense", "held", "held", "dense", "held"]
    assert [int(result["parts"].age.max()) for result in policies] == [0, 1, 2, 0, 1]
    assert policies[2].cost.macs_executed == 0
    assert policies[2].cost.macs_dense == policies[0].cost.macs_dense > 0
    np.testing.assert_array_equal(policies[2]["height"].array, policies[0]["height"].array)


def test_holding_can_be_switched_off(tiny, images):
    stream = Engine.load(tiny, "exact", overrides=["policy.hold_identical=false"]).open_stream("s")
    assert [stream(images[0]).policy for _ in range(2)] == ["dense", "dense"]


def test_an_invalid_frame_is_not_predicted_books_nothing_and_leaves_the_state(engine, images):
    stream = engine.open_stream("s")
    stream(Frame("s", 0, 0.0, images[0]))
    bad = stream(Frame("s", 1, 0.1, images[1], valid=False, cause="corrupt"))
    after = stream(Frame("s", 2, 0.2, images[0]))
    assert (bad.policy, bad.valid, bad.cause) == ("skipped", False, "corrupt")
    assert bad.cost.macs_executed == bad.cost.macs_dense == 0
    with pytest.raises(KeyError, match="frame 1 is invalid \\(corrupt\\)"):
        bad["parts"]
    assert after.policy == "held"


def test_a_size_change_resets_the_stream(engine, images):
    stream = engine.open_stream("s")
    stream(images[0])
    result = stream(np.zeros((60, 80, 3), np.uint8))
    assert (result.policy, result.cause, result.valid) == ("dense", "resized", True)


def test_aspect_gives_each_stream_the_grid_of_its_frames_and_keeps_it(tiny, images):
    engine = Engine.load(tiny, overrides=["input.resize=aspect"])
    wide, tall = (np.tile(images[0], (1, 2, 1))[:54, :96], np.tile(images[0], (2, 1, 1))[:96, :54])
    alone = {name: engine.open_stream(name)(image) for name, image in (("wide", wide), ("tall", tall))}
    together = engine.step({"wide": wide, "tall": tall, "own": images[0]})
    shapes = {name: result["height"].array.shape for name, result in together.items()}
    assert shapes == {"wide": (48, 80), "tall": (80, 48), "own": (48, 64)}
    for name, result in alone.items():
        np.testing.assert_allclose(result["height"].array, together[name]["height"].array, rtol=1e-5)
    np.testing.assert_array_equal(
        together["own"]["height"].array, Engine.load(tiny).open_stream("s")(images[0])["height"].array
    )
    changed = engine.step({"wide": tall})["wide"]
    assert (changed.cause, changed["height"].array.shape) == ("resized", (48, 80))


def test_a_source_keeps_its_grid_over_its_segments_and_the_next_has_its_own(tiny, images):
    engine = Engine.load(tiny, overrides=["input.resize=aspect", "segment.frames=2"])
    wide, tall = np.zeros((54, 96, 3), np.uint8), np.zeros((96, 54, 3), np.uint8)
    shapes = [result["height"].array.shape for result in engine.run([wide, tall, tall, wide])]
    assert shapes == [(48, 80)] * 4
    assert [result["height"].array.shape for result in engine.run([tall, wide, wide])] == [(80, 48)] * 3
    stream = engine.open_stream("free")
    stream(wide)
    stream.reset()
    assert stream(tall)["height"].array.shape == (80, 48)


def test_an_asked_size_settles_the_grid_whatever_the_frames_shape(tiny):
    exact = Engine.load(tiny, overrides=["input.resize=aspect", "input.size=[64, 64]"])
    assert exact.plan((54, 96)).model_size == (64, 64)
    short = Engine.load(tiny, overrides=["input.resize=aspect", "input.size=48"])
    assert short.plan((54, 96)).model_size == (48, 80)


def test_streams_do_not_touch_each_other(engine, images):
    alone = [engine.open_stream("a")(images[0]), engine.open_stream("b")(images[1])]
    together = engine.step({"x": images[0], "y": images[1]})
    for one, both in zip(alone, together.values(), strict=True):
        for task in engine.model.tasks:
            np.testing.assert_array_equal(one[task].array, both[task].array)


def test_a_closed_stream_is_forgotten(tiny_delta, images):
    engine = Engine.load(tiny_delta, "balanced")

    def reasons(**frames):
        return {name: result.reason for name, result in engine.step(frames).items()}

    assert reasons(door=images[0], yard=images[0]) == {"door": "reset", "yard": "reset"}
    state = weakref.ref(engine._streams["yard"])
    engine.close_stream("yard")
    gc.collect()
    assert state() is None
    assert reasons(door=images[0], yard=images[0]) == {"door": "unchanged", "yard": "reset"}
    with pytest.raises(UsageError, match=r"stream: open are door, yard; found 'yrad'; did you mean 'yard'\?"):
        engine.close_stream("yrad")
    engine.close_stream("yard")
    engine.close_stream("door")
    with pytest.raises(UsageError, match="stream: open are none; found 'door'"):
        engine.close_stream("door")


def test_a_stream_that_was_opened_by_hand_is_its_owners(engine, images):
    engine.open_stream("mine")(images[0])
    with pytest.raises(UsageError, match="found 'mine'"):
        engine.close_stream("mine")


def test_macs_by_hand(engine, images):
    """12 patches + 1 class token of width 64 (test_vit: 6 blocks, MLP ratio 3, 2 heads of 32), 16x16 patches."""
    costs = engine.open_stream("s")(images[0]).cost.tasks
    tokens, width = 13, 64
    block = tokens * (3 * width * width + width * width + 2 * 3 * width * width) + 2 * tokens * tokens * width
    assert costs["parts"].executed.embed == 12 * 3 * 16 * 16 * width
    assert costs["parts"].executed.blocks == 6 * block
    assert costs["parts"].executed.blocks == blocks_macs(engine.model.backbone.block_shapes(), tokens, tokens)
    assert costs["parts"].executed.head == 12 * (2 * width * 16 + 16 * 3 * 16)
    assert costs["height"].executed.head == 12 * (2 * width * 16)
    assert costs["flow"].executed.head == 12 * (width * 3 * 4)
    assert costs["height"].executed.blocks == 0


def test_only_the_tasks_asked_for_run_and_the_base_still_carries_the_blocks(tiny, images):
    engine = Engine.load(tiny, tasks=["flow"])
    result = engine.open_stream("s")(images[0])
    assert list(result.predictions) == ["flow"]
    assert set(engine.model.heads) == {"flow"}
    assert result.cost.tasks["parts"].executed.head == 0
    assert result.cost.tasks["parts"].executed.blocks > 0


def test_run_takes_paths_lists_and_iterables(engine, make_clip, images):
    clip = make_clip(5)
    results = list(engine.run(str(clip), tasks=["parts"]))
    assert [result.index for result in results] == [0, 1, 2, 3, 4]
    assert [round(result.pts_s, 3) for result in results] == [0, 0.1, 0.2, 0.3, 0.4]
    assert len(list(engine.run([clip, clip]))) == 10
    assert [result.index for result in engine.run(iter(images))] == [0, 1, 2]


@pytest.mark.parametrize("bad", [np.zeros((72, 96), np.uint8), np.zeros((72, 96, 3), np.float32), "x", None])
def test_an_image_of_the_wrong_form_is_refused_by_name(engine, bad):
    with pytest.raises(UsageError, match="expected an RGB uint8 array"):
        engine.open_stream("s")(bad)


def test_unknown_tasks_are_named_with_the_nearest(tiny, engine):
    with pytest.raises(UsageError, match="did you mean 'height'"):
        Engine.load(tiny, tasks=["heigth"])
    with pytest.raises(UsageError, match="did you mean 'hands'"):
        engine.open_stream("s", ["hand"])


def test_plot_is_a_picture(engine, images):
    picture = engine.open_stream("s")(images[0]).plot()
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3


def test_deltas_run_as_the_config_says(tiny_delta):
    merged, beside = (
        Engine.load(tiny_delta, tasks=["height"], overrides=[f"numerics.delta={form}"])
        for form in ("merged", "lowrank")
    )
    assert merged.model.sub_tasks["height"].merged
    assert not beside.model.sub_tasks["height"].merged


def test_a_stream_of_some_tasks_runs_no_more_than_they_need(tiny_delta, images):
    """Height splits off after three blocks, flow after four; the base's own blocks end there."""
    engine = Engine.load(tiny_delta)
    block = engine.model.backbone.block_shapes()[:1]
    for tasks, depth in ((["height"], 3), (["flow"], 4), (["flow", "height"], 4), (["parts"], 6)):
        result = engine.open_stream("s", tasks)(images[0])
        assert result.cost.tasks["parts"].executed.blocks == depth * blocks_macs(block, 13, 13)
        assert sorted(result.record.activations) == sorted(
            {"height": 3, "flow": 4}[task] for task in tasks if task != "parts"
        )


def test_presets_compute_less_and_segments_start_afresh(tiny_delta, make_clip):
    clip, policies, macs = str(make_clip(24, fps=25.0)), {}, {}
    for preset in ("exact", "balanced", "fast"):
        engine = Engine.load(tiny_delta, preset, overrides=["segment.frames=10", "policy.camera_share=1"])
        results = list(engine.run(clip))
        policies[preset] = [result.policy for result in results]
        macs[preset] = sum(result.cost.macs_executed for result in results)
        assert [number for number, result in enumerate(results) if result.reason == "reset"] == [0, 10, 20]
    assert set(policies["exact"]) == {"dense"}
    assert set(policies["balanced"]) == {"dense", "rows", "warped"}
    assert macs["exact"] > 2 * macs["balanced"] > 2 * macs["fast"]
    assert Engine.load(tiny_delta).config == Engine.load(tiny_delta, "balanced").config


def test_a_stream_can_be_reset(tiny_delta, images):
    stream = Engine.load(tiny_delta, "balanced").open_stream("s")
    told = [stream(images[0]).reason for _ in range(2)]
    stream.reset()
    assert [*told, stream(images[0]).reason] == ["reset", "unchanged", "reset"]


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (-0.1, "-0.1"),
        (0.99, "0.99"),
        (np.float32("nan"), "nan"),
        ("1.5", "1.5"),
    ],
)
def test_a_time_that_is_none_or_goes_back_is_refused_and_changes_nothing(engine, images, wrong, found):
    stream, wanted = (
        engine.open_stream("door"),
        rf"stream 'door', frame 1: expected pts_s .* 1 or more .*; found .*{found}",
    )
    stream(images[0], pts_s=1.0)
    with pytest.raises(UsageError, match=wanted + r".*; give every frame its time, and call reset\(\)"):
        stream(images[1], pts_s=wrong)
    with pytest.raises(UsageError, match=wanted):
        stream(Frame("door", 1, wrong, images[1]))
    again = stream(images[0], pts_s=np.float32(1.5))
    assert (again.policy, again.frame.index, again.cost.oldest_s) == ("held", 1, 0.5)
    stream.reset()
    assert stream(images[0], pts_s=0.5).policy == "dense"


def test_no_time_of_several_streams_goes_back_either(engine, images):
    engine.step({"one": Frame("one", 0, 2.0, images[0])})
    with pytest.raises(UsageError, match=r"stream 'one', frame 1: expected pts_s .* 2 or more"):
        engine.step({"two": images[0], "one": images[0]})  # without a time: 25 frames a second
    engine.close_stream("one")
    engine.close_stream("two")
