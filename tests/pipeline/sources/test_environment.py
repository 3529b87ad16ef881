"""Settings that a user made for other programs with the same libraries don't reach the decoder's process."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import read_frames

SETTINGS = {
    "OPENCV_FFMPEG_CAPTURE_OPTIONS": "skip_frame;nokey|video_codec;h264_cuvid",
    "OPENCV_VIDEOIO_PRIORITY_LIST": "GSTREAMER",
    "OPENCV_FFMPEG_SKIP_LOG_CALLBACK": "1",
    "OPENCV_IO_MAX_IMAGE_WIDTH": "10",
    "OPENCV_IO_MAX_IMAGE_PIXELS": "100",
    "OPENCV_LOG_LEVEL": "nonsense",
    "AV_LOG_FORCE_COLOR": "1",
    "FFREPORT": "file=report.log:level=48",
}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(2):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((48, 64, 3), 60 * number, np.uint8))
    return folder


@pytest.mark.parametrize("kind", ["video", "images"])
def test_pictures_are_the_same(make_clip, images, tmp_path, monkeypatch, kind):
    (spec,) = find_sources([str(images if kind == "images" else make_clip(5))])

    def read():
        return [(frame.pts_s, frame.cause, frame.image.tobytes()) for frame in read_frames(spec)]

    plain = read()
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert read() == plain
    assert not (tmp_path / "report.log").exists()


def test_settings_that_would_end_the_command_are_dropped(make_clip):
    """OpenCV ends a process for a value that it can't read."""
    names = ("OPENCV_TRACE", "OPENCV_IO_MAX_IMAGE_WIDTH", "OPENCV_FOR_THREADS_NUM", "OPENCV_ENABLE_MEMALIGN")
    script = "from deltascene.pipeline.cli.app import main; main()"
    command = [sys.executable, "-c", script, "what-if", str(make_clip(2)), "--presets", "balanced"]
    done = subprocess.run(command, env=os.environ | dict.fromkeys(names, "zz"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
