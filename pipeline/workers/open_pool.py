"""Which pool a config asks for."""

from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.workers.pool import InlinePool, WorkerPool
from deltascene.pipeline.workers.ray_pool import RayPool
from deltascene.pipeline.workers.worker_local import LocalWorker


def open_pool(model: SceneModel, config: Config, *, allow_code: bool = False) -> WorkerPool:
    """The lanes that a config asks for; those in this process need a loaded model."""
    if config.run.executor == "ray":
        return RayPool(model, config, allow_code=allow_code)
    return InlinePool(LocalWorker(model, config))
