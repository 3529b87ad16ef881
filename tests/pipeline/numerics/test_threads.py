"""Threads of torch that share a core are noticed; those with one each aren't accused."""

import os
import subprocess
import sys

import pytest

from deltascene.pipeline.numerics.threads import way_out
from deltascene.pipeline.openmp import SETTINGS, SPINS

CODE = """
import os, torch
torch.set_num_threads({threads})
torch.ones(64, 64) @ torch.ones(64, 64)  # starts them
from deltascene.pipeline.numerics.threads import describe, seconds_lost
lost_s = seconds_lost()
print(lost_s)
print(describe(lost_s))
assert torch.get_num_threads() == {threads}
"""


def lost(threads, **environment):
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(threads=threads)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    seconds, text = done.stdout.splitlines()
    return float(seconds), text


def test_one_thread_waits_for_nobody():
    assert lost(1)[0] == 0


@pytest.mark.nightly  # a third process on that core makes it wait for minutes
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system can't place threads")
def test_two_threads_on_one_core_are_noticed():
    """Threads that spin while they wait, bound to the same place, as a full machine has them now and then."""
    core = min(os.sched_getaffinity(0))
    seconds, text = lost(2, OMP_PLACES=f"{{{core}}},{{{core}}}", OMP_PROC_BIND="true", OMP_WAIT_POLICY="active")
    assert seconds > 1e-3
    assert text.startswith("torch's 2 threads wait for each other, ")
    assert "OMP_PROC_BIND=true" in text
    assert f"GOMP_SPINCOUNT={SPINS} lets them sleep meanwhile, where OMP_WAIT_POLICY=active doesn't" in text


def test_the_way_out_isnt_what_is_set_already(monkeypatch):
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    assert way_out() == f"GOMP_SPINCOUNT={SPINS} lets them sleep meanwhile"
    with monkeypatch.context() as patch:
        patch.setenv("GOMP_SPINCOUNT", SPINS)
        assert way_out() == "numerics.threads=1 waits for nobody"
