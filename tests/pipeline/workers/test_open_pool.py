"""Pools in a cluster that is smaller than asked for."""

import os

import pytest

from deltascene.pipeline.errors import NoCapacity
from deltascene.pipeline.workers.ray_pool import _placed, _set_password


class Placed:
    """A worker that has room, or none."""

    def __init__(self, room):
        self.room, self.closed = room, False

    def ready(self):
        if not self.room:
            raise NoCapacity("found none within 3 s")

    def close(self):
        self.closed = True


def test_workers_without_room_are_closed_with_a_warning_each(caplog):
    workers = [Placed(True), Placed(False), Placed(True), Placed(False)]
    assert _placed(workers) == [workers[0], workers[2]]
    assert [worker.closed for worker in workers] == [False, True, False, True]
    texts = [f"only {count} of 4 workers have room in the cluster: found none within 3 s" for count in (1, 2)]
    assert caplog.messages == texts


def test_where_no_worker_has_room_that_is_the_error():
    with pytest.raises(NoCapacity, match="found none within 3 s"):
        _placed([Placed(False), Placed(False)])


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_a_cluster_has_a_password_that_is_not_written_into_the_home(monkeypatch, name):
    for each in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(each, "")
        monkeypatch.delenv(each)
    _set_password()
    password = os.environ["RAY_AUTH_TOKEN"]
    assert len(password) == 64
    _set_password()  # for the next cluster of this process, whose clients keep the first one
    assert os.environ["RAY_AUTH_TOKEN"] == password
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv(name, "the user's")
    _set_password()
    assert os.environ[name] == "the user's"
    assert len(os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}) == 1
