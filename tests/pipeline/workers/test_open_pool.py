"""Pools as a run opens them: what a user should know of one is printed."""

import pytest

from deltascene.pipeline.errors import NoCapacity
from deltascene.pipeline.workers.pool import InlinePool
from deltascene.pipeline.workers.ray_pool import _placed


class Placed:
    """A worker that has room, or none."""

    def __init__(self, room):
        self.room, self.closed = room, False

    def ready(self):
        if not self.room:
            raise NoCapacity("found none within 3 s")

    def close(self):
        self.closed = True


def test_workers_without_room_are_closed_with_a_note_each():
    workers = [Placed(True), Placed(False), Placed(True), Placed(False)]
    placed, notes = _placed(workers)
    assert placed == [workers[0], workers[2]]
    assert [worker.closed for worker in workers] == [False, True, False, True]
    assert notes == [f"{count} of 4 workers have room: found none within 3 s" for count in (1, 2)]


def test_where_no_worker_has_room_that_is_the_error():
    with pytest.raises(NoCapacity, match="found none within 3 s"):
        _placed([Placed(False), Placed(False)])


def test_a_run_prints_the_notes_of_its_pool_as_errors(run_cli, tiny, make_clip, tmp_path, monkeypatch):
    monkeypatch.setattr(InlinePool, "notes", ("1 of 2 workers have room",))
    arguments = ["--model", tiny, "--executor", "local", "--save", "arrays", "--set", "archive.enabled=false"]
    code, text, error = run_cli("run", make_clip(3), "-o", tmp_path / "out", *arguments)
    assert code == 0, text + error
    assert "note: 1 of 2 workers have room\n" in error
    assert "have room" not in text
