"""Images by OpenCV: a folder of them as a video at a rate that the user gives, and animated WebP files.

Every picture comes upright (EXIF) and as 8-bit RGB. Transparency is left out and the colours below it stay, as `ffmpeg`
does it. 16 bits become the upper 8. Of a file with several pictures, the first is taken. An image of another size than
the first is scaled to its size.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.sources.errors import UnreadableSource
from deltascene.pipeline.sources.info import LARGEST_PICTURE, FrameTable, Picture, SourceInfo
from deltascene.pipeline.sources.pictures import positions_of
from deltascene.stages.types import Image

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
_JPEG, _END_OF_IMAGE, _START_OF_SCAN = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"
_WARNINGS = (b"Corrupt JPEG", b"Premature end", b"libpng error", b"libpng warning")
_BYTES_AT_ONCE = 1 << 28
_QUICKEST_MS, _USUAL_MS = 10, 100


def opencv_name() -> str:
    """Name and version of this decoder."""
    import cv2

    return f"opencv {cv2.__version__}"


def examine_sequence(paths: Sequence[Path], fps: Fraction) -> SourceInfo:
    """Learns the size of a sequence from its first image that can be read, and its times from its images' numbers.

    Args:
        paths: the images.
        fps: images per second; a gap between the numbers is a gap in time.

    Raises:
        UnreadableSource: no image can be read.
    """
    first = next((image for image, _ in map(_read, paths) if image is not None), None)
    if first is None:
        raise UnreadableSource(_none_line(paths))
    pts_s = np.array(positions_of(paths) or range(len(paths)), dtype=np.float64) * float(1 / fps)
    height, width = first.shape[:2]
    return SourceInfo(width, height, fps, float(pts_s[-1]) + float(1 / fps), opencv_name(), FrameTable.of_images(pts_s))


def sequence_pictures(paths: Sequence[Path], info: SourceInfo, wanted: range) -> Iterator[Picture]:
    """Reads images `wanted` at the size of the sequence; a damaged one is `corrupt`, one that is gone is `missing`."""
    import cv2

    for index in wanted:
        image, cause = _read(paths[index])
        if image is not None and image.shape[:2] != (info.height, info.width):
            image = np.asarray(cv2.resize(image, (info.width, info.height), interpolation=cv2.INTER_AREA), np.uint8)
        yield index, image, cause


def is_webp(path: Path) -> bool:
    """Whether a file is a WebP by its bytes."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[:4] == b"RIFF" and head[8:] == b"WEBP"


def examine_animation(path: Path) -> SourceInfo:
    """Learns the times of an animated WebP, which FFmpeg can't decode; durations as browsers take them.

    Raises:
        UnreadableSource: none of its frames can be read.
    """
    durations_ms: list[int] = []
    height = width = 0
    for frame, duration_ms in _animation(path):
        height, width = frame.shape[:2]
        durations_ms.append(duration_ms if duration_ms > _QUICKEST_MS else _USUAL_MS)
    if not durations_ms:
        raise UnreadableSource(f"{path}: expected an animation that OpenCV can read, found none of its frames")
    ends_s = np.cumsum(durations_ms) / 1e3
    fps = Fraction(1000 * len(durations_ms), sum(durations_ms))
    table = FrameTable.of_images(np.concatenate([[0.0], ends_s[:-1]]))
    return SourceInfo(width, height, fps, float(ends_s[-1]), opencv_name(), table)


def animation_pictures(path: Path, wanted: range) -> Iterator[Picture]:
    """Frames `wanted` of an animated WebP over white."""
    for index, (frame, _) in enumerate(islice(_animation(path), wanted.stop)):
        if index in wanted:
            yield index, _over_white(frame), ""


def _animation(path: Path) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Frames [H, W, 4] and their durations in milliseconds, decoded as many at once as fit in memory."""
    import cv2

    encoded = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    start, count = 0, 1
    while True:
        try:
            read, part = cv2.imdecodeanimation(encoded, start, count)
        except cv2.error:  # more pixels than allowed
            return
        frames: Any = part.frames
        if not read or not frames:
            return
        yield from zip(frames, map(int, part.durations), strict=True)
        if len(frames) < count:
            return
        start, count = start + count, max(_BYTES_AT_ONCE // frames[0].nbytes, 1)


def _over_white(bgra: NDArray[np.uint8]) -> Image:
    if bgra.shape[2] == 3:
        return np.ascontiguousarray(bgra[..., ::-1])
    alpha = bgra[..., 3:].astype(np.uint16)
    mixed = (bgra[..., 2::-1] * alpha + 255 * (255 - alpha) + 127) // 255
    return mixed.astype(np.uint8)


def _read(path: Path) -> tuple[Image | None, str]:
    try:
        if not path.is_file():  # a pipe would wait for a writer, a device has no end
            return None, "missing"
        encoded = path.read_bytes()
    except OSError:
        return None, "missing"
    image = _decoded(encoded)
    return (image, "") if image is not None else (None, "corrupt")


def _decoded(encoded: bytes) -> Image | None:
    """The RGB picture [H, W, 3] of an image file; None if it is damaged.

    libjpeg fills what it can't decode with something, and only warns of it on stderr, which the process is free to
    catch around one picture. A second decoder that checks would cost as much again and finds a third of the damage.
    """
    import cv2

    with tempfile.TemporaryFile(buffering=0) as said:
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            picture = _by_opencv(encoded, cv2.IMREAD_COLOR)
            if picture is None:  # floating point comes only as it is
                picture = _from_floating(_by_opencv(encoded, cv2.IMREAD_UNCHANGED))
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        said.seek(0)
        warned = any(warning in said.read() for warning in _WARNINGS)
    # Some versions of OpenCV fill the rest of a JPEG that is cut off with grey and don't warn.
    cut_off = encoded.startswith(_JPEG) and encoded.find(_END_OF_IMAGE, encoded.find(_START_OF_SCAN)) < 0
    if picture is None or warned or cut_off:
        return None
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _by_opencv(encoded: bytes, flag: int) -> Any:
    import cv2

    try:
        return cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), flag) if encoded else None
    except cv2.error:  # more pixels than allowed
        return None


def _from_floating(picture: Any) -> Any:
    """Pixels of floating point [H, W(, C)] as 8 bits BGR, clipped: 1 is white, or 255 or 65535 where most are above.

    "Most" as a bright light may lie above white; not a number is black.
    """
    if picture is None or not np.issubdtype(picture.dtype, np.floating):
        return None
    values = np.nan_to_num(np.atleast_3d(picture)[..., :3].astype(np.float32), nan=0.0)
    lit = values[values > 0]
    middle = float(np.median(lit)) if lit.size else 0.0
    white = 1.0 if middle <= 1 else 255.0 if middle <= 255 else 65535.0
    levels = np.rint(np.clip(values / white, 0, 1) * 255).astype(np.uint8)
    return np.repeat(levels[..., :1], 3, axis=2) if levels.shape[2] < 3 else levels


def _none_line(paths: Sequence[Path]) -> str:
    expected = f"{paths[0]}: expected images that OpenCV can read, of at most {LARGEST_PICTURE} pixels"
    try:
        with paths[0].open("rb") as file:
            head = file.read(12) if paths[0].is_file() else b""
    except OSError:
        head = b""
    if head[4:8] == b"ftyp" and head[8:] in _HEIF_BRANDS:
        return f"{expected}; found HEIC; way out: magick mogrify -format jpg '*{paths[0].suffix}'"
    return f"{expected}; found none of {len(paths)}"
