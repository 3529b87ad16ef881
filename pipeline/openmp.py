"""How long OpenMP's threads wait for each other before they sleep, which its library reads once, when torch loads it.

A thread that waits for another one spins, by default for some milliseconds, because waking it up takes longer than most
waits. Where another program has the other one's core, it spins its time slice away in vain, product after product: two
threads beside two busy processes do a fraction of what one does. Sleeping at once (`OMP_WAIT_POLICY=passive`) mends
that, and costs a quarter of the speed on a quiet machine. Some spins lose neither (docs/decisions.md).
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SPINS = "1000"  # some tens of microseconds
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")  # of GNU's, Intel's and LLVM's library


@contextmanager
def brief_spins() -> Iterator[None]:
    """Has the threads of an OpenMP library that is loaded within it spin briefly.

    Nothing is changed where the user has a setting of their own, or where torch has loaded the library before.
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
    """What the environment says about waiting, as NAME=VALUE; None where it says nothing."""
    found = (f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ)
    return next(found, None)


def torch_came_first() -> bool:
    """Whether torch was imported before this module, so that nothing could be said to its OpenMP library."""
    names = list(sys.modules)  # in the order of their imports
    return "torch" in names and names.index("torch") < names.index(__name__)
