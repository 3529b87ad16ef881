"""Reads files as `Frame`s with their true numbers, times and validity.

PyAV decodes videos and OpenCV images, in a process of its own for the reasons given in decoding/__main__.py. Errors are
in pipeline/sources/errors.py.
"""

from collections.abc import Iterator
from fractions import Fraction
from types import TracebackType
from typing import Self

from deltascene.pipeline.config import SourceConfig
from deltascene.pipeline.sources.decoder import DecoderProcess
from deltascene.pipeline.sources.errors import UnreadableSource
from deltascene.pipeline.sources.identity import missing_file, refuse_special
from deltascene.pipeline.sources.info import Decoder, SourceInfo
from deltascene.pipeline.sources.messages import Request, Selection
from deltascene.pipeline.sources.remote import local_files
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.stages.types import Frame

_SEQUENCE_FPS = Fraction(30)
TIMEOUT_S = 600.0


class Reader(Iterator[Frame]):
    """The frames of one selection of one source; an iterator and a context manager.

    Every selected frame comes exactly once and in order; one that can't be decoded comes as an invalid frame.

    Attributes:
        info: what is known of the source.
        wanted: numbers of the selected frames.
        cause: after the last frame, `truncated` if the selection reaches to the end of a source that has fewer frames
            than its header claims; else empty.
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
        """Ends reading before the last frame."""
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
    """Finds size, times and decoder of a source from its packets and first frames.

    Args:
        spec: the source.
        decoder: name of the decoder; `auto` is PyAV.
        fps: frames per second of an image sequence; None is 30. A video has its own.
        timeout_s: seconds after which a decoder without an answer is ended.

    Raises:
        UnreadableSource: no picture can be decoded.
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
    threads: int = 1,
    timeout_s: float = TIMEOUT_S,
) -> Reader:
    """Frames of a source in order: every `stride`-th between two times, or a segment of these.

    Args:
        spec: the source.
        start_s: leave out frames before this time (seconds from the first frame).
        end_s: leave out frames from this time on.
        stride: step from one frame to the next that is taken, from the first frame that isn't left out.
        start_frame: of these, read only frames with this number or a higher one. Seeking is exact, and segments joined
            give the same frames as one pass, whatever the stride.
        end_frame: of these, read only frames with a lower number.
        fps: frames per second of an image sequence; None is 30. A video has its own.
        decoder: name of the decoder; `auto` is PyAV. Ignored with `info`, which names the decoder.
        info: result of `probe`, so that the packets aren't read again.
        threads: threads that decode a video; the frames don't depend on them.
        timeout_s: seconds after which a decoder without an answer is ended.

    Raises:
        UnreadableSource: no picture can be decoded.
        ValueError: stride is below 1.
    """
    if stride < 1:
        raise ValueError(f"stride: expected 1 or more, found {stride}; 1 takes every frame")
    selection = Selection(start_s, end_s, stride, start_frame, end_frame)
    process = DecoderProcess(_request(spec, decoder, fps, selection, info, threads), timeout_s)
    info = info or process.info()
    return Reader(spec, info, selection.of(info.table.pts_s), process)


def _request(
    spec: SourceSpec,
    decoder: Decoder,
    fps: float | Fraction | None,
    selection: Selection | None,
    info: SourceInfo | None,
    threads: int = 1,
) -> Request:
    try:
        files = local_files(spec)
        refuse_special(files[0])
        empty = spec.kind == "video" and files[0].stat().st_size == 0
    except OSError as error:
        raise missing_file(spec, error) from error
    if empty:
        raise UnreadableSource(f"{spec.path}: expected a video, found an empty file")
    rate = _SEQUENCE_FPS if fps is None else Fraction(fps).limit_denominator(100_000)
    if rate <= 0:
        raise ValueError(f"fps: expected a rate above 0, found {fps}")
    return Request(spec.kind, files, decoder, rate, selection, info, threads)


def selected_frames(chosen: SourceConfig, info: SourceInfo) -> range:
    """Numbers of a source's frames that a config selects."""
    return Selection(chosen.start_s, chosen.end_s, chosen.stride).of(info.table.pts_s)


def open_source(
    chosen: SourceConfig, spec: SourceSpec, *, start_frame: int | None = None, info: SourceInfo | None = None
) -> Reader:
    """Opens the frames of a source that a config selects.

    Args:
        chosen: times, stride, rate and decoder.
        spec: the source.
        start_frame: number of the source's frame before which frames are left out.
        info: result of `probe`, so that the source isn't probed again.

    Raises:
        SourceError: the source can't be read.
    """
    return read_frames(
        spec,
        start_s=chosen.start_s,
        end_s=chosen.end_s,
        stride=chosen.stride,
        start_frame=start_frame,
        fps=chosen.fps,
        decoder=chosen.decoder,
        info=info,
        threads=chosen.threads,
        timeout_s=chosen.timeout_s,
    )
