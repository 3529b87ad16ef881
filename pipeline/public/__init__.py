"""deltascene: dense video understanding that computes what changed, once, for every task.

from deltascene import Engine, open_run
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Engine", "Frame", "FrameResult", "NotPredicted", "Stream", "open_run"]

if TYPE_CHECKING:
    from deltascene.pipeline.engine import Engine, Stream
    from deltascene.pipeline.results import FrameResult
    from deltascene.pipeline.run_folder import NotPredicted, open_run
    from deltascene.stages.types import Frame

_HOMES = {
    "Engine": "deltascene.pipeline.engine",
    "FrameResult": "deltascene.pipeline.results",
    "Stream": "deltascene.pipeline.engine",
    "NotPredicted": "deltascene.pipeline.run_folder",
    "open_run": "deltascene.pipeline.run_folder",
    "Frame": "deltascene.stages.types",
}


def __getattr__(name: str) -> Any:  # PEP 562: `import deltascene` stays free of torch
    if name not in _HOMES:
        raise AttributeError(f"module 'deltascene' has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    from deltascene.pipeline.openmp import brief_spins

    with brief_spins():
        return getattr(import_module(_HOMES[name]), name)
