"""Opens the pool of workers that a config asks for."""

from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.workers.pool import InlinePool, WorkerPool
from deltascene.pipeline.workers.ray_pool import RayPool
from deltascene.pipeline.workers.worker_local import LocalWorker


def open_pool(model: SceneModel, config: Config, *, allow_code: bool = False) -> WorkerPool:
    """Opens a pool: workers in a Ray cluster, or one in this process.

    Args:
        model: its description; a worker in this process also needs its weights.
        config: resolved config.
        allow_code: whether a bundle may bring its own head class.

    Raises:
        UsageError: the cluster can't be joined, or an actor can't compute as the config says.
        NoCapacity: no machine of the cluster has room.
        WorkerLost: actors died again and again.
    """
    if config.run.executor == "ray":
        return RayPool(model, config, allow_code=allow_code)
    return InlinePool(LocalWorker(model, config))
