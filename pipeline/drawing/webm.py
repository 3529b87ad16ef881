"""Writes videos that browsers play, VP8 in WebM: picture by picture, or joined from pieces.

A child process encodes with FFmpeg's libraries, see pipeline/drawing/webm_main.py.
"""

import signal
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from subprocess import Popen

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.errors import EncoderFailed, WorkerLost
from deltascene.pipeline.processes.child import end_child, start_child
from deltascene.pipeline.processes.lost import ADVICE
from deltascene.pipeline.processes.wire import read_message, write_message
from deltascene.stages.types import Image

# The rate that a container states may be far off (1000 frames a second where times jitter), and the encoder derives its
# bit rate from it.
_SLOWEST, _FASTEST = 0.1, 120.0


class _WebmChild:
    """A process that makes one video.

    All methods but `close` may raise:
        OSError: the file can't be written.
        EncoderFailed: the process failed or died.
        WorkerLost: the process was killed, as by a system that runs out of memory.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int] | None) -> None:
        self._path, self._process = path, start_child("deltascene.pipeline.drawing.webm_main", "in")
        self._stop = weakref.finalize(self, _give_up, self._process, path)
        rate = Fraction(min(max(fps, _SLOWEST), _FASTEST)).limit_denominator(10_000)
        self._send({"path": str(path), "fps": str(rate), "size": size})

    def finish(self) -> None:
        """Waits until the video is complete; must be the last call."""
        self._send({"end": True})
        self._receive()
        self._stop.detach()
        end_child(self._process)

    def close(self) -> None:
        """Gives up a video that wasn't finished, and removes its file."""
        self._stop()

    def _send(self, head: dict[str, object], *blocks: NDArray[np.uint8]) -> None:
        assert self._process.stdin is not None
        try:
            write_message(self._process.stdin, head, *blocks)  # type: ignore[arg-type]
        except BrokenPipeError:
            self._receive()
            raise

    def _receive(self) -> None:
        """Reads the process's one answer, and raises the error that it reports."""
        path, advice = self._path, "--set save.video=false runs without overlays"
        assert self._process.stdout is not None
        answer = read_message(self._process.stdout)  # type: ignore[arg-type]
        if answer is None:
            code = self._process.wait()
            if code == -getattr(signal, "SIGKILL", 9):
                raise WorkerLost(f"{path}: its encoder was killed; if memory was the cause, {ADVICE}")
            raise EncoderFailed(f"{path}: the encoder died (exit {code}); {advice}")
        if errno := answer[0].get("errno"):
            raise OSError(errno, answer[0]["error"], str(path))
        if "memory" in answer[0]:
            raise WorkerLost(f"{path}: its encoder ran out of memory; {ADVICE}")
        if "error" in answer[0]:
            raise EncoderFailed(f"{path}: {answer[0]['error']}; {advice}")


def _give_up(process: Popen[bytes], path: Path) -> None:
    end_child(process)
    path.unlink(missing_ok=True)


class WebmWriter(_WebmChild):
    """Writes a video; pictures are encoded while the next ones are drawn."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        """Starts the encoder.

        Args:
            path: a new file, ends in `.webm`.
            size: height and width of the pictures, both even.
            fps: approximate frames per second.
        """
        super().__init__(path, fps, size)

    def write(self, picture: Image, at_ms: int) -> None:
        """Adds an RGB picture [H, W, 3] that is shown from a time in milliseconds on."""
        self._send({"at_ms": at_ms}, picture)


def join_webm(path: Path, pieces: Iterable[tuple[bytes, Sequence[int]]], fps: float) -> Iterator[None]:
    """Joins videos of one size to a longer one, without encoding anything again.

    Args:
        path: a new file, ends in `.webm`.
        pieces: WebM files, each with the times at which its pictures are shown, in milliseconds.
        fps: approximate frames per second.

    Yields:
        None after every piece; the video is complete at the end.

    Raises:
        OSError: the file can't be written.
        EncoderFailed: joining failed, as where a piece has another number of pictures.
        WorkerLost: the process was killed.
    """
    with closing(_WebmChild(path, fps, None)) as child:
        for piece, at_ms in pieces:
            child._send({"at_ms": list(at_ms)}, np.frombuffer(piece, np.uint8))
            yield
        child.finish()
