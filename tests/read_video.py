"""A video's pictures, read back."""

from collections.abc import Iterator
from pathlib import Path

import cv2

from deltascene.stages.types import Image


def pictures(path: Path) -> Iterator[Image]:
    """All of them, BGR [H, W, 3]."""
    capture = cv2.VideoCapture(str(path))
    while (read := capture.read())[0]:
        yield read[1]
