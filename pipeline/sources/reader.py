"""Files on disk → `Frame`s with true numbers, times and validity.

decord decodes files with small pictures and short groups of them, OpenCV the rest and everything where decord has no
wheel or would err. The choice is a function of the file. Decoding runs in a process of its own (pipeline/sources/decoding/__main__.py says
why); errors are in pipeline/sources/errors.py: `SourceError` > `SourceNotFound`, `UnreadableSource`.
"""

import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

from deltascene.cache.places import Place, open_anywhere
from deltascene.pipeline.sources.decoder import DecoderProcess
from deltascene.pipeline.sources.errors import SourceError, SourceNotFound, UnreadableSource
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.info import Decoder, SourceInfo
from deltascene.pipeline.sources.messages import Request, Selection
from deltascene.pipeline.sources.remote import local_files
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.stages.types import Frame

__all__ = [
    "Decoder",
    "Identity",
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
    "recognise",
]

_SEQUENCE_FPS = Fraction(30)
_MIB = 1 << 20
_SPECIAL = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Content hashes that tell one input from another: SHA-256 in hexadecimal digits.

    Attributes:
        quick: of the size and the first, middle and last MiB; fingerprints and archives are keyed by it.
        full: of the size and every byte; empty where that wasn't asked for. Up to 3 MiB both are the same.
    """

    quick: str
    full: str = ""

    def matches(self, other: "Identity") -> bool:
        """Whether both are of the same content: full hashes are compared where both are known, else quick ones.

        Earlier versions recorded the full hash alone, in place of the quick one.
        """
        if self.full and other.full:
            return self.full == other.full
        return bool({self.quick, self.full} & {other.quick, other.full} - {""})


class Reader(Iterator[Frame]):
    """The frames of one selection of one source; an iterator and a context manager.

    Every frame selected comes exactly once and in order, be it as an invalid one.

    Attributes:
        info: what is known of the source.
        wanted: numbers of the frames selected (read by the batch flow: totals and progress).
        cause: after the last frame: `truncated` if the selection reaches to the end of a source that ends before its
            header says it does; else empty.
    """

    def __init__(self, spec: SourceSpec, info: SourceInfo, wanted: range, process: DecoderProcess) -> None:
        self.info = info
        self.cause = ""
        self._id = spec.id
        self.wanted = wanted
        self._to_the_end = wanted.stop >= info.frames
        self._process = process
        self._pictures = process.pictures()

    def __next__(self) -> Frame:
        try:
            index, image, cause = next(self._pictures)
        except StopIteration:
            if self._to_the_end and self.info.truncated:
                self.cause = "truncated"
            raise
        return Frame(self._id, index, float(self.info.table.pts_s[index]), image, not cause, cause)

    def close(self) -> None:
        """Let go of the source before its end."""
        self._pictures.close()
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def probe(
    spec: SourceSpec,
    *,
    decoder: Decoder = "auto",
    fps: float | Fraction | None = None,
    timeout_s: float = TIMEOUT_S,
) -> SourceInfo:
    """Learn size, times and decoder of a source from its packets and first frames.

    Args:
        spec: the source.
        decoder: `auto` chooses by the file; a name insists.
        fps: rate of an image sequence, 30 when not given; a video has its own.
        timeout_s: a decoder that says nothing for so long is ended.

    Raises:
        UnreadableSource: no picture can be got from it.
    """
    process = DecoderProcess(_request(spec, decoder, fps, None, None), timeout_s)
    try:
        return process.info()
    finally:
        process.close()


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
    timeout_s: float = TIMEOUT_S,
) -> Reader:
    """Frames of a source in order: every `stride`-th between two times, or a segment of these.

    Args:
        spec: the source.
        start_s: leave out frames before this time (seconds from the first frame).
        end_s: leave out frames from this time on.
        stride: take the first frame of what is left, and every so-manieth after it.
        start_frame: give those of them only that have this number or a higher one. Seeking is exact, and segments
            joined are what one reading gives, whatever the stride.
        end_frame: give those of them only that have a lower number than this.
        fps: rate of an image sequence, 30 when not given; a video has its own.
        decoder: `auto` chooses by the file; a name insists. Not used with `info`, which names the decoder.
        info: what `probe` returned, to save reading the packets again.
        timeout_s: a decoder that says nothing for so long is ended.

    Raises:
        UnreadableSource: no picture can be got from it.
        ValueError: stride is below 1.
    """
    if stride < 1:
        raise ValueError(f"stride: expected 1 or more, found {stride}; 1 takes every frame")
    selection = Selection(start_s, end_s, stride, start_frame, end_frame)
    process = DecoderProcess(_request(spec, decoder, fps, selection, info), timeout_s)
    info = info or process.info()
    return Reader(spec, info, selection.of(info.table.pts_s), process)


def identity(spec: SourceSpec, full: bool = False) -> Identity:
    """Content hashes of a source.

    Args:
        spec: the source; of a sequence the sorted names, sizes and hashes of all images are hashed.
        full: hash every byte, too.

    Raises:
        SourceNotFound: a file is gone.
        UnreadableSource: a file can't be opened.
    """
    try:
        if spec.kind == "video":
            return _file_identity(spec.path, full)
        quick, whole = hashlib.sha256(), hashlib.sha256()
        for path in sorted(spec.paths, key=lambda each: each.name):
            about, image = f"{path.name}\0{path.stat().st_size}\0", _file_identity(path, full)
            quick.update(f"{about}{image.quick}\n".encode())
            whole.update(f"{about}{image.full}\n".encode())
        return Identity(quick.hexdigest(), whole.hexdigest() if full else "")
    except OSError as error:
        raise _no_file(spec, error) from error


def recognise(spec: SourceSpec, recorded: Identity, now: Identity) -> Identity | None:
    """All that is known of a source whose identity was recorded earlier, or None if it has another content now.

    A source that would be taken for another by its quick hash is read whole where the record could be of an earlier
    version, which had the full hash in place of the quick one.

    Args:
        spec: the source.
        recorded: its identity as an earlier run wrote it.
        now: as of `identity`, with or without the full hash.

    Raises:
        SourceError: as `identity`.
    """
    if not now.full and not recorded.full and now.quick != recorded.quick:
        now = identity(spec, full=True)
    return Identity(now.quick, now.full or recorded.full) if now.matches(recorded) else None


def _request(
    spec: SourceSpec,
    decoder: Decoder,
    fps: float | Fraction | None,
    selection: Selection | None,
    info: SourceInfo | None,
) -> Request:
    try:
        files = local_files(spec)
        _refuse_special(files[0])
        empty = spec.kind == "video" and files[0].stat().st_size == 0
    except OSError as error:
        raise _no_file(spec, error) from error
    if empty:
        raise UnreadableSource(f"{spec.path}: expected a video, found an empty file")
    rate = _SEQUENCE_FPS if fps is None else Fraction(fps).limit_denominator(100_000)
    if rate <= 0:
        raise ValueError(f"fps: expected a rate above 0, found {fps}")
    return Request(spec.kind, files, decoder, rate, selection, info)


def _no_file(spec: SourceSpec, error: OSError) -> SourceError:
    if isinstance(error, FileNotFoundError):
        return SourceNotFound(f"{error.filename}: expected a file of source {spec.id}, found nothing there any more")
    return UnreadableSource(f"{error.filename}: expected a file that can be read, found: {error.strerror}")


def _refuse_special(path: Place) -> None:
    """Refuses what isn't a file before it is opened: a pipe would wait for a writer, a device has no end."""
    if not isinstance(path, Path):
        return
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        found = next((name for is_one, name in _SPECIAL if is_one(mode)), "something else")
        raise UnreadableSource(f"{path}: expected a file, found {found}")


def _file_identity(path: Place, full: bool) -> Identity:
    _refuse_special(path)
    size = path.stat().st_size
    quick, whole = (hashlib.sha256(f"{size}\0".encode()) for _ in range(2))
    small = size <= 3 * _MIB
    with open_anywhere(path) as file:
        if full or small:
            while chunk := file.read(_MIB):
                whole.update(chunk)
        for start in () if small else (0, (size - _MIB) // 2, size - _MIB):
            file.seek(start)
            quick.update(file.read(_MIB))
    return Identity((whole if small else quick).hexdigest(), whole.hexdigest() if full else "")
