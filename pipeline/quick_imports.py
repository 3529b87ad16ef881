"""The first import of the large libraries, in two thirds of the time, and a quick end of the process after it."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from deltascene.pipeline.openmp import brief_spins


@contextmanager
def quick_imports() -> Iterator[None]:
    """Has Python's garbage collector leave alone what is imported here, now and for ever.

    torch and timm make some 400,000 objects that live as long as the process. The collector would go through them again
    and again while they are made (1.4 s of 4.5 s on two cores of an AMD EPYC), and twice at its end (1.2 s of 1.5 s).
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        with brief_spins():
            yield
    finally:
        gc.freeze()
        gc.enable()
