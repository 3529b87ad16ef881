"""Where torch was imported first: OpenMP's threads spin as long as they did, and briefly while cores are shared."""

import os
import subprocess
import sys

import pytest
import torch

from deltascene.pipeline.numerics.core_watch import CoreWatch
from deltascene.pipeline.openmp import SETTINGS

PROGRAM = """
import torch
torch.set_num_threads(2)
import logging, threading, time
from deltascene.pipeline.numerics.core_watch import CoreWatch

def wasted():
    "Processor time of threads that wait for the next product, seconds."
    x = torch.ones(1 << 16)
    x.exp()
    began = time.process_time()
    for _ in range(25):
        x.exp()
        time.sleep(0.02)
    return time.process_time() - began

logging.basicConfig(format="%(message)s")
watch = CoreWatch()
before = wasted()
watch.judge(30)
assert not watch.crowded
watch.judge(100)
assert watch.crowded
shared = wasted()
watch.judge(30)  # not yet
assert watch.crowded
watch.judge(0)
assert not watch.crowded
watch.judge(100)
assert torch.get_num_threads() == 2
print(before, shared)
"""


def run(program, **variables):
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    return subprocess.run(
        [sys.executable, "-c", program], env=clean | variables, capture_output=True, text=True, timeout=120, check=True
    )


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's library is Linux's")
def test_threads_sleep_while_the_cores_are_shared():
    done = run(PROGRAM)
    before, shared = map(float, done.stdout.split())
    assert shared < before / 3, (before, shared)
    assert done.stderr.count("other programs want the cores of torch's threads") == 1
    assert "GOMP_SPINCOUNT=" in done.stderr


IMPORT = "from deltascene.pipeline.numerics.core_watch import CoreWatch\n"


@pytest.mark.parametrize(
    ("first", "crowded"),
    [
        ("import torch\ntorch.set_num_threads(2)\n", True),
        ("from deltascene import Engine\n", False),
        ("import torch, os\nos.environ['OMP_WAIT_POLICY'] = 'active'\n", False),
    ],
)
def test_only_a_process_whose_spins_arent_settled_is_watched(first, crowded):
    often = "watch = CoreWatch()\nwatch._looked_s, watch._switches = -1e6, -10**9\nwatch.look()\nprint(watch.crowded)"
    assert run(first + IMPORT + often).stdout == f"{crowded}\n"


def test_a_thread_alone_needs_no_second_team(one_thread):
    watch = CoreWatch()
    watch.judge(1000)
    assert torch.get_num_threads() == 1
    assert not watch.crowded
