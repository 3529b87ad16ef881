"""A host program's settings of torch and OpenCV: results are the same bytes under any, and they stay as they were."""

import io
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import cv2
import numpy as np
import pytest
import torch
from equal_runs import compare_task

from deltascene import Engine
from deltascene.pipeline.batch.backfill import plan_backfill, run_backfill
from deltascene.pipeline.batch.events import Stop
from deltascene.pipeline.commands.progress import LineEvents
from deltascene.pipeline.config import load_config
from deltascene.pipeline.evaluation.tune import TuneRequest, tune
from deltascene.pipeline.evaluation.what_if import replay
from deltascene.pipeline.numerics import dtype
from deltascene.pipeline.numerics.plain_torch import plain_torch
from deltascene.pipeline.sources.find import find_sources

pytestmark = pytest.mark.usefixtures("one_thread")

Host = Callable[[], AbstractContextManager[object]]


@contextmanager
def changed(write, other, back) -> Iterator[None]:
    write(other)
    try:
        yield
    finally:
        write(back)


@contextmanager
def all_at_once() -> Iterator[None]:
    with ExitStack() as left:
        for name in ("float64", "meta", "autocast", "inference", "precision", "denormals", "deterministic", "opencv"):
            left.enter_context(HOSTS[name]())
        yield


HOSTS: dict[str, Host] = {
    "float64": lambda: changed(torch.set_default_dtype, torch.float64, torch.float32),
    "float16": lambda: changed(torch.set_default_dtype, torch.float16, torch.float32),
    "bfloat16": lambda: changed(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "meta": lambda: changed(torch.set_default_device, "meta", None),
    "cpu": lambda: changed(torch.set_default_device, "cpu", None),
    "in a device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "deterministic": lambda: changed(torch.use_deterministic_algorithms, True, False),
    "threads": lambda: changed(torch.set_num_threads, 3, 1),
    "denormals": lambda: changed(torch.set_flush_denormal, True, False),
    "precision": lambda: changed(torch.set_float32_matmul_precision, "medium", "highest"),
    "no oneDNN": lambda: changed(torch._C._set_mkldnn_enabled, False, True),
    "no flash": lambda: changed(torch.backends.cuda.enable_flash_sdp, False, True),
    "opencv": lambda: changed(cv2.setNumThreads, 2, 1),
    "all at once": all_at_once,
}


def settings() -> tuple[object, ...]:
    """All settings that a host may have changed."""
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_autocast_enabled("cpu"),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_deterministic_debug_mode(),
        torch.get_num_threads(),
        sys.float_info.min / 2 == 0,
        torch.get_float32_matmul_precision(),
        torch._C._get_mkldnn_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        cv2.getNumThreads(),
        torch.get_rng_state().numpy().tobytes(),
    )


@pytest.fixture(scope="module", autouse=True)
def _measured_alike() -> Iterator[None]:
    """The type of products is measured as ever, and comes out the same on a machine that is busy."""
    real = dtype._times_as_fast
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dtype, "_times_as_fast", lambda numerics: min(1.0, real(numerics)))
        yield


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """A square that moves before a still background: dense, by rows and warped."""
    background = np.random.default_rng(0).integers(0, 255, (9, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    images = []
    for number in range(6):
        images.append(background.copy())
        images[-1][20:44, 6 * number : 6 * number + 24] = 230
    return images


def predicted(model: str, images) -> list[bytes]:
    engine = Engine.load(model, "balanced", overrides=["numerics.threads=1"])
    engine.plan((72, 96))
    return [
        result[task].array.tobytes() + result[task].age.tobytes()
        for result in engine.run(images)
        for task in engine.model.tasks
    ]


@pytest.fixture(scope="module")
def undisturbed(tiny_delta, images) -> list[bytes]:
    return predicted(tiny_delta, images)


@pytest.mark.parametrize("name", HOSTS)
def test_an_engine_computes_the_same_under_any_settings_and_leaves_them(tiny_delta, images, undisturbed, name):
    with HOSTS[name]():
        before = settings()
        assert predicted(tiny_delta, images) == undisturbed
        assert settings() == before


def test_settings_that_change_while_a_stream_is_open_change_nothing_of_it(tiny_delta, images):
    def results(change: bool) -> list[bytes]:
        stream, found = Engine.load(tiny_delta, "balanced").open_stream("s"), []
        for number, image in enumerate(images):
            with all_at_once() if change and number % 2 else ExitStack():
                found += [prediction.array.tobytes() for prediction in stream(image).predictions.values()]
        return found

    assert results(change=True) == results(change=False)


def test_threads_are_those_of_the_time_when_the_engine_was_made(tiny):
    engine = Engine.load(tiny)
    with HOSTS["threads"]():
        assert engine.config.numerics.threads == 1
        assert Engine.load(tiny).config.numerics.threads == 3
    assert Engine.load(tiny, overrides=["numerics.threads=2"]).config.numerics.threads == 2
    assert torch.get_num_threads() == 1


def test_the_last_of_several_threads_that_compute_puts_the_hosts_settings_back():
    inside, leave = threading.Barrier(2), threading.Event()

    def compute() -> None:
        with plain_torch():
            inside.wait(10)
            leave.wait(10)

    with HOSTS["float64"]():
        other = threading.Thread(target=compute)
        other.start()
        with plain_torch():
            inside.wait(10)
        assert torch.get_default_dtype() == torch.float32  # the other one is still at it
        leave.set()
        other.join(10)
        assert torch.get_default_dtype() == torch.float64


def test_backfill_tune_and_what_if_are_the_same_and_leave_the_settings(run_cli, tiny_delta, make_clip, tmp_path):
    clip, run = make_clip(3), tmp_path / "run"
    options = ["--model", tiny_delta, "--preset", "balanced", "--save", "arrays", "--set", "numerics.threads=1"]
    assert run_cli("run", clip, "-o", run, "--tasks", "parts", *options)[0] == 0

    def outputs(name: str) -> tuple[object, ...]:
        copy = shutil.copytree(run, tmp_path / name)
        (record,) = run_backfill(plan_backfill(copy, "height"), LineEvents(io.StringIO(), 1), Stop())
        assert record.status == "done", record.cause
        request = TuneRequest([str(clip)], copy / "x.yaml", tiny_delta, {"whole": 9.9}, "macs", frames=2)
        tried = [(one.step, one.loss, one.macs) for one in tune(request).tried]
        config = load_config("balanced", values={"model": tiny_delta})
        return tried, list(replay(config, find_sources([str(clip)])[0]))

    plain = outputs("plain")
    with HOSTS["all at once"](), HOSTS["threads"]():
        before = settings()
        assert outputs("hosted") == plain
        assert settings() == before
    assert not (found := compare_task(tmp_path / "plain", tmp_path / "hosted", "height")), found
