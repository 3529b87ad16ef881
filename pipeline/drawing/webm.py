"""Videos that browsers play, VP8 in WebM: written picture by picture, and joined from pieces.

FFmpeg's libraries do it in a process of their own, see pipeline/drawing/webm_main.py.
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

# A container's idea of its rate may be far off (1000 frames a second where times jitter), and the encoder spends its
# bits by it.
_SLOWEST, _FASTEST = 0.1, 120.0


class _WebmChild:
    """A process that makes one video.

    All that is asked of it may raise:
        OSError: the file can't be written.
        EncoderFailed: it can't do it, or died.
        WorkerLost: somebody killed it, as a system does that runs out of memory.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int] | None) -> None:
        self._path, self._process = path, start_child("deltascene.pipeline.drawing.webm_main", "in")
        self._stop = weakref.finalize(self, _give_up, self._process, path)
        rate = Fraction(min(max(fps, _SLOWEST), _FASTEST)).limit_denominator(10_000)
        self._tell({"path": str(path), "fps": str(rate), "size": size})

    def finish(self) -> None:
        """Waits until the video is whole; comes last."""
        self._tell({"end": True})
        self._hear()
        self._stop.detach()
        end_child(self._process)

    def close(self) -> None:
        """Gives up a video that wasn't finished; nothing is left of it."""
        self._stop()

    def _tell(self, head: dict[str, object], *blocks: NDArray[np.uint8]) -> None:
        assert self._process.stdin is not None
        try:
            write_message(self._process.stdin, head, *blocks)  # type: ignore[arg-type]
        except BrokenPipeError:
            self._hear()
            raise

    def _hear(self) -> None:
        """Its one answer; an error is raised as if it had happened here."""
        path, way_out = self._path, "--set save.video=false runs without overlays"
        assert self._process.stdout is not None
        answer = read_message(self._process.stdout)  # type: ignore[arg-type]
        if answer is None:
            code = self._process.wait()
            if code == -getattr(signal, "SIGKILL", 9):
                raise WorkerLost(f"{path}: its encoder was killed; if memory was the cause, {ADVICE}")
            raise EncoderFailed(f"{path}: the encoder died (exit {code}); {way_out}")
        if errno := answer[0].get("errno"):
            raise OSError(errno, answer[0]["error"], str(path))
        if "memory" in answer[0]:
            raise WorkerLost(f"{path}: its encoder ran out of memory; {ADVICE}")
        if "error" in answer[0]:
            raise EncoderFailed(f"{path}: {answer[0]['error']}; {way_out}")


def _give_up(process: Popen[bytes], path: Path) -> None:
    end_child(process)
    path.unlink(missing_ok=True)


class WebmWriter(_WebmChild):
    """Writes a video; its pictures are encoded while the next ones are drawn."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        """Starts the encoder.

        Args:
            path: a new file, ends in `.webm`.
            size: height and width of the pictures, both even.
            fps: about so many frames come a second.
        """
        super().__init__(path, fps, size)

    def write(self, picture: Image, at_ms: int) -> None:
        """Adds an RGB picture [H, W, 3], shown from a time in milliseconds on."""
        self._tell({"at_ms": at_ms}, picture)


def join_webm(path: Path, pieces: Iterable[tuple[bytes, Sequence[int]]], fps: float) -> Iterator[None]:
    """Joins videos of one size to a longer one, without encoding anything again.

    Args:
        path: a new file, ends in `.webm`.
        pieces: WebM files, and for each of their pictures when it is shown, in milliseconds.
        fps: about so many frames come a second.

    Yields:
        After every piece; the video is whole at the end.

    Raises:
        OSError: the file can't be written.
        EncoderFailed: it can't be done; a piece has another number of pictures.
        WorkerLost: somebody killed what does it.
    """
    with closing(_WebmChild(path, fps, None)) as child:
        for piece, at_ms in pieces:
            child._tell({"at_ms": list(at_ms)}, np.frombuffer(piece, np.uint8))
            yield
        child.finish()
