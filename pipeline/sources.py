"""Files on disk → `Frame`s with true numbers, times and validity.

decord decodes files with short groups of pictures, OpenCV the rest and everything where decord has no wheel. The choice
is a function of the file, and a file keeps its decoder. Errors: `SourceError` > `SourceNotFound`, `UnreadableSource`
(sources_errors.py).
"""

import hashlib
import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

from deltascene.pipeline.sources_decord import decord_pictures
from deltascene.pipeline.sources_errors import SourceError, SourceNotFound, UnreadableSource
from deltascene.pipeline.sources_find import SourceSpec, find_sources
from deltascene.pipeline.sources_opencv import opencv_pictures
from deltascene.pipeline.sources_table import FrameTable, scan
from deltascene.stages.types import Frame, Image

__all__ = [
    "Reader",
    "SourceError",
    "SourceInfo",
    "SourceNotFound",
    "SourceSpec",
    "UnreadableSource",
    "find_sources",
    "identity",
    "probe",
    "read_frames",
]

Decoder = Literal["auto", "decord", "opencv"]
_DEFAULT_SEQUENCE_FPS = Fraction(30)
_MIB = 1 << 20


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before it is decoded.

    Attributes:
        spec: the source.
        width: pixels of an upright picture.
        height: pixels of an upright picture.
        fps: frames a second, as the container says.
        frames: frames that are in the file (have a packet).
        frames_claimed: frames that its header promises.
        duration_s: from the first frame to the end of the last, in seconds.
        decoder: name and version of the decoder that reads it, `decord 0.6.0` or `opencv 4.10.0`.
        rotation: degrees clockwise by which the stored picture is turned to stand upright: 0, 90, 180 or 270.
        table: times and keyframes of all frames.
    """

    spec: SourceSpec
    width: int
    height: int
    fps: Fraction
    frames: int
    frames_claimed: int
    duration_s: float
    decoder: str
    rotation: int
    table: FrameTable


class Reader(Iterator[Frame]):
    """The frames of one selection of one source, in order; an iterator and a context manager.

    Attributes:
        info: what `probe` said about the source.
        wanted: numbers of the frames selected.
        cause: after the last frame: `truncated` if the source ended before its header said it would, else empty.
    """

    def __init__(self, info: SourceInfo, wanted: range, pictures: Iterator[tuple[int, Image | None, str]]) -> None:
        self.info = info
        self.cause = ""
        self.wanted = wanted
        self._pictures = pictures

    def __next__(self) -> Frame:
        try:
            index, image, cause = next(self._pictures)
        except StopIteration:
            if self.wanted.stop >= self.info.frames and self.info.frames < self.info.frames_claimed:
                self.cause = "truncated"
            raise
        return Frame(self.info.spec.id, index, float(self.info.table.pts_s[index]), image, not cause, cause)

    def close(self) -> None:
        """Let go of the file before the end."""
        close = getattr(self._pictures, "close", None)
        if close:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def probe(spec: SourceSpec, *, decoder: Decoder = "auto", fps: float | Fraction | None = None) -> SourceInfo:
    """Learn size, times and decoder of a source from its packets.

    Args:
        spec: the source.
        decoder: `auto` chooses by the file; a name insists.
        fps: rate of an image sequence; a video has its own.

    Raises:
        UnreadableSource: no picture can be got from it.
    """
    import cv2

    if spec.kind == "sequence":
        return _probe_sequence(spec, fps)
    if spec.path.stat().st_size == 0:
        raise UnreadableSource(f"{spec.path}: expected a video, found an empty file")
    table = scan(spec.path)
    capture = cv2.VideoCapture(str(spec.path), cv2.CAP_FFMPEG)
    if not capture.grab():
        raise UnreadableSource(f"{spec.path}: expected a video that can be decoded, found no picture in it")
    _, picture = capture.retrieve()
    rate = Fraction(capture.get(cv2.CAP_PROP_FPS)).limit_denominator(1001)
    claimed = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
    rotation = int(capture.get(cv2.CAP_PROP_ORIENTATION_META))
    capture.release()
    last_s = float(table.pts_s[-1]) + (float(1 / rate) if rate else 0.0)
    name = _choose(spec.path, table, decoder)
    height, width = picture.shape[:2]
    return SourceInfo(spec, width, height, rate, table.frames, claimed or table.frames, last_s, name, rotation, table)


def _choose(path: Path, table: FrameTable, decoder: Decoder) -> str:
    import cv2

    if decoder != "opencv" and table.closed and table.longest_group <= 64:
        return f"decord {importlib.metadata.version('decord')}"
    return f"opencv {cv2.__version__}"


def read_frames(
    spec: SourceSpec,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    stride: int = 1,
    start_frame: int | None = None,
    end_frame: int | None = None,
    fps: float | Fraction | None = None,
    decoder: Decoder = "auto",
    info: SourceInfo | None = None,
) -> Reader:
    """Frames of a source in order, every `stride`-th of the selection.

    Args:
        spec: the source.
        start_s: leave out frames before this time (seconds from the first frame).
        end_s: leave out frames from this time on.
        stride: take every so-manieth frame of what is left.
        start_frame: leave out frames before this number; seeking is exact.
        end_frame: leave out frames from this number on.
        fps: rate of an image sequence; 30 when not given.
        decoder: `auto` chooses by the file; a name insists.
        info: what `probe` returned, to save reading the packets again.

    Raises:
        UnreadableSource: no picture can be got from it.
        ValueError: stride is below 1.
    """
    if stride < 1:
        raise ValueError(f"stride: expected 1 or more, found {stride}")
    info = info or probe(spec, decoder=decoder, fps=fps)
    first = max(start_frame or 0, int(np.searchsorted(info.table.pts_s, start_s or 0.0)))
    last = info.frames if end_frame is None else min(end_frame, info.frames)
    if end_s is not None:
        last = min(last, int(np.searchsorted(info.table.pts_s, end_s)))
    wanted = range(first, max(first, last), stride)
    if spec.kind == "sequence":
        return Reader(info, wanted, _sequence_pictures(spec, wanted))
    pictures = decord_pictures if info.decoder.startswith("decord") else opencv_pictures
    return Reader(info, wanted, pictures(spec.path, info.table, wanted))


def identity(spec: SourceSpec, full: bool = False) -> str:
    """Content hash that tells one input from another: size and sha256 of first, middle and last MiB, or of all.

    Args:
        spec: the source; of a sequence the sorted names, sizes and hashes of all images.
        full: hash every byte.

    Returns:
        Hexadecimal sha256.
    """
    if spec.kind == "video":
        return _file_identity(spec.path, full)
    total = hashlib.sha256()
    for path in sorted(spec.paths, key=lambda each: each.name):
        total.update(f"{path.name}\0{path.stat().st_size}\0{_file_identity(path, full)}\n".encode())
    return total.hexdigest()


def _file_identity(path: Path, full: bool) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}\0".encode())
    with path.open("rb") as file:
        if full or size <= 3 * _MIB:
            while chunk := file.read(_MIB):
                digest.update(chunk)
            return digest.hexdigest()
        for start in (0, (size - _MIB) // 2, size - _MIB):
            file.seek(start)
            digest.update(file.read(_MIB))
    return digest.hexdigest()


def _probe_sequence(spec: SourceSpec, fps: float | Fraction | None) -> SourceInfo:
    import cv2

    rate = Fraction(fps).limit_denominator(1001) if fps else _DEFAULT_SEQUENCE_FPS
    count = len(spec.paths)
    picture = _read_image(spec.paths[0])
    if picture is None:
        raise UnreadableSource(f"{spec.paths[0]}: expected an image, found none that OpenCV can read")
    height, width = picture.shape[:2]
    pts = np.arange(count, dtype=np.int64)
    table = FrameTable(pts, pts / float(rate), pts, True)
    name = f"opencv {cv2.__version__}"
    return SourceInfo(spec, width, height, rate, count, count, float(count / rate), name, 0, table)


def _sequence_pictures(spec: SourceSpec, wanted: range) -> Iterator[tuple[int, Image | None, str]]:
    for index in wanted:
        picture = _read_image(spec.paths[index])
        yield index, picture, "" if picture is not None else "corrupt"


def _read_image(path: Path) -> Image | None:
    import cv2

    encoded = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB) if len(encoded) else None
    return None if picture is None else np.asarray(picture, dtype=np.uint8)
