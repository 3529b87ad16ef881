"""deltascene: dense video understanding that computes what changed, once, for every task.

from deltascene import Engine, open_run

All errors that a user can cause or fix are subclasses of `deltascene.DeltasceneError`; their tree is in
`deltascene.errors`.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "AlreadySealed",
    "BrokenSeal",
    "BundleError",
    "CacheError",
    "ConfigError",
    "DeltasceneError",
    "DiskFull",
    "EncoderFailed",
    "Engine",
    "ExitCode",
    "Frame",
    "FrameResult",
    "LabelsWrong",
    "LostWriter",
    "MeshUnusable",
    "MeshesMissing",
    "NoCapacity",
    "NoSuchStore",
    "NotArchived",
    "NotPredicted",
    "NothingDense",
    "OutputError",
    "Overtaken",
    "RoomImpossible",
    "RoomsError",
    "SourceError",
    "SourceNotFound",
    "StageError",
    "Stopped",
    "Stream",
    "UnfitDelta",
    "UnreadableSource",
    "UnsupportedBackbone",
    "UnsupportedHead",
    "UnsupportedKind",
    "UsageError",
    "WorkerLost",
    "WrongFingerprint",
    "WrongRecord",
    "open_run",
]

if TYPE_CHECKING:
    from deltascene.cache.errors import (
        AlreadySealed,
        BrokenSeal,
        CacheError,
        LostWriter,
        NoSuchStore,
        NotArchived,
        NothingDense,
        WrongFingerprint,
        WrongRecord,
    )
    from deltascene.errors import DeltasceneError, ExitCode
    from deltascene.pipeline.engine.engine import Engine, Stream
    from deltascene.pipeline.engine.results import FrameResult
    from deltascene.pipeline.errors import (
        BundleError,
        ConfigError,
        DiskFull,
        EncoderFailed,
        NoCapacity,
        OutputError,
        Overtaken,
        Stopped,
        UsageError,
        WorkerLost,
    )
    from deltascene.pipeline.runs.reader import NotPredicted, open_run
    from deltascene.pipeline.sources.errors import SourceError, SourceNotFound, UnreadableSource
    from deltascene.pipeline.training.rooms.errors import (
        LabelsWrong,
        MeshesMissing,
        MeshUnusable,
        RoomImpossible,
        RoomsError,
    )
    from deltascene.stages.errors import (
        StageError,
        UnfitDelta,
        UnsupportedBackbone,
        UnsupportedHead,
        UnsupportedKind,
    )
    from deltascene.stages.types import Frame

_NAMES_IN = {
    "deltascene.cache.errors": "AlreadySealed BrokenSeal CacheError LostWriter NoSuchStore NotArchived NothingDense"
    " WrongFingerprint WrongRecord",
    "deltascene.errors": "DeltasceneError ExitCode",
    "deltascene.pipeline.engine.engine": "Engine Stream",
    "deltascene.pipeline.errors": "BundleError ConfigError DiskFull EncoderFailed NoCapacity OutputError"
    " Overtaken Stopped UsageError WorkerLost",
    "deltascene.pipeline.engine.results": "FrameResult",
    "deltascene.pipeline.runs.reader": "NotPredicted open_run",
    "deltascene.pipeline.sources.errors": "SourceError SourceNotFound UnreadableSource",
    "deltascene.pipeline.training.rooms.errors": "LabelsWrong MeshUnusable MeshesMissing RoomImpossible RoomsError",
    "deltascene.stages.errors": "StageError UnfitDelta UnsupportedBackbone UnsupportedHead UnsupportedKind",
    "deltascene.stages.types": "Frame",
}
_HOMES = {name: module for module, names in _NAMES_IN.items() for name in names.split()}


def __getattr__(name: str) -> Any:  # PEP 562: `import deltascene` stays free of torch
    if name not in _HOMES:
        raise AttributeError(f"module 'deltascene' has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    from deltascene.pipeline.openmp import brief_spins

    with brief_spins():
        return getattr(import_module(_HOMES[name]), name)
