"""A lock that no run wrote: it holds nobody off, and nobody waits for it."""

import json
import os
import socket

import pytest

from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.runs.lock import locked, writing


def test_a_lock_that_is_a_pipe_is_nobodys(tmp_path):
    (tmp_path / "locks").mkdir()
    os.mkfifo(tmp_path / "locks/00000003.json")
    assert not writing(tmp_path)
    with pytest.raises(OutputError, match=r"found a pipe or a device; remove it"), locked(tmp_path):
        pass


@pytest.mark.parametrize("pid", [-1, 0, None, [1], "1", 10**30])
def test_a_lock_of_no_process_is_taken_over(tmp_path, pid):
    note = {"token": "x", "pid": pid, "host": socket.gethostname()}
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks/00000003.json").write_text(json.dumps(note | {"beat_s": 1e12}))
    with locked(tmp_path):
        assert json.loads((tmp_path / "locks/00000004.json").read_text())["pid"] == os.getpid()
