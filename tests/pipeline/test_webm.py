"""The video's writer and its encoder process; what the video looks like is in test_overlay.py."""

import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from errno import EFBIG

import cv2
import numpy as np
import psutil
import pytest

from deltascene.pipeline.errors import OutputError, WorkerLost
from deltascene.pipeline.webm import webm_writer

SIZE = (48, 64)


def noise(count):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 255, (*SIZE, 3), np.uint8) for _ in range(count)]


def encoder():
    """The process of the one writer that is open."""
    (found,) = [child for child in psutil.Process().children() if "deltascene.pipeline.webm_child" in child.cmdline()]
    return found


def counted(path):
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.grab():
        count += 1
    return count


def write_all(path, count, meanwhile=None):
    """Writes pictures, one of them before something is done to the encoder."""
    with webm_writer(path, SIZE, 10.0) as write:
        for number, picture in enumerate(noise(count)):
            write(picture, 1)
            if number == 0 and meanwhile:
                meanwhile(encoder())


@pytest.mark.parametrize("fps", [29.97, 1 / 3, 12.5, 240.0])
def test_pictures_are_written_so_many_times_at_any_rate(tmp_path, fps):
    with webm_writer(tmp_path / "o.webm", SIZE, fps) as write:
        for number, picture in enumerate(noise(5)):
            write(picture, number)
        assert not (tmp_path / "o.webm").exists()
        child = encoder()
    assert not child.is_running()
    assert [path.name for path in tmp_path.iterdir()] == ["o.webm"]
    assert counted(tmp_path / "o.webm") == 0 + 1 + 2 + 3 + 4
    assert cv2.VideoCapture(str(tmp_path / "o.webm")).get(cv2.CAP_PROP_FPS) == pytest.approx(fps, rel=2e-3)


def test_it_writes_where_decord_was_imported(tmp_path):
    """decord makes its own FFmpeg everybody's, in which PyAV finds no encoder that opens."""
    pytest.importorskip("decord")
    program = f"""
import decord, numpy as np
from pathlib import Path
from deltascene.pipeline.webm import webm_writer
with webm_writer(Path({str(tmp_path / "o.webm")!r}), {SIZE}, 10.0) as write:
    write(np.zeros((*{SIZE}, 3), np.uint8), 3)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert counted(tmp_path / "o.webm") == 3


def test_what_an_earlier_process_left_is_removed(tmp_path):
    (tmp_path / ".o.7.part.webm").write_bytes(b"half")
    write_all(tmp_path / "o.webm", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["o.webm"]


@contextmanager
def largest_file(size):
    """As a disk that is full, for whoever starts here; needs no rights."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [1, 10_000])
def test_a_file_that_cant_grow_is_told_and_nothing_is_left(tmp_path, size):
    with largest_file(size), pytest.raises(OSError, match=r"o\.webm") as caught:
        write_all(tmp_path / "o.webm", 200)
    assert caught.value.errno == EFBIG
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "raised", "says"),
    [(signal.SIGKILL, WorkerLost, "encoder was killed"), (signal.SIGTERM, OutputError, r"encoder died \(exit -15\)")],
)
def test_an_encoder_that_ends_by_a_signal(tmp_path, number, raised, says):
    with pytest.raises(raised, match=says):
        write_all(tmp_path / "o.webm", 200, lambda child: child.send_signal(number))
    assert not list(tmp_path.iterdir())


def test_an_encoder_ends_with_its_pipeline(tmp_path):
    program = f"""
import os, psutil, numpy as np
from pathlib import Path
from deltascene.pipeline.webm import webm_writer
with webm_writer(Path({str(tmp_path / "o.webm")!r}), {SIZE}, 10.0) as write:
    write(np.zeros((*{SIZE}, 3), np.uint8), 3)
    print(psutil.Process().children()[0].pid, flush=True)
    os._exit(9)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    pid, deadline = int(done.stdout), time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (tmp_path / "o.webm").exists()
