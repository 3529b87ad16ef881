"""The compiled kernel from a user's side: built once, found again, refused by name, and as right as PyTorch."""

import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from deltascene.pipeline.cli import app
from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine import Engine
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.kernel import build_kernel, choose_kernel, kernel_file, kernel_name
from deltascene.pipeline.numerics import honour, numerics_record, settle
from deltascene.stages.folded import FoldedBlock

pytestmark = pytest.mark.usefixtures("one_thread")


def film(frames=8, seed=0, size=(48, 64)):
    """A square that moves over a still picture."""
    picture = np.random.default_rng(seed).integers(60, 180, (*size, 3), np.uint8)
    for number in range(frames):
        frame = picture.copy()
        frame[8:24, 4 * number : 4 * number + 16] = (250, 20, 90)
        yield frame


def test_without_one_everything_runs_through_pytorch(tiny):
    assert choose_kernel("auto") == "torch"
    assert not kernel_file().exists()
    assert numerics_record(Engine.load(tiny).config)["kernel"] == "torch"
    with pytest.raises(UsageError, match=r"expected a compiled kernel; found none; deltascene doctor --build-kernels"):
        Engine.load(tiny, overrides=["numerics.kernel=compiled"])


@pytest.mark.usefixtures("with_kernel")
def test_a_built_one_is_taken_and_can_be_left_out(tiny):
    taken, left = Engine.load(tiny), Engine.load(tiny, overrides=["numerics.kernel=torch"])
    assert numerics_record(taken.config)["kernel"] == kernel_name()
    assert numerics_record(left.config)["kernel"] == "torch"
    assert all(isinstance(block, FoldedBlock) for block in taken.model.backbone.blocks)
    assert not any(isinstance(block, FoldedBlock) for block in left.model.backbone.blocks)


@pytest.mark.usefixtures("with_kernel")
@pytest.mark.parametrize("preset", ["exact", "balanced", "fast"])
def test_it_predicts_what_pytorch_predicts(tiny_delta, preset):
    ways = (Engine.load(tiny_delta, preset, overrides=[f"numerics.kernel={way}"]) for way in ("compiled", "torch"))
    for ours, theirs in zip(*(engine.run(film()) for engine in ways), strict=True):
        assert ours.policy == theirs.policy
        np.testing.assert_array_equal(ours.record.rows, theirs.record.rows)
        assert ours.cost.macs_executed == theirs.cost.macs_executed
        for task, made in theirs.predictions.items():
            if made.kind.name == "classes":
                assert (ours[task].array == made.array).mean() > 0.999
            else:
                np.testing.assert_allclose(ours[task].array, made.array, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("with_kernel")
def test_streams_together_are_streams_alone_byte_for_byte(tiny_delta):
    engine = Engine.load(tiny_delta, "balanced")
    films = {name: list(film(6, seed, size)) for name, seed, size in (("a", 1, (48, 64)), ("b", 2, (64, 48)))}
    alone = {name: list(map(engine.open_stream(name), frames)) for name, frames in films.items()}
    for number in range(6):
        together = engine.step({name: frames[number] for name, frames in films.items()})
        for name, result in together.items():
            for task, made in result.predictions.items():
                assert made.array.tobytes() == alone[name][number][task].array.tobytes()
            assert result.cost.macs_executed == alone[name][number].cost.macs_executed
            assert result.cost.seconds > 0


@pytest.mark.usefixtures("with_kernel")
def test_another_machines_kernel_is_named():
    config = settle(load_config())
    wanted = {**numerics_record(config), "kernel": "rows-0123456789ab"}
    with pytest.raises(UsageError, match=r"expected kernel = rows-0123456789ab, as the run's; this process has"):
        honour(config, wanted)


def test_a_broken_one_is_said_with_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernel_file().parent.mkdir(parents=True)
    kernel_file().write_bytes(b"no library")
    code = "from deltascene.pipeline.kernel import choose_kernel; choose_kernel('auto')"  # a process has one kernel
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    said = done.stderr.strip().splitlines()[-1]
    assert "can't be loaded: " in said
    assert said.endswith("deltascene doctor --build-kernels builds it anew")


def test_without_a_compiler_one_line_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match=r"^kernel: can't be compiled: .*no-such-compiler") as told:
        build_kernel()
    assert "\n" not in str(told.value)
    assert not list(kernel_file().parent.iterdir())
    done = CliRunner().invoke(app, ["doctor", "--build-kernels"])
    assert done.exit_code != 0


def test_a_cache_that_cant_be_written_is_said(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"^kernel: can't be kept in .*; XDG_CACHE_HOME names another folder"):
        build_kernel()


@pytest.mark.usefixtures("with_kernel")
def test_the_doctor_says_where_it_lies():
    from deltascene.pipeline.doctor_machine import check_kernel

    (check,) = check_kernel()
    assert str(kernel_file()) in check.found
