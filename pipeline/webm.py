"""Videos that browsers play, VP8 in WebM: written picture by picture, and joined from pieces.

FFmpeg's libraries do it in a process of their own, see webm_child.py.
"""

import os
import signal
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from subprocess import Popen

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.child_process import end_child, start_child
from deltascene.pipeline.errors import OutputError, WorkerLost
from deltascene.pipeline.lost import ADVICE
from deltascene.pipeline.wire import read_message, write_message
from deltascene.stages.types import Image

_FINEST_FPS = 100_000  # of a rate's denominator


class _Child:
    """A process that makes one video; the file appears once it is whole."""

    def __init__(self, path: Path, fps: float, size: tuple[int, int] | None) -> None:
        for left in path.parent.glob(f".{path.stem}.*.part.webm"):  # by a process that was killed meanwhile
            left.unlink(missing_ok=True)
        self._path, self._partial = path, path.with_name(f".{path.stem}.{os.getpid()}.part.webm")
        self._process = start_child("deltascene.pipeline.webm_child")
        self._stop = weakref.finalize(self, _give_up, self._process, self._partial)
        rate = Fraction(fps).limit_denominator(_FINEST_FPS)
        self.tell({"path": str(self._partial), "fps": str(rate), "size": size})

    def tell(self, head: dict[str, object], *blocks: NDArray[np.uint8]) -> None:
        """Hands it something."""
        assert self._process.stdin is not None
        try:
            write_message(self._process.stdin, head, *blocks)  # type: ignore[arg-type]
        except BrokenPipeError:
            self._hear()
            raise

    def finish(self) -> None:
        """Waits for what it was handed."""
        self.tell({"end": True})
        self._hear()
        os.replace(self._partial, self._path)
        self.close()

    def close(self) -> None:
        """Ends it; a video that wasn't finished is gone."""
        self._stop()

    def _hear(self) -> None:
        """Its one answer; an error is raised as if it had happened here."""
        path, way_out = self._path, "--set save.video=false runs without overlays"
        assert self._process.stdout is not None
        answer = read_message(self._process.stdout)  # type: ignore[arg-type]
        if answer is None:
            code = self._process.wait()
            if code == -getattr(signal, "SIGKILL", 9):
                raise WorkerLost(f"{path}: its encoder was killed; if memory was the cause, {ADVICE}")
            raise OutputError(f"{path}: the encoder died (exit {code}); {way_out}")
        if errno := answer[0].get("errno"):
            raise OSError(errno, answer[0]["error"], str(path))
        if "error" in answer[0]:
            raise OutputError(f"{path}: {answer[0]['error']}; {way_out}")


def _give_up(process: Popen[bytes], partial: Path) -> None:
    end_child(process)
    partial.unlink(missing_ok=True)


class WebmWriter:
    """Writes a video; its pictures are encoded while the next ones are drawn.

    All that it does may raise:
        OSError: the file can't be written.
        OutputError: the encoder failed.
        WorkerLost: somebody killed the encoder, as a system does that runs out of memory.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        """Starts the encoder.

        Args:
            path: ends in `.webm`; the file appears when it is finished.
            size: height and width of the pictures, both even.
            fps: about so many frames come a second.
        """
        self._child = _Child(path, fps, size)

    def write(self, picture: Image, at_ms: int) -> None:
        """Adds an RGB picture [H, W, 3], shown from a time in milliseconds on."""
        self._child.tell({"at_ms": at_ms}, picture)

    def finish(self) -> None:
        """Waits for the encoder; comes last."""
        self._child.finish()

    def close(self) -> None:
        """Gives up a video that wasn't finished."""
        self._child.close()


def join_webm(path: Path, pieces: Iterable[tuple[bytes, Sequence[int]]], fps: float) -> Iterator[None]:
    """Joins videos of one size to a longer one, without encoding anything again.

    Args:
        path: ends in `.webm`; the file appears when it is whole.
        pieces: WebM files, and for each of their pictures when it is shown, in milliseconds.
        fps: about so many frames come a second.

    Yields:
        After every piece.

    Raises:
        OSError: the file can't be written.
        OutputError: it failed; a piece has another number of pictures.
        WorkerLost: somebody killed what does it.
    """
    with closing(_Child(path, fps, None)) as child:
        for piece, at_ms in pieces:
            child.tell({"at_ms": list(at_ms)}, np.frombuffer(piece, np.uint8))
            yield
        child.finish()
