"""Pictures of a video file by OpenCV, for stores that were begun with it; each is judged by what PyAV decodes."""

import math
import os
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from deltascene.pipeline.sources.decoding.by_av import av_pictures
from deltascene.pipeline.sources.frame_table import Picture
from deltascene.pipeline.sources.info import SourceInfo
from deltascene.stages.types import Image

_TOLERANCE_S = 1.1e-3


def opencv_name() -> str:
    """Name and version of this decoder."""
    import cv2

    return f"opencv {cv2.__version__}"


def opencv_sample(path: Path, info: SourceInfo, indices: list[int]) -> list[Image] | str:
    """Some pictures of a file, if OpenCV times its frames rightly up to the last of them; else the reason."""
    times_s: list[float] = []
    pictures: list[Image] = []
    for index, (time_s, image) in enumerate(islice(_read(path, indices), indices[-1] + 1)):
        times_s.append(time_s)
        if index in indices:
            if image is None:
                return "OpenCV can't convert its pictures"
            pictures.append(image)
    if len(pictures) < len(indices):
        return f"OpenCV finds {len(times_s)} frames of {info.frames}"
    if np.max(np.abs(np.array(times_s) - times_s[0] - info.table.pts_s[: len(times_s)])) > _TOLERANCE_S:
        return "OpenCV times the frames otherwise"
    return pictures


def opencv_pictures(path: Path, info: SourceInfo, wanted: range) -> Iterator[Picture]:
    """Decodes a file from its start, and gives frames `wanted` in order.

    Args:
        path: the file.
        info: what is known of it; OpenCV's times of its first frames have been compared.
        wanted: numbers of the frames to give.
    """
    frames: Iterator[tuple[int, tuple[float, Image | None]]] = enumerate(_read(path, wanted))
    first = list(islice(frames, 1))
    frames = chain(first, frames)
    for index, _, cause in av_pictures(path, info, wanted, convert=False):
        _, (time_s, image) = next((each for each in frames if each[0] == index), (index, (math.inf, None)))
        # Where OpenCV skipped a frame, its count is wrong from there on, and its times show it.
        late_s = time_s - first[0][1][0] - float(info.table.pts_s[index]) if first else math.inf
        yield index, image, cause if image is not None and abs(late_s) <= _TOLERANCE_S else "corrupt"


def _read(path: Path, wanted: list[int] | range) -> Iterator[tuple[float, Image | None]]:
    """Time in seconds and RGB picture [H, W, 3] of every frame; only those wanted are converted."""
    import cv2

    capture: Any = cv2.VideoCapture(os.fspath(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        index = 0
        while capture.grab():
            done, picture = capture.retrieve() if index in wanted else (False, None)
            image: Image | None = None
            if done and picture is not None and picture.ndim == 3:
                image = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)
            yield float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1e3, image
            index += 1
    finally:
        capture.release()
