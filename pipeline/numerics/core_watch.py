"""Torch's threads in a process that imported torch first, so that deltascene couldn't shorten their spinning.

OpenMP reads its settings when its library is loaded. GNU's library lets a waiting thread spin a hundred times instead
of 300,000 times while it manages more threads than there are cores. So while other programs need the cores, a second
team of idle threads is kept. Neither the number of torch's threads nor any result changes.

Source: the manual of GNU libgomp, GOMP_SPINCOUNT.
"""

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable

import torch

from deltascene.pipeline.numerics.threads import way_out
from deltascene.pipeline.openmp import torch_came_first, user_setting

_LOOK_S = 0.1  # of the thread's processor time, between two looks
_CROWDED, _FREE = 50.0, 15.0  # interruptions a second of it: the second team comes, and goes
_WORK = 1 << 18  # elements of a tensor that is large enough for all of torch's threads

_log = logging.getLogger(__name__)


class CoreWatch:
    """Measures how often the computing thread is interrupted, and starts and ends the second team accordingly."""

    def __init__(self) -> None:
        self._active = torch_came_first() and user_setting() is None
        self._looked_s, self._switches, self._warned = time.thread_time(), _interruptions(), False
        self._release: weakref.finalize[..., CoreWatch] | None = None

    @property
    def crowded(self) -> bool:
        """Whether the second team is running."""
        return self._release is not None

    def look(self) -> None:
        """Measures from time to time; called after each frame, in the thread that computes."""
        now_s = time.thread_time()
        if not self._active or now_s - self._looked_s < _LOOK_S:
            return
        switches = _interruptions()
        rate = (switches - self._switches) / (now_s - self._looked_s)
        self._looked_s, self._switches = now_s, switches
        self.judge(rate)

    def judge(self, rate: float) -> None:
        """Starts or ends the second team.

        Args:
            rate: interruptions a second of processor time.
        """
        if self._release is not None:
            if rate < _FREE:
                self.close()
        elif rate > _CROWDED and torch.get_num_threads() > 1:
            self._release = weakref.finalize(self, _second_team())
            self._release.atexit = False
            if not self._warned:
                self._warned = True
                _log.warning(
                    "other programs want the cores of torch's threads, which wait for each other; "
                    "import deltascene.Engine before torch, or set before Python starts: %s",
                    way_out(),
                )

    def close(self) -> None:
        """Ends the second team."""
        if self._release is not None:
            self._release()
            self._release = None


def _interruptions() -> int:
    """Number of times that the system gave this thread's core to others; 0 where it isn't known."""
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
    except (ImportError, AttributeError):
        return 0


def _second_team() -> Callable[[], None]:
    """Starts threads until OpenMP manages more than there are cores; they sleep until the result is called."""
    others = torch.get_num_threads() - 1  # that OpenMP starts for each thread that computes with torch
    cores = len(os.sched_getaffinity(0))
    leaders, ended = (cores - 1) // others, threading.Event()
    started = threading.Barrier(max(1, leaders) + 1)

    def lead() -> None:
        torch.ones(_WORK).exp()
        started.wait()
        ended.wait()

    for _ in range(max(1, leaders)):
        threading.Thread(target=lead, name="second team", daemon=True).start()
    started.wait()
    return ended.set
