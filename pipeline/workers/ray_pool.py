"""A pool of workers in a Ray cluster."""

import logging
import socket
import sys
from collections.abc import Sequence
from typing import Any

from deltascene.cache.keys import file_sha256
from deltascene.pipeline.bundles.bundle import packaged_models
from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.errors import NoCapacity, UsageError, WorkerLost
from deltascene.pipeline.numerics.settle import numerics_record
from deltascene.pipeline.workers.pool import TRIES, ThreadedPool
from deltascene.pipeline.workers.worker_ray import RayWorker

_ANSWERS_S = 10.0  # that a cluster may take to answer


class RayPool(ThreadedPool):
    """Lanes of actors; a cluster on this machine is started if none is joined."""

    def __init__(self, model: SceneModel, config: Config, *, allow_code: bool = False) -> None:
        """Joins or starts a cluster, and starts the lanes.

        Args:
            model: its description says what the actors load; it needs no weights.
            config: resolved config.
            allow_code: whether a bundle may bring its own head class.
        """
        import ray

        from deltascene.pipeline.workers import ray_actors

        if config.run.audit_every and config.run.placement == "split":
            raise UsageError("--audit-every: expected placement fused; with split no actor has all that a frame needs")
        _check_address(config.run.cluster)
        self._ray: Any = ray
        self._joined_here = not self._ray.is_initialized()
        if self._joined_here:
            # Without an address Ray would join whatever cluster was last started on this machine.
            own: dict[str, Any] = {"address": "local", "include_dashboard": False}
            where = {"address": config.run.cluster} if config.run.cluster else own
            self._ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
        split = {task: sub.split for task, sub in model.sub_tasks.items()} if config.run.placement == "split" else {}
        here = [task for task in model.tasks if task not in split]
        seat = ray_actors.ActorSetup(
            config=config,
            model=_model_anywhere(model, config),
            weights={file.name: file_sha256(file) for file in model.bundle.weight_files(model.tasks)},
            numerics=numerics_record(config),
            allow_code=allow_code,
        )
        cluster, each = self._ray.cluster_resources()["CPU"], 1 + len(split)
        lanes = config.run.workers or max(1, int(cluster // (each * seat.numerics["threads"])))
        cpus = _share_of_cpus(cluster, seat.numerics["threads"], lanes * each)
        made = [RayWorker(self._ray, seat, here, split, cpus) for _ in range(lanes)]
        try:
            placed = _placed(made)
        except BaseException:
            for lane in made:
                lane.close()
            self._leave()
            raise
        super().__init__(placed)

    def close(self) -> None:
        """As `WorkerPool.close`."""
        super().close()
        self._leave()

    def _leave(self) -> None:
        if self._joined_here:
            self._ray.shutdown()


def _placed(lanes: Sequence[RayWorker]) -> list[RayWorker]:
    """Lanes that are ready; those without room are closed, if others have it.

    Raises:
        UsageError: an actor can't compute as the run wants it.
        NoCapacity: none has room.
        WorkerLost: actors died again and again.
    """
    placed: list[RayWorker] = []
    for lane in lanes:
        try:
            _begin(lane)
        except NoCapacity as error:
            if lane is lanes[-1] and not placed:
                raise
            lane.close()
            lane_word = f"{len(placed)} of {len(lanes)} lanes"
            print(f"note: {lane_word} have room: {error}", file=sys.stderr)
        else:
            placed.append(lane)
    return placed


def _begin(lane: RayWorker) -> None:
    """Waits for a lane; actors that die meanwhile are replaced, a few times."""
    for attempt in range(1, TRIES + 1):
        try:
            lane.ready() if attempt == 1 else lane.restore()
            return
        except WorkerLost:
            if attempt == TRIES:
                raise


def _check_address(address: str | None) -> None:
    """Whether anybody listens at a cluster's address; Ray itself tries for minutes.

    Raises:
        UsageError: nobody does.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon:  # none, or a name that Ray knows, as `auto`
        return
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWERS_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(
            f"run.address: expected a Ray cluster at HOST:PORT; found none at {address} ({error}); ray start --head"
        ) from error


def _model_anywhere(model: SceneModel, config: Config) -> str:
    """What an actor finds the bundle by: as it was named, but a folder by its absolute path."""
    named, folder = config.model, model.bundle.folder
    return named if "://" in named or named in packaged_models() else str(folder.resolve())


def _share_of_cpus(cluster: float, threads: int, engines: int) -> float:
    """Processors that an engine or sub-task actor asks for: its threads, or an equal share where there are fewer."""
    if engines * threads <= cluster:
        return float(threads)
    share = cluster / engines
    return float(int(share)) if share >= 1 else round(share - 0.005, 2)
