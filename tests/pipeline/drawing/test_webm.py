"""The video's writer and its encoder process; what the video looks like is in test_overlay.py."""

import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from errno import EFBIG
from itertools import chain

import cv2
import numpy as np
import psutil
import pytest
from read_video import pictures

from deltascene.pipeline.drawing.webm import WebmWriter, join_webm
from deltascene.pipeline.errors import EncoderFailed, WorkerLost

SIZE = (48, 64)


def noise(count):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 255, (*SIZE, 3), np.uint8) for _ in range(count)]


def encoder(writer):
    return psutil.Process(writer._process.pid)


def shown_ms(path):
    capture, found = cv2.VideoCapture(str(path)), []
    while capture.grab():
        found.append(round(capture.get(cv2.CAP_PROP_POS_MSEC)))
    return found


def write_all(path, count, meanwhile=None):
    """Writes ten pictures a second, one of them before something is done to the encoder."""
    with closing(WebmWriter(path, SIZE, 10.0)) as writer:
        for number, picture in enumerate(noise(count)):
            writer.write(picture, 100 * number)
            if number == 0 and meanwhile:
                meanwhile(encoder(writer))
        writer.finish()


@pytest.mark.parametrize("fps", [29.97, 1 / 3, 12.5, 240.0])
def test_pictures_are_shown_when_they_should_be_at_any_rate(tmp_path, fps):
    path, wanted_ms = tmp_path / "o.webm", [0, round(1000 / fps), round(2000 / fps), round(9000 / fps)]
    with closing(WebmWriter(path, SIZE, fps)) as writer:
        for picture, at_ms in zip(noise(4), wanted_ms, strict=True):
            writer.write(picture, at_ms)
        child = encoder(writer)
        writer.finish()
        assert not child.is_running()
    assert [each.name for each in tmp_path.iterdir()] == ["o.webm"]
    assert shown_ms(path) == wanted_ms


def test_pieces_are_joined_without_a_change_to_their_pictures(tmp_path):
    for name, count in (("a", 3), ("b", 30), ("c", 1)):
        write_all(tmp_path / f"{name}.webm", count)
    files = [tmp_path / f"{name}.webm" for name in "abc"]
    times_ms = [[0, 40, 80], list(range(120, 1320, 40)), [9000]]
    pieces = ((file.read_bytes(), times) for file, times in zip(files, times_ms, strict=True))
    assert len(list(join_webm(tmp_path / "joined.webm", pieces, 25.0))) == 3
    assert shown_ms(tmp_path / "joined.webm") == [*chain(*times_ms)]
    apart = [picture for file in files for picture in pictures(file)]
    np.testing.assert_array_equal(list(pictures(tmp_path / "joined.webm")), apart)


def test_a_piece_with_another_number_of_pictures_is_refused(tmp_path):
    write_all(tmp_path / "a.webm", 3)
    piece = (tmp_path / "a.webm").read_bytes()
    for times_ms in ([0, 1], [0, 1, 2, 3]):
        with pytest.raises(EncoderFailed, match=r"joined\.webm: the encoder failed: ValueError"):
            list(join_webm(tmp_path / "joined.webm", [(piece, times_ms)], 10.0))
    assert [each.name for each in tmp_path.iterdir()] == ["a.webm"]


def test_it_writes_where_decord_was_imported(tmp_path):
    """decord makes its own FFmpeg everybody's, in which PyAV finds no encoder that opens."""
    pytest.importorskip("decord")
    program = f"""
import decord, numpy as np
from pathlib import Path
from deltascene.pipeline.drawing.webm import WebmWriter
writer = WebmWriter(Path({str(tmp_path / "o.webm")!r}), {SIZE}, 10.0)
writer.write(np.zeros((*{SIZE}, 3), np.uint8), 0)
writer.finish()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert shown_ms(tmp_path / "o.webm") == [0]


def test_a_rate_that_cannot_be_costs_no_quality(tmp_path):
    """Containers with jittering times say 1000 frames a second, pictures of every week less than one in a million."""
    apart = []
    for number, fps in enumerate((25.0, 1000.0, 1e-6)):
        path = tmp_path / f"{number}.webm"
        with closing(WebmWriter(path, SIZE, fps)) as writer:
            for at_ms, picture in enumerate(noise(20)):
                writer.write(picture, 40 * at_ms)
            writer.finish()
        wanted = [picture[..., ::-1].astype(int) for picture in noise(20)]
        apart.append(np.abs(np.array(list(pictures(path))) - wanted).mean())
    assert max(apart) < 1.2 * apart[0]


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
    [(signal.SIGKILL, WorkerLost, "encoder was killed"), (signal.SIGSEGV, EncoderFailed, r"encoder died \(exit -11\)")],
)
def test_an_encoder_that_ends_by_a_signal(tmp_path, number, raised, says):
    with pytest.raises(raised, match=says):
        write_all(tmp_path / "o.webm", 200, lambda child: child.send_signal(number))
    assert not list(tmp_path.iterdir())


def test_a_request_to_end_is_for_the_pipeline(tmp_path):
    """As a service manager sends it to everybody: the pipeline finishes what it is at, and its encoder with it."""

    def end(child):
        deadline = time.monotonic() + 20
        while not (tmp_path / "o.webm").exists():  # it has begun
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.terminate()

    write_all(tmp_path / "o.webm", 50, end)
    assert len(shown_ms(tmp_path / "o.webm")) == 50


def test_an_encoder_ends_with_its_pipeline(tmp_path):
    program = f"""
import os, psutil, numpy as np
from pathlib import Path
from deltascene.pipeline.drawing.webm import WebmWriter
writer = WebmWriter(Path({str(tmp_path / "o.webm")!r}), {SIZE}, 10.0)
writer.write(np.zeros((*{SIZE}, 3), np.uint8), 0)
print(psutil.Process().children()[0].pid, flush=True)
os._exit(9)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    pid, deadline = int(done.stdout), time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
