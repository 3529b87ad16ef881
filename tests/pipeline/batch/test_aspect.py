"""Runs with `input.resize: aspect`: every video has the grid of its own shape, and earlier runs go on as they began."""

import json
import shutil

import numpy as np
import pytest
import yaml
from equal_runs import compare_runs, compare_task

from deltascene import open_run
from deltascene.cache.zarr_store import ZarrStore
from deltascene.pipeline.batch.keys import result_key
from deltascene.pipeline.bundles.bundle import read_bundle
from deltascene.pipeline.bundles.scene_model import sketch_model
from deltascene.pipeline.config import load_config
from deltascene.pipeline.evaluation.what_if import replay
from deltascene.pipeline.numerics.settle import settle
from deltascene.pipeline.sources.find import find_sources

QUIET = ["--save", "arrays", "--set", "numerics.threads=1", "--dtype", "float32", "--set", "segment.frames=6"]
ASPECT = ["--set", "input.resize=aspect"]
SIZES = {"wide": (54, 96), "tall": (96, 54), "own": (72, 96)}
INPUTS = {"wide": (48, 80), "tall": (80, 48), "own": (48, 64)}


@pytest.fixture(scope="module")
def clips(make_clip):
    return {name: make_clip(8, name=name, size=size) for name, size in SIZES.items()}


@pytest.fixture(scope="module")
def run_of(run_cli, tiny_delta, clips, tmp_path_factory):
    """`run_of(names, options)`: folder of a run over clips."""

    def run(names, *options):
        out, inputs = tmp_path_factory.mktemp("run") / "out", [clips[name] for name in names]
        code, _, error = run_cli("run", *inputs, "-o", out, "--model", tiny_delta, "--preset", "balanced", *options)
        assert code == 0, error
        return out

    return run


@pytest.fixture(scope="module")
def whole(run_of):
    return run_of(SIZES, *QUIET, *ASPECT)


@pytest.fixture(scope="module")
def stretched(run_of):
    return run_of(["own"], *QUIET)


def test_videos_of_several_shapes_have_a_grid_each_everywhere(whole, clips, tiny_delta):
    run = open_run(whole)
    for name, size in SIZES.items():
        video = run[name]
        assert (video.frame_size, video.size) == (size, INPUTS[name])
        assert video.frame(3)["height"].shape == INPUTS[name]
        info = ZarrStore(video.files.activations).info(6)
        assert (info.model_size, info.grid) == (INPUTS[name], (INPUTS[name][0] // 16, INPUTS[name][1] // 16))
    report = json.loads((whole / "report.json").read_text())
    assert [video["size"] for video in report["videos"]] == [list(INPUTS[video["id"]]) for video in report["videos"]]
    config = load_config(
        "balanced", overrides=["input.resize=aspect", "segment.frames=6"], values={"model": tiny_delta}
    )
    (spec,) = find_sources([str(clips["wide"])])
    table = run["wide"].ledger().to_pylist()
    assert [frame.macs_executed for frame in replay(config, spec)] == [
        sum(row["macs_executed"] for row in table if row["index"] == index) for index in range(8)
    ]


def test_predictions_of_a_frames_size_lie_on_the_frame(run_of, whole):
    video, small = open_run(run_of(["wide"], *QUIET, *ASPECT, "--save-size", "frame"))["wide"], open_run(whole)["wide"]
    assert (video.size, video.frame(0)["flow"].shape) == (SIZES["wide"], (*SIZES["wide"], 3))
    rows, columns = (
        ((np.arange(length) + 0.5) * side / length).astype(int)
        for length, side in zip(SIZES["wide"], INPUTS["wide"], strict=True)
    )
    np.testing.assert_array_equal(video.frame(0)["parts"], small.frame(0)["parts"][np.ix_(rows, columns)])


def test_frames_of_the_inputs_own_shape_are_computed_as_stretched(stretched, whole):
    assert not (found := compare_runs(stretched, whole, ["own"])), found


def test_a_backfill_is_the_run_with_the_task_on(run_cli, run_of, whole):
    part = run_of(["wide", "tall"], *QUIET, *ASPECT, "--tasks", "parts")
    assert run_cli("backfill", part, "--task", "height")[0] == 0
    for video in ("wide", "tall"):
        assert not (found := compare_task(whole, part, "height", video)), found


def key_of(model, *overrides):
    config = settle(load_config(overrides=["numerics.dtype=float32", *overrides], values={"model": model}))
    bundle = read_bundle(model)
    return result_key(config, sketch_model(bundle, tuple(bundle.entry.tasks)))


def test_a_key_has_the_resize_only_where_it_differs_from_the_bundles(tiny):
    """So that records of earlier versions, which lack it, stand for what those did."""
    name, plain = "config.input.resize", key_of(tiny)
    assert name not in plain
    assert key_of(tiny, "input.resize=stretch") == plain
    assert key_of(tiny, "input.resize=aspect") == plain | {name: "aspect"}


def test_a_run_whose_record_lacks_the_key_goes_on_stretched(run_cli, run_of, clips, tiny_delta):
    out = run_of(["wide"], *QUIET, "--tasks", "parts")
    data = yaml.safe_load((out / "run.yaml").read_text())
    assert data["config"]["input"].pop("resize") is None
    (out / "run.yaml").write_text(yaml.safe_dump(data))
    (out / "videos/wide/done.json").unlink()
    again = ["run", clips["wide"], "-o", out, "--model", tiny_delta, "--preset", "balanced", "--tasks", "parts", *QUIET]
    code, _, error = run_cli(*again, *ASPECT)
    assert (code, error.count("\n")) == (2, 1)
    assert f"--set input.resize=aspect: {out} has null; " in error
    assert run_cli(*again, "--set", "input.resize=stretch")[0] == 0
    assert open_run(out)["wide"].size == (48, 64)
    code, text, _ = run_cli("backfill", out, "--task", "height")
    assert code == 0, text
    assert open_run(out)["wide"].frame(0)["height"].shape == (48, 64)


def test_a_bundle_says_aspect_by_itself(run_cli, tiny, clips, tmp_path):
    model = shutil.copytree(tiny, tmp_path / "model")
    text = (model / "bundle.yaml").read_text()
    (model / "bundle.yaml").write_text(text.replace("size: [48, 64]", "size: [48, 64], resize: aspect"))
    out = tmp_path / "out"
    assert run_cli("run", clips["wide"], "-o", out, "--model", model, *QUIET)[0] == 0
    assert open_run(out)["wide"].size == INPUTS["wide"]
