"""What the speed and memory benchmarks measure, on the tiny model: the asked share of rows, and all that is held."""

import importlib
import sys
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from deltascene.pipeline.bundles.bundle import read_bundle
from deltascene.pipeline.engine.engine import Engine
from deltascene.stages.packed import multiplies_bfloat16

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

DTYPES = ["float32", "bfloat16"] if multiplies_bfloat16() else ["float32"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", autouse=True)
def program() -> Iterator[None]:
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def speed() -> ModuleType:
    return importlib.import_module("speed")


def test_the_asked_share_of_the_patches_changes_and_no_other(speed, tiny):
    engine = Engine.load(tiny)
    pictures = list(islice(speed.moving_patches(engine, 0.5, 0), 6))
    for before, after in pairwise(pictures):
        squares = (before != after).reshape(3, 16, 4, 16, 3).any(axis=(1, 3, 4))
        assert squares.sum() == round(0.5 * 13) - 1


def test_everybody_takes_turns(speed):
    calls = []
    found = speed.interleaved({name: lambda name=name: calls.append(name) for name in "abc"}, 4)
    assert list(found) == ["a", "b", "c"]
    assert "".join(calls) == "abc" + "bca" + "cab" + "abc" + "bca"
    assert all(ms >= 0 for ms in found.values())


@pytest.mark.parametrize("single_task", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_the_baselines_predict_what_the_exact_engine_predicts(tiny_delta, single_task):
    baselines = importlib.import_module("baselines")
    engine, bundle = Engine.load(tiny_delta, "exact", overrides=["numerics.dtype=float32"]), read_bundle(tiny_delta)
    grid = engine.model.backbone.grid((48, 64))
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    expected = engine.open_stream("still")(picture)
    entry = bundle.entry.input
    mean, std = torch.tensor(entry.mean).view(3, 1, 1), torch.tensor(entry.std).view(3, 1, 1)
    image = ((torch.from_numpy(picture).permute(2, 0, 1) / 255 - mean) / std)[None]
    nets = baselines.networks(bundle, engine.model.tasks, grid, single_task=single_task)
    assert len(nets) == (4 if single_task else 1)
    for run in (baselines.by_torch, lambda net: baselines.by_openvino(net, image, 1)):
        outputs = [output for net in nets for output in run(net)(image)]
        for task, output in zip(engine.model.tasks, outputs, strict=True):
            tail = output.shape[3:]
            laid = output.reshape(3, 4, 16, 16, *tail).swapaxes(1, 2).reshape(48, 64, *tail)
            if expected.predictions[task].kind.name == "classes":
                assert (laid == expected[task].array).mean() > 0.999
            else:
                np.testing.assert_allclose(laid, expected[task].array, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_stream_holds_what_the_formula_says(tiny_delta, monkeypatch, dtype):
    memory = importlib.import_module("memory")
    monkeypatch.setattr(memory, "FRAME", (48, 64))
    engine = Engine.load(tiny_delta, "balanced", overrides=[f"numerics.dtype={dtype}"])
    picture = np.random.default_rng(0).integers(60, 180, (48, 64, 3), np.uint8)
    for number in range(6):
        frame = picture.copy()
        frame[16:32, 8 * number : 8 * number + 16] = 250
        engine.step({"a": frame})
    held, told = memory.held_bytes(engine, "a"), memory.expected_bytes(engine)
    assert held.keys() == told.keys() == {"base", "parts", "height", "flow", "hands"}
    for part in held:
        assert held[part] == pytest.approx(told[part], rel=0.1)
