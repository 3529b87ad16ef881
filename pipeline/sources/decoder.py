"""The pipeline's side of a decoder process: starts it, reads its answers and ends it."""

import signal
import threading
import weakref
from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.errors import DeltasceneError
from deltascene.pipeline.errors import WorkerLost
from deltascene.pipeline.processes.child import end_child, start_child
from deltascene.pipeline.processes.lost import ADVICE
from deltascene.pipeline.processes.wire import read_message
from deltascene.pipeline.sources.errors import UnreadableSource
from deltascene.pipeline.sources.info import LARGEST_PICTURE, Picture, SourceInfo
from deltascene.pipeline.sources.messages import Request, parse_info, write_request

_MODULE = "deltascene.pipeline.sources.decoding"
_ALARM = getattr(signal, "SIGALRM", -1)  # a decoder sets this timer for itself, if the platform has it


class DecoderProcess:
    """A process that answers one request about one source.

    It decodes the next frame while the pipeline works on the current one, and holds one frame (or one short group of
    pictures).
    """

    def __init__(self, request: Request, timeout_s: float) -> None:
        """Starts the process.

        Args:
            request: the request.
            timeout_s: seconds after which a decoder without an answer counts as stuck and is ended.
        """
        self._name, self._timeout_s, self._stuck = str(request.paths[0]), timeout_s, False
        self._process = start_child(_MODULE, "out", {"OPENCV_IO_MAX_IMAGE_PIXELS": str(LARGEST_PICTURE)})
        self._stop = weakref.finalize(self, end_child, self._process)
        self._last = -1
        assert self._process.stdin is not None
        try:
            write_request(self._process.stdin, request)  # type: ignore[arg-type]
        except BrokenPipeError:
            return
        self._process.stdin.close()

    def info(self) -> SourceInfo:
        """The first answer, if the request contains no `SourceInfo`.

        Raises:
            UnreadableSource: no picture can be decoded.
        """
        head, block = self._answer()
        return parse_info(head["info"], block)

    def pictures(self) -> Generator[Picture, None, None]:
        """Pictures of the requested frames, in order.

        Raises:
            UnreadableSource: the decoder crashed on this file, or got stuck in it.
            WorkerLost: the process was killed, for example by a system that ran out of memory.
        """
        while True:
            head, block = self._answer()
            if "end" in head:
                self.close()
                return
            self._last = head["index"]
            image = None if head["shape"] is None else block.reshape(head["shape"])
            yield head["index"], image, head["cause"]

    def close(self) -> None:
        """Ends the process."""
        self._stop()

    def _answer(self) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        assert self._process.stdout is not None
        watch = threading.Timer(self._timeout_s, _give_up, [weakref.ref(self)])  # its thread ends a little later
        watch.daemon = True
        watch.start()
        try:
            message = read_message(self._process.stdout)  # type: ignore[arg-type]
        finally:
            watch.cancel()
        if message is None:
            raise self._death(self._process.wait())
        if "error" in message[0]:
            self.close()
            raise UnreadableSource(message[0]["error"])
        return message

    def end_as_stuck(self) -> None:
        """Ends a process that didn't answer in time; the reader that waits for it raises `UnreadableSource`."""
        self._stuck = True
        self._process.kill()

    def _death(self, code: int) -> DeltasceneError:
        """The error for a process that ended without an answer."""
        self.close()
        after = f"after frame {self._last}" if self._last >= 0 else "at once"
        if self._stuck:
            return UnreadableSource(
                f"{self._name}: the decoder was stuck {after}: nothing came for {self._timeout_s:g} s"
                " (source.timeout_s); leave it out or repair it"
            )
        if code == -_ALARM:  # the decoder's own timer for a single picture
            return UnreadableSource(f"{self._name}: the decoder hung and was ended {after}; leave it out or repair it")
        if code == -getattr(signal, "SIGKILL", 9):
            return WorkerLost(f"{self._name}: its decoder was killed {after}; if memory was the cause, {ADVICE}")
        return UnreadableSource(f"{self._name}: the decoder died {after} (exit {code}); leave it out or repair it")


def _give_up(decoder: "weakref.ref[DecoderProcess]") -> None:
    if (still_there := decoder()) is not None:
        still_there.end_as_stuck()
