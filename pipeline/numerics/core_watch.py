"""Torch's threads in a process that loaded them before deltascene could say how briefly they should spin.

OpenMP's settings are read when its library is loaded. Where a program imports torch first, only the library's own
rule helps: GNU's lets a thread spin a hundred times instead of 300,000 as long as it manages more threads than there
are cores. So a second team of threads is kept, which does nothing, while other programs want the cores. Neither the
number of torch's threads nor a result changes.

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
_WORK = 1 << 18  # numbers that torch spreads over its threads

_log = logging.getLogger(__name__)


class CoreWatch:
    """Looks now and then how often the thread that computes was interrupted, and keeps the second team meanwhile."""

    def __init__(self) -> None:
        self._active = torch_came_first() and user_setting() is None
        self._looked_s, self._switches, self._told = time.thread_time(), _interruptions(), False
        self._release: weakref.finalize[..., CoreWatch] | None = None

    @property
    def crowded(self) -> bool:
        """Whether the second team is there."""
        return self._release is not None

    def look(self) -> None:
        """Call it after a frame, in the thread that computes."""
        now_s = time.thread_time()
        if not self._active or now_s - self._looked_s < _LOOK_S:
            return
        switches = _interruptions()
        rate = (switches - self._switches) / (now_s - self._looked_s)
        self._looked_s, self._switches = now_s, switches
        self.judge(rate)

    def judge(self, rate: float) -> None:
        """Has the second team come or go.

        Args:
            rate: interruptions a second of processor time.
        """
        if self._release is not None:
            if rate < _FREE:
                self.close()
        elif rate > _CROWDED and torch.get_num_threads() > 1:
            self._release = weakref.finalize(self, _second_team())
            self._release.atexit = False
            if not self._told:
                self._told = True
                _log.warning(
                    "other programs want the cores of torch's threads, which wait for each other; "
                    "import deltascene.Engine before torch, or set before Python starts: %s",
                    way_out(),
                )

    def close(self) -> None:
        """Lets the second team go."""
        if self._release is not None:
            self._release()
            self._release = None


def _interruptions() -> int:
    """How often the system gave this thread's core to others; 0 where it doesn't say."""
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
    except (ImportError, AttributeError):
        return 0


def _second_team() -> Callable[[], None]:
    """Starts threads until OpenMP manages more than there are cores; they sleep until what is returned is called."""
    others = torch.get_num_threads() - 1  # that come with a thread that has torch compute something
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
