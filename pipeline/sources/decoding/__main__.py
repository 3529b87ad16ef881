"""The decoder process: `python -m deltascene.pipeline.sources.decoding`, one request on stdin, answers on stdout.

Decoding happens apart from the pipeline because a file that crashes or hangs a decoder must cost that file only, and
because decoding then overlaps with work.
"""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from deltascene.pipeline.processes.wire import write_message
from deltascene.pipeline.sources.decoding.by_av import av_pictures
from deltascene.pipeline.sources.decoding.by_image import (
    animation_pictures,
    examine_animation,
    examine_sequence,
    is_webp,
    sequence_pictures,
)
from deltascene.pipeline.sources.decoding.by_others import judged_pictures, read_by
from deltascene.pipeline.sources.decoding.probe import examine
from deltascene.pipeline.sources.errors import SourceError
from deltascene.pipeline.sources.info import Picture, SourceInfo
from deltascene.pipeline.sources.messages import Request, read_request, write_info

_PATIENCE_S = 20.0  # for one picture
_SLOWEST_DISK = 5e6  # bytes a second, of looking at a whole file


def main() -> int:
    """Answers the request on stdin."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # for the pipeline, which ends this process when it doesn't need it
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    request = read_request(sys.stdin.buffer)
    if request is None:
        return 0
    request, told = _nameable(request), str(request.paths[0])
    try:
        _answer(request, out)
    except BrokenPipeError:
        return 0
    except SourceError as error:
        write_message(out, {"error": str(error).replace(str(request.paths[0]), told)})
    except Exception as error:  # a traceback written here would be seen by nobody
        write_message(out, {"error": f"{told}: the decoder failed: {type(error).__name__}: {error}"})
    return 0


def _nameable(request: Request) -> Request:
    """The same request with names that FFmpeg's bindings take: they refuse one that isn't UTF-8.

    Such a file is opened here, and named by its descriptor; images of a sequence are read without these libraries.
    """
    try:
        os.fspath(request.paths[0]).encode()
    except UnicodeEncodeError:
        if request.kind == "video":
            return replace(request, paths=(Path(f"/dev/fd/{os.open(request.paths[0], os.O_RDONLY)}"),))
    return request


def _answer(request: Request, out: BinaryIO) -> None:
    patience_s = _PATIENCE_S + _bytes(request) / _SLOWEST_DISK
    _end_after(patience_s)
    info = request.info or _examine(request, patience_s)
    _end_after(0)
    if request.info is None:
        write_info(out, info)
    if request.selection is not None:
        _end_after(_PATIENCE_S)
        gc.freeze()  # what is there by now stays, and needn't be looked at again
        for index, image, cause in _pictures(request, info, request.selection.of(info.table.pts_s)):
            _end_after(0)  # the pipeline may take as long as it likes
            head = {"index": index, "cause": cause, "shape": None if image is None else image.shape}
            write_message(out, head, *(() if image is None else (image,)))
            gc.collect()  # a frame of PyAV and its side data hold each other, and would stay for hundreds of frames
            _end_after(_PATIENCE_S)
    write_message(out, {"end": True})


def _end_after(seconds: float) -> None:
    """Has this process ended by an alarm, as nothing else ends a library that hangs; 0 for not any more."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _bytes(request: Request) -> int:
    return sum(path.stat().st_size for path in request.paths if path.is_file())


def _examine(request: Request, patience_s: float) -> SourceInfo:
    path = request.paths[0]
    if request.kind == "sequence":
        return examine_sequence(request.paths, request.fps)
    if is_webp(path):
        return examine_animation(path)
    info = examine(path, lambda: _end_after(patience_s))
    return info if request.decoder in ("auto", "av") else read_by(request.decoder, path, info)


def _pictures(request: Request, info: SourceInfo, wanted: range) -> Iterator[Picture]:
    path = request.paths[0]
    if request.kind == "sequence":
        return sequence_pictures(request.paths, info, wanted)
    if is_webp(path):
        return animation_pictures(path, wanted)
    if info.decoder.startswith("av"):
        return av_pictures(path, info, wanted, threads=request.threads)
    return judged_pictures(path, info, wanted)


if __name__ == "__main__":
    sys.exit(main())
