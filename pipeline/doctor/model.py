"""Check that a model loads and predicts, with its time beside that of timm's own forward."""

import time
from collections.abc import Callable

import numpy as np
import torch

from deltascene.errors import DeltasceneError
from deltascene.pipeline.bundles.bundle import packaged_models
from deltascene.pipeline.bundles.scene_model import load_model
from deltascene.pipeline.doctor.check import Check
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.units import duration, milliseconds
from deltascene.stages.preprocess import normalise, resize_frame

_FRAME_SIZE = (480, 640)
_REPEATS, _LONGEST_S = 5, 3.0
_SLOW = 1.5


def check_model_runs(model: str | None = None) -> list[Check]:
    """Loads a model and runs one frame through it, timed against timm's forward of the same backbone.

    Args:
        model: packaged name, folder or URL; None is the first packaged model.
    """
    name = model or next(iter(packaged_models()), None)
    if name is None:
        return [Check("model", "problem", "no packaged model in this installation", "reinstall deltascene")]
    begun = time.perf_counter()
    try:
        engine = Engine.load(name, "exact")
    except DeltasceneError as error:
        return [Check("model", "problem", str(error), "reinstall deltascene, or give the bundle what is missing")]
    loaded = time.perf_counter() - begun
    image = np.random.default_rng(0).integers(0, 256, (*_FRAME_SIZE, 3), np.uint8)
    stream = engine.open_stream("doctor")
    broken = [task for task, each in stream(image).predictions.items() if not np.isfinite(each.array).all()]
    if broken:
        return [Check("model", "problem", f"{name}: {', '.join(broken)} not finite", "report this table")]
    return [_timed(name, engine, image, loaded)]


def _timed(name: str, engine: Engine, image: np.ndarray, loaded: float) -> Check:
    stream = engine.open_stream("doctor")
    entry, plan = engine.model.bundle.entry, engine.plan(_FRAME_SIZE)
    features = load_model(engine.model.bundle, ()).backbone.features()
    ready = normalise(resize_frame(image, plan), entry.input.mean, entry.input.std)[None]

    def ours() -> None:
        stream.reset()
        stream(image)

    def timms() -> None:
        with torch.inference_mode():
            features(ready)

    timm_s, our_s = _least(timms), _least(ours)
    height, width = plan.model_size
    found = (
        f"{name}: loaded in {duration(loaded)}; a frame at {height}x{width} in {milliseconds(our_s)} with all heads, "
        f"timm's forward alone {milliseconds(timm_s)}"
    )
    if our_s > _SLOW * timm_s + 0.05:
        way_out = "other programs may have slowed it down; run doctor again when the machine is idle"
        return Check("model", "warning", found, way_out)
    return Check("model", "ok", found)


def _least(work: Callable[[], None]) -> float:
    """Shortest of several times in seconds, as other programs lengthen some; slow work is repeated less often."""
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < _LONGEST_S:
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)
