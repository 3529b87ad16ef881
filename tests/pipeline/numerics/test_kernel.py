"""The compiled kernel from a user's side: built once, found again, refused by name, and as right as PyTorch."""

import os
import subprocess
import sys
import sysconfig

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from deltascene.pipeline.cli.app import app
from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.numerics import dtype
from deltascene.pipeline.numerics.kernel import _tools_found, build_kernel, choose_kernel, kernel_file, kernel_name
from deltascene.pipeline.numerics.kernel import multiplies_bfloat16 as kernel_multiplies_bfloat16
from deltascene.pipeline.numerics.settle import honour, numerics_record, settle
from deltascene.stages.folded import FoldedBlock
from deltascene.stages.packed import multiplies_bfloat16

pytestmark = pytest.mark.usefixtures("one_thread")

able = multiplies_bfloat16() and kernel_multiplies_bfloat16()
bfloat16 = pytest.param("bfloat16", 0.05, marks=pytest.mark.skipif(not able, reason="no products of bfloat16 here"))


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
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), bfloat16])
def test_it_predicts_what_pytorch_predicts(tiny_delta, preset, dtype, tolerance):
    overrides = ([f"numerics.kernel={way}", f"numerics.dtype={dtype}"] for way in ("compiled", "torch"))
    ways = (Engine.load(tiny_delta, preset, overrides=each) for each in overrides)
    for ours, theirs in zip(*(engine.run(film()) for engine in ways), strict=True):
        assert ours.policy == theirs.policy
        np.testing.assert_array_equal(ours.record.rows, theirs.record.rows)
        assert ours.cost.macs_executed == theirs.cost.macs_executed
        for task, made in theirs.predictions.items():
            if made.kind.name == "classes":
                assert (ours[task].array == made.array).mean() > 1 - tolerance
            else:  # a direction between two opposite ones may be any
                near = np.isclose(ours[task].array, made.array, rtol=tolerance, atol=tolerance)
                assert near.mean() > 1 - tolerance / 10


@pytest.mark.usefixtures("with_kernel")
@pytest.mark.parametrize("kernel", ["torch", "compiled"])
def test_the_faster_type_is_taken_and_each_can_be_asked_for(monkeypatch, kernel):
    monkeypatch.setattr(dtype, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(dtype, "kernel_multiplies_bfloat16", lambda: True)
    for faster, slower in (("float32", "bfloat16"), ("bfloat16", "float32")):
        seconds = {faster: 0.001, slower: 0.002}
        monkeypatch.setattr(dtype, "_seconds", lambda plain, numerics, seconds=seconds: seconds[numerics.dtype])
        settled = settle(load_config(overrides=[f"numerics.kernel={kernel}"]))
        assert settled.numerics.dtype == faster
        assert numerics_record(settled)["dtype"] == numerics_record(settled)["split_dtype"] == faster
        asked = settle(load_config(overrides=[f"numerics.kernel={kernel}", f"numerics.dtype={slower}"]))
        assert asked.numerics.dtype == slower


@pytest.mark.usefixtures("with_kernel")
@pytest.mark.parametrize("kernel", ["torch", "compiled"])
def test_without_products_of_bfloat16_it_isnt_taken_and_cant_be_asked_for(monkeypatch, kernel):
    monkeypatch.setattr(dtype, "multiplies_bfloat16", lambda: False)
    monkeypatch.setattr(dtype, "kernel_multiplies_bfloat16", lambda: False)
    assert settle(load_config(overrides=[f"numerics.kernel={kernel}"])).numerics.dtype == "float32"
    with pytest.raises(UsageError, match=r"^numerics.dtype: expected float32, .*numerics.kernel=.*; found bfloat16$"):
        settle(load_config(overrides=[f"numerics.kernel={kernel}", "numerics.dtype=bfloat16"]))


@pytest.mark.skipif(not multiplies_bfloat16(), reason="oneDNN has no products of bfloat16 here")
def test_the_measurement_leaves_threads_and_random_numbers_alone():
    torch.manual_seed(5)
    before = torch.get_num_threads(), torch.get_rng_state()
    settle(load_config(overrides=["numerics.kernel=torch"]))
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


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
    # A process has one kernel.
    code = "from deltascene.pipeline.numerics.kernel import choose_kernel; choose_kernel('auto')"
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


def test_the_ninja_of_this_installation_needs_no_path(monkeypatch):
    """Torch looks for it on PATH alone, which names it only while the environment is activated."""
    monkeypatch.setenv("PATH", "/nowhere")
    with _tools_found():
        assert os.environ["PATH"] == f"{sysconfig.get_path('scripts')}{os.pathsep}/nowhere"
    assert os.environ["PATH"] == "/nowhere"


def test_a_cache_that_cant_be_written_is_said(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"^kernel: can't be kept in .*; XDG_CACHE_HOME names another folder"):
        build_kernel()


@pytest.mark.usefixtures("with_kernel")
def test_the_doctor_says_where_it_lies():
    from deltascene.pipeline.doctor.machine import check_arithmetic, check_kernel

    (check,) = check_arithmetic()
    assert settle(load_config()).numerics.dtype in check.found
    (check,) = check_kernel()
    assert str(kernel_file()) in check.found
