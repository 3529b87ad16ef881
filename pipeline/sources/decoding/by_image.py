"""A folder of images as a video: one picture a file, at a rate that the user gives."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from deltascene.pipeline.sources.decoding.by_opencv import opencv_name
from deltascene.pipeline.sources.errors import UnreadableSource
from deltascene.pipeline.sources.frame_table import FrameTable, Picture
from deltascene.pipeline.sources.info import SourceInfo
from deltascene.stages.types import Image


def examine_sequence(paths: Sequence[Path], fps: Fraction) -> SourceInfo:
    """Learn the size of a sequence from its first image that can be read.

    Raises:
        UnreadableSource: none can be.
    """
    first = next((each for each in (_read(path) for path in paths) if each[0] is not None), None)
    if first is None or first[0] is None:
        raise UnreadableSource(f"{paths[0]}: expected images that OpenCV can read, found none of {len(paths)}")
    count = len(paths)
    numbers = np.arange(count, dtype=np.int64)
    table = FrameTable.of_images(np.asarray(numbers * float(1 / fps), dtype=np.float64))
    height, width = first[0].shape[:2]
    return SourceInfo(width, height, fps, float(count / fps), opencv_name(), table)


def sequence_pictures(paths: Sequence[Path], wanted: range) -> Iterator[Picture]:
    """Read images `wanted`, upright; a damaged one is `corrupt`, one that is gone is `missing`."""
    for index in wanted:
        image, cause = _read(paths[index])
        yield index, image, cause


def _read(path: Path) -> tuple[Image | None, str]:
    import cv2

    try:
        if not path.is_file():  # a pipe would wait for a writer, a device has no end
            return None, "missing"
        encoded = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except OSError:
        return None, "missing"
    picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if len(encoded) else None
    if picture is None or _is_cut_off(encoded.tobytes()):
        return None, "corrupt"
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8), ""


def _is_cut_off(encoded: bytes) -> bool:
    """Whether a JPEG or PNG stops before its end; some versions of OpenCV fill the rest with grey and say nothing.

    Source: ITU-T T.81, B.1.1.3 (a start of scan, FFDA, is followed by an end of image, FFD9); PNG, 11.2.5 (IEND).
    """
    if encoded.startswith(b"\xff\xd8"):
        return encoded.rfind(b"\xff\xd9") < encoded.rfind(b"\xff\xda")
    return encoded.startswith(b"\x89PNG") and b"IEND" not in encoded[-64:]
