"""Pools in a cluster that is smaller than asked for."""

import pytest

from deltascene.pipeline.errors import NoCapacity
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


def test_workers_without_room_are_closed_with_a_warning_each(caplog):
    workers = [Placed(True), Placed(False), Placed(True), Placed(False)]
    assert _placed(workers) == [workers[0], workers[2]]
    assert [worker.closed for worker in workers] == [False, True, False, True]
    texts = [f"only {count} of 4 workers have room in the cluster: found none within 3 s" for count in (1, 2)]
    assert caplog.messages == texts


def test_where_no_worker_has_room_that_is_the_error():
    with pytest.raises(NoCapacity, match="found none within 3 s"):
        _placed([Placed(False), Placed(False)])
