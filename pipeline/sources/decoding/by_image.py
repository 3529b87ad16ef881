"""A folder of images as a video: one picture a file, at a rate that the user gives.

Every picture comes upright (EXIF) and as 8-bit RGB. Transparency is left out and the colours below it stay, as `ffmpeg`
does it (an 8-bit TIFF comes over black, which is how libtiff gives it). 16 bits become the upper 8. Of a file with
several pictures, the first is taken. An image of another size than the first is scaled to its size.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.sources.decoding.image_damage import is_damaged
from deltascene.pipeline.sources.errors import UnreadableSource
from deltascene.pipeline.sources.frame_table import FrameTable, Picture
from deltascene.pipeline.sources.info import LARGEST_PICTURE, SourceInfo
from deltascene.stages.types import Image

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")


def opencv_name() -> str:
    """Name and version of this decoder."""
    import cv2

    return f"opencv {cv2.__version__}"


def examine_sequence(paths: Sequence[Path], fps: Fraction, positions: Sequence[int] = ()) -> SourceInfo:
    """Learn the size of a sequence from its first image that can be read.

    Args:
        paths: the images.
        fps: images per second.
        positions: where each image is at that rate, ascending; empty is 0, 1, 2 … A gap is a gap in time.

    Raises:
        UnreadableSource: no image can be read.
    """
    first = next((image for image, _ in map(_read, paths) if image is not None), None)
    if first is None:
        raise UnreadableSource(_none_line(paths))
    numbers = np.array(positions or range(len(paths)), dtype=np.int64)
    assert len(numbers) == len(paths), "one position for each image"
    assert np.all(np.diff(numbers) > 0), "ascending"
    times_ms = np.asarray(numbers * float(1000 / fps), dtype=np.float64)
    duration_s = float((int(numbers[-1] - numbers[0]) + 1) / fps)
    return still_info(first.shape[:2], fps, duration_s, times_ms)


def still_info(
    size: tuple[int, int], fps: Fraction, duration_s: float, times_ms: NDArray[np.float64], truncated: bool = False
) -> SourceInfo:
    """What is known of a source whose pictures OpenCV decodes one by one.

    Args:
        size: height and width.
        fps: pictures per second.
        duration_s: from the first picture to the end of the last.
        times_ms: their times [F].
        truncated: whether there should be more of them.
    """
    count = len(times_ms)
    keys, lost = np.arange(count, dtype=np.int64), np.zeros(count, dtype=np.bool_)
    table = FrameTable(times_ms, keys, lost, closed=True, delay=0, torn=-1, timed=True)
    return SourceInfo(size[1], size[0], fps, count, count + truncated, duration_s, opencv_name(), 0, True, table)


def sequence_pictures(paths: Sequence[Path], info: SourceInfo, wanted: range) -> Iterator[Picture]:
    """Read images `wanted` at the size of the sequence; a damaged one is `corrupt`, one that is gone is `missing`."""
    import cv2

    for index in wanted:
        image, cause = _read(paths[index])
        if image is not None and image.shape[:2] != (info.height, info.width):
            shrinks = image.shape[0] * image.shape[1] > info.height * info.width
            way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image = np.asarray(cv2.resize(image, (info.width, info.height), interpolation=way), dtype=np.uint8)
        yield index, image, cause


def decode_image(encoded: bytes, flag: int) -> Any:
    """What OpenCV makes of an image file with one of its `IMREAD` flags, an array [H, W(, C)]; None if it can't."""
    import cv2

    try:
        return cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), flag) if encoded else None
    except cv2.error:  # more pixels than allowed
        return None


def _read(path: Path) -> tuple[Image | None, str]:
    try:
        if not path.is_file():  # a pipe would wait for a writer, a device has no end
            return None, "missing"
        encoded = path.read_bytes()
    except OSError:
        return None, "missing"
    image = _rgb(encoded)
    return (None, "corrupt") if image is None or is_damaged(encoded) else (image, "")


def _rgb(encoded: bytes) -> Image | None:
    import cv2

    picture = decode_image(encoded, cv2.IMREAD_COLOR)
    if picture is None:  # floating point comes only as it is
        floating = decode_image(encoded, cv2.IMREAD_UNCHANGED)
        if floating is None or not np.issubdtype(floating.dtype, np.floating):
            return None
        picture = _from_floating(floating)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _from_floating(picture: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Pixels of floating point [H, W(, C)] as 8 bits BGR, clipped: 1 is white, or 255 or 65535 where most are above.

    "Most" as a bright light may lie above white; not a number is black.
    """
    values = np.nan_to_num(np.atleast_3d(picture)[..., :3].astype(np.float32), nan=0.0)
    lit = values[values > 0]
    middle = float(np.median(lit)) if lit.size else 0.0
    white = 1.0 if middle <= 1 else 255.0 if middle <= 255 else 65535.0
    levels = np.rint(np.clip(values / white, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(
        np.broadcast_to(levels[..., :1], (*levels.shape[:2], 3)) if levels.shape[2] < 3 else levels
    )


def _none_line(paths: Sequence[Path]) -> str:
    expected = f"{paths[0]}: expected images that OpenCV can read, of at most {LARGEST_PICTURE} pixels"
    try:
        head = paths[0].read_bytes()[:12] if paths[0].is_file() else b""
    except OSError:
        head = b""
    if head[4:8] == b"ftyp" and head[8:] in _HEIF_BRANDS:
        return f"{expected}; found HEIC; way out: magick mogrify -format jpg '*{paths[0].suffix}'"
    return f"{expected}; found none of {len(paths)}"
