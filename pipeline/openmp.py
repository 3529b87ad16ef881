"""Sets how long OpenMP's threads spin before they sleep; its library reads that once, when torch loads it.

A thread that waits for another one spins, by default for some milliseconds, because waking it up takes longer than most
waits. Where another program uses the other thread's core, the first one spins through its time slice for nothing, in
every product: two threads beside two busy processes are many times slower than one. Sleeping at once
(`OMP_WAIT_POLICY=passive`) avoids that, but costs a quarter of the speed on a quiet machine. A short spin avoids both
(docs/decisions.md).
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SPINS = "1000"  # some tens of microseconds
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")  # of GNU's, Intel's and LLVM's library


@contextmanager
def brief_spins() -> Iterator[None]:
    """Makes the threads of an OpenMP library that is loaded in this context spin briefly.

    Nothing is changed where the user has a setting of their own, or where torch was imported before.
    """
    if "torch" in sys.modules or user_setting() is not None:
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = SPINS
    try:
        yield
    finally:
        del os.environ["GOMP_SPINCOUNT"]


def user_setting() -> str | None:
    """The user's setting in the environment, as NAME=VALUE; None if there is none."""
    found = (f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ)
    return next(found, None)


def torch_came_first() -> bool:
    """Whether torch was imported before this module, so that its OpenMP library couldn't be set."""
    names = list(sys.modules)  # in the order of their imports
    return "torch" in names and names.index("torch") < names.index(__name__)
