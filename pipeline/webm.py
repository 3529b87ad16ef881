"""A video that browsers play, VP8 in WebM, written picture by picture."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from subprocess import Popen

from deltascene.pipeline.child_process import end_child, start_child
from deltascene.pipeline.errors import OutputError, WorkerLost
from deltascene.pipeline.lost import ADVICE
from deltascene.pipeline.wire import read_message, write_message
from deltascene.stages.types import Image

_FINEST_FPS = 100_000  # of a rate's denominator


@contextmanager
def webm_writer(path: Path, size: tuple[int, int], fps: float) -> Iterator[Callable[[Image, int], None]]:
    """Yields a function that writes an RGB picture [H, W, 3] so many times; the file appears when all are written.

    A process of its own encodes (see webm_child.py), about two pictures behind.

    Args:
        path: ends in `.webm`.
        size: height and width of the pictures, both even.
        fps: frames per second.

    Raises:
        OSError: the file can't be written.
        OutputError: the encoder failed.
        WorkerLost: somebody killed the encoder, as a system does that runs out of memory.
    """
    for left in path.parent.glob(f".{path.stem}.*.part.webm"):  # by a process that was killed while it drew
        left.unlink(missing_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part.webm")
    rate = Fraction(fps).limit_denominator(_FINEST_FPS)
    process = start_child("deltascene.pipeline.webm_child")
    try:
        _tell(process, path, {"path": str(partial), "size": size, "fps": str(rate)})
        yield lambda picture, count: _tell(process, path, {"count": count}, picture)
        _tell(process, path, {"end": True})
        _hear(process, path)
        os.replace(partial, path)
    finally:
        end_child(process)
        partial.unlink(missing_ok=True)


def _tell(process: Popen[bytes], path: Path, head: dict[str, object], *pictures: Image) -> None:
    assert process.stdin is not None
    try:
        write_message(process.stdin, head, *pictures)  # type: ignore[arg-type]
    except BrokenPipeError:
        _hear(process, path)
        raise


def _hear(process: Popen[bytes], path: Path) -> None:
    """The one answer of the encoder; an error is raised as if it had happened here."""
    assert process.stdout is not None
    answer = read_message(process.stdout)  # type: ignore[arg-type]
    if answer is None:
        code = process.wait()
        if code == -getattr(signal, "SIGKILL", 9):
            raise WorkerLost(f"{path}: its encoder was killed; if memory was the cause, {ADVICE}")
        raise OutputError(f"{path}: the encoder died (exit {code}); --set save.video=false runs without overlays")
    if errno := answer[0].get("errno"):
        raise OSError(errno, answer[0]["error"], str(path))
    if "error" in answer[0]:
        raise OutputError(f"{path}: {answer[0]['error']}; --set save.video=false runs without overlays")
