"""A script that uses the package ends as it should once it has said everything, also where the machine is busy."""

import io
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deltascene.pipeline.runs.ledger import SCHEMA, read_rows, write_rows

READER = """
import sys
from deltascene import open_run
run = open_run(sys.argv[1])
assert run["clip"].ledger().num_rows == run.ledger().num_rows
print("all said", flush=True)
"""

SCRIPT = """
import sys
from deltascene import Engine, open_run
engine = Engine.load(sys.argv[2], tasks=["parts"])
results = list(engine.run(sys.argv[3]))
run = open_run(sys.argv[1])
assert len(results) == len(run["clip"])
assert run["clip"].frame(1)["parts"].shape
assert run.ledger().num_rows
print("all said", flush=True)
"""


BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    pass"  # ends with its parent


@contextmanager
def busy_neighbours(count: int = 2) -> Iterator[None]:
    """Processes that never sleep."""
    children = [subprocess.Popen([sys.executable, "-S", "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


@pytest.fixture(scope="module")
def clip_and_run(run_cli, tiny, make_clip, tmp_path_factory) -> tuple[Path, Path]:
    clip, out = make_clip(4), tmp_path_factory.mktemp("runs") / "run"
    chosen = ["--tasks", "parts", "--save", "arrays", "--dtype", "float32", "--set", "numerics.threads=1"]
    code, _, error = run_cli("run", clip, "--model", tiny, "-o", out, *chosen)
    assert code == 0, error
    return clip, out


def test_no_thread_of_arrow_holds_what_was_read(tmp_path):
    """Held in a fifth of all reads, once; a thread that lets go of it while the interpreter ends aborts the process."""

    class File(io.BytesIO):
        """Takes weak references."""

    rows = [{"source": "clip", "index": index, "task": "parts", "seconds": 0.1} for index in range(40)]
    write_rows(tmp_path / "frames.parquet", rows)
    data, held = (tmp_path / "frames.parquet").read_bytes(), 0
    for _ in range(100):
        file = File(data)
        alive = weakref.ref(file)
        table = read_rows(file)
        del file
        held += alive() is not None
    assert held == 0
    assert table.schema == SCHEMA
    assert table["index"].to_pylist() == list(range(40))


@pytest.mark.parametrize(
    ("script", "runs"), [(READER, 5), pytest.param(SCRIPT, 50, marks=pytest.mark.nightly)], ids=["reader", "engine"]
)
def test_a_script_beside_busy_processes_ends_with_0(clip_and_run, tiny, script, runs):
    clip, out = clip_and_run
    with busy_neighbours():
        for _ in range(runs):
            done = subprocess.run(
                [sys.executable, "-c", script, str(out), tiny, str(clip)],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert (done.returncode, done.stdout, done.stderr) == (0, "all said\n", "")
