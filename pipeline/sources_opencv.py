"""Pictures of a video file by OpenCV: one at a time, in constant memory, whatever the length of its groups."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deltascene.pipeline.sources_table import FrameTable
from deltascene.stages.types import Image


def opencv_pictures(path: Path, table: FrameTable, wanted: range) -> Iterator[tuple[int, Image | None, str]]:
    """Decode frames `wanted` of a file.

    Yields:
        Frame number, RGB picture [H, W, 3] or None, and the cause if it isn't a good one.
    """
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        for count in range(wanted.stop):
            if not capture.grab():
                return
            if count in wanted:
                _, picture = capture.retrieve()
                yield count, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False), ""
    finally:
        capture.release()
