"""A pool of workers in a Ray cluster: joined or started, and sized to its processors."""

import logging
import os
import secrets
import socket
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

from deltascene.cache.keys import file_sha256
from deltascene.pipeline.bundles.bundle import packaged_models
from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.errors import NoCapacity, UsageError, WorkerLost
from deltascene.pipeline.numerics.settle import numerics_record
from deltascene.pipeline.workers.pool import ThreadedPool
from deltascene.pipeline.workers.ray_actors import ActorSetup
from deltascene.pipeline.workers.ray_folder import short_folder
from deltascene.pipeline.workers.worker import TRIES
from deltascene.pipeline.workers.worker_ray import RayWorker

_log = logging.getLogger(__name__)

_CONNECT_S = 10.0  # that connecting to a cluster may take


class RayPool(ThreadedPool):
    """Workers made of actors; a cluster on this machine is started if none is joined."""

    def __init__(self, model: SceneModel, config: Config, *, allow_code: bool = False) -> None:
        """Joins or starts a cluster, and starts the workers.

        Args:
            model: its description says what the actors load; it needs no weights.
            config: resolved config.
            allow_code: whether a bundle may bring its own head class.

        Raises:
            UsageError: there is no cluster at the address, or an actor can't compute as the config says.
            NoCapacity: no machine of the cluster has room.
            WorkerLost: actors died again and again.
        """
        import ray

        if (config.run.audit_every or isinstance(config.run.audit, float)) and config.run.placement == "split":
            raise UsageError(
                "audits: expected run.placement fused, or run.audit off without --audit-every; found split, where no"
                " actor has all that a frame needs"
            )
        _check_address(config.run.cluster)
        self._ray: Any = ray
        self._joined_here = not self._ray.is_initialized()
        self._folder: TemporaryDirectory[str] | None = None  # of the sockets of a cluster of our own
        if self._joined_here:
            where = {"address": config.run.cluster} if config.run.cluster else self._own_cluster()
            self._ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
        workers = self._start_workers(model, config, _setup_of(model, config, allow_code=allow_code))
        try:
            placed = _placed(workers)
        except BaseException:
            for worker in workers:
                worker.close()
            self._leave()
            raise
        super().__init__(placed)

    def close(self) -> None:
        """Closes all workers, and leaves a cluster that was joined here."""
        super().close()
        self._leave()

    def _own_cluster(self) -> dict[str, Any]:
        """Arguments that start a cluster of our own; without an address Ray would join whichever was started last."""
        _set_password()
        self._folder = short_folder(os.environ)
        own: dict[str, Any] = {"address": "local", "include_dashboard": False}
        return own if self._folder is None else {**own, "_temp_dir": self._folder.name}

    def _start_workers(self, model: SceneModel, config: Config, setup: ActorSetup) -> list[RayWorker]:
        """Starts as many workers as the config asks for, or as the cluster has processors for."""
        split = {task: sub.split for task, sub in model.sub_tasks.items()} if config.run.placement == "split" else {}
        here = [task for task in model.tasks if task not in split]
        cluster_cpus, threads = self._ray.cluster_resources()["CPU"], setup.numerics["threads"]
        computing = 1 + len(split)  # actors of a worker
        workers = config.run.workers or max(1, int(cluster_cpus // (computing * threads)))
        cpus = _share_of_cpus(cluster_cpus, threads, workers * computing)
        return [RayWorker(self._ray, setup, here, split, cpus) for _ in range(workers)]

    def _leave(self) -> None:
        if self._joined_here:
            self._ray.shutdown()
        if self._folder is not None:
            self._folder.cleanup()


def _setup_of(model: SceneModel, config: Config, *, allow_code: bool) -> ActorSetup:
    return ActorSetup(
        config=config,
        model=_model_anywhere(model, config),
        weights={file.name: file_sha256(file) for file in model.bundle.weight_files(model.tasks)},
        numerics=numerics_record(config),
        allow_code=allow_code,
    )


def _placed(workers: Sequence[RayWorker]) -> list[RayWorker]:
    """Waits for workers; those without room are closed with a warning, if others have it.

    Raises:
        UsageError: an actor can't compute as the run wants it.
        NoCapacity: none has room.
        WorkerLost: actors died again and again.
    """
    placed: list[RayWorker] = []
    for worker in workers:
        try:
            _wait_for(worker)
        except NoCapacity as error:
            if worker is workers[-1] and not placed:
                raise
            worker.close()
            _log.warning("only %d of %d workers have room in the cluster: %s", len(placed), len(workers), error)
        else:
            placed.append(worker)
    return placed


def _wait_for(worker: RayWorker) -> None:
    """Waits until a worker is ready; actors that die meanwhile are replaced, a few times."""
    for attempt in range(1, TRIES + 1):
        try:
            worker.ready() if attempt == 1 else worker.restore()
            return
        except WorkerLost:
            if attempt == TRIES:
                raise


def _set_password() -> None:
    """Gives a cluster of our own a password in this process's environment; Ray would write one into the user's home."""
    if not os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _check_address(address: str | None) -> None:
    """Connects to a cluster's address and closes the connection; Ray itself would try for minutes.

    Raises:
        UsageError: nothing listens there.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon:  # none, or a name that Ray knows, as `auto`
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(
            f"run.address: expected a Ray cluster at HOST:PORT; found none at {address} ({error}); ray start --head"
        ) from error


def _model_anywhere(model: SceneModel, config: Config) -> str:
    """The name that an actor finds the bundle by: as in the config, but a folder by its absolute path."""
    named, folder = config.model, model.bundle.folder
    return named if "://" in named or named in packaged_models() else str(folder.resolve())


def _share_of_cpus(cluster: float, threads: int, actors: int) -> float:
    """Processors that an actor that computes asks for: its threads, or an equal share where there are fewer."""
    if actors * threads <= cluster:
        return float(threads)
    share = cluster / actors
    return float(int(share)) if share >= 1 else round(share - 0.005, 2)
