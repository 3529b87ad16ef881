"""The collector leaves imports alone, and works as before after them."""

import subprocess
import sys

PROGRAM = """
import gc
from deltascene.pipeline.quick_imports import quick_imports
with quick_imports():
    assert not gc.isenabled()
    import torch
assert gc.isenabled()
assert gc.get_freeze_count() > 50_000
frozen = gc.get_freeze_count()
with quick_imports():  # nothing large is left to import
    assert gc.isenabled()
assert gc.get_freeze_count() == frozen
"""


def test_imports_are_frozen_once_and_the_collector_goes_on():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=120)
