"""The decoder process: `python -m deltascene.pipeline.sources.decoding`, one request on stdin, answers on stdout.

Decoding happens apart from the pipeline because FFmpeg tells of damage only on stderr, and stderr is a whole process's;
because a file that crashes or hangs a decoder must cost that file only; and because decoding then overlaps with work.
"""

import ctypes
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from deltascene.pipeline.processes.wire import write_message
from deltascene.pipeline.sources.decoding.by_decord import decord_pictures, frames_at_once
from deltascene.pipeline.sources.decoding.by_image import examine_sequence, sequence_pictures
from deltascene.pipeline.sources.decoding.by_opencv import Complaints, opencv_pictures
from deltascene.pipeline.sources.decoding.by_webp import animation_pictures, examine_animation, is_webp
from deltascene.pipeline.sources.decoding.probe import examine
from deltascene.pipeline.sources.errors import SourceError
from deltascene.pipeline.sources.frame_table import Picture
from deltascene.pipeline.sources.info import SourceInfo
from deltascene.pipeline.sources.messages import Request, read_request, write_info

_PATIENCE_S = 20.0  # for one picture
_SLOWEST_DISK = 5e6  # bytes a second, of looking at a whole file
_M_MMAP_THRESHOLD = -3  # malloc.h
_COMPLAINT = re.compile(rb"\[[\w,]+ @ 0x|Corrupt JPEG|Premature end|libpng (error|warning)")
_EARLY_END = re.compile(rb"partial file|ended prematurely")
_HARMLESS = re.compile(rb"partial file|ended prematurely|non-intra slice in an IDR|overread")


class StderrComplaints:
    """What the libraries in this process wrote to stderr, caught in a file."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - open for as long as the process lives
        self._ended_early = False
        os.dup2(self._file.fileno(), 2)

    def damage(self) -> bool:
        """Whether a decoder complained of damage since it was last asked."""
        lines = self._new().splitlines()
        return any(_COMPLAINT.match(line) and not _HARMLESS.search(line) for line in lines)

    def early_end(self) -> bool:
        """Whether a demuxer found the file cut off, since it was last asked."""
        self._new()
        said, self._ended_early = self._ended_early, False
        return said

    def _new(self) -> bytes:
        if os.lseek(2, 0, os.SEEK_CUR) == 0:
            return b""
        os.lseek(2, 0, os.SEEK_SET)
        text = self._file.read()
        os.lseek(2, 0, os.SEEK_SET)
        os.ftruncate(2, 0)
        self._ended_early = self._ended_early or _EARLY_END.search(text) is not None
        return text


def main() -> int:
    """Answer the request on stdin."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # for the pipeline, which ends this process when it doesn't need it
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    complaints = StderrComplaints()
    os.dup2(2, 1)
    request = read_request(sys.stdin.buffer)
    if request is None:
        return 0
    request, told = _nameable(request), str(request.paths[0])
    try:
        _answer(request, out, complaints)
    except BrokenPipeError:
        return 0
    except SourceError as error:
        write_message(out, {"error": str(error).replace(str(request.paths[0]), told)})
    except Exception as error:  # a traceback written here would be seen by nobody
        write_message(out, {"error": f"{told}: the decoder failed: {type(error).__name__}: {error}"})
    return 0


def _nameable(request: Request) -> Request:
    """The same request with names that OpenCV and decord take: they die of one that isn't UTF-8.

    Such a file is opened here, and named by its descriptor; images of a sequence are read without these libraries.
    """
    try:
        os.fspath(request.paths[0]).encode()
    except UnicodeEncodeError:
        if request.kind == "video":
            return replace(request, paths=(Path(f"/dev/fd/{os.open(request.paths[0], os.O_RDONLY)}"),))
    return request


def _answer(request: Request, out: BinaryIO, complaints: Complaints) -> None:
    _end_after(_PATIENCE_S + _bytes(request) / _SLOWEST_DISK)
    info = request.info or _examine(request, complaints)
    _end_after(0)
    if request.info is None:
        write_info(out, info)
    if request.selection is not None:
        _end_after(_PATIENCE_S)
        for index, image, cause in _pictures(request, info, request.selection.of(info.table.pts_s), complaints):
            _end_after(0)  # the pipeline may take as long as it likes
            head = {"index": index, "cause": cause, "shape": None if image is None else image.shape}
            write_message(out, head, *(() if image is None else (image,)))
            _end_after(_PATIENCE_S)
    write_message(out, {"end": True})


def _end_after(seconds: float) -> None:
    """Has this process ended by an alarm, as nothing else ends a library that hangs; 0 for not any more."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _bytes(request: Request) -> int:
    return sum(path.stat().st_size for path in request.paths if path.is_file())


def _examine(request: Request, complaints: Complaints) -> SourceInfo:
    if request.kind == "sequence":
        return examine_sequence(request.paths, request.fps)
    if is_webp(request.paths[0]):
        return examine_animation(request.paths[0])
    return examine(request.paths[0], request.decoder, complaints)


def _pictures(request: Request, info: SourceInfo, wanted: range, complaints: Complaints) -> Iterator[Picture]:
    if request.kind == "sequence":
        return sequence_pictures(request.paths, info, wanted)
    path, table = request.paths[0], info.table
    if is_webp(path):
        return animation_pictures(path, wanted)
    if info.decoder.startswith("decord"):
        _give_memory_back()
        at_once = frames_at_once(3 * info.width * info.height)
        return decord_pictures(path, table, wanted, complaints, at_once, info.converts)
    return opencv_pictures(path, table, wanted, complaints)


def _give_memory_back() -> None:
    """Have glibc return every freed picture at once: decord's come and go in bursts, and the heap keeps the highest.

    Measured on 30 groups of 12 frames of 1280×720: 281 MB above the start without, 101 MB with.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 1 << 18)


if __name__ == "__main__":
    sys.exit(main())
