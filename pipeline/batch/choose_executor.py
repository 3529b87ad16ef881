"""Where a run computes when that is left open: `run.executor: auto`, settled once, before anything is computed.

Ray pays where it brings more machines, or where lanes of one thread each do more than one stream on all threads: that
is measured here, on dense frames, and only for work that is long enough to pay for its start.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from typing import Literal

import numpy as np
import torch

from deltascene.cache.places import Place
from deltascene.errors import DeltasceneError
from deltascene.pipeline.bundles.bundle import choose_tasks, read_bundle
from deltascene.pipeline.bundles.scene_model import SceneModel, check_backbone_weights, check_task_weights, sketch_model
from deltascene.pipeline.config import Config
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.numerics.settle import use_threads
from deltascene.pipeline.sources.reader import probe, selected_frames
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.stages.types import Image

LONG_S = 300.0  # of local work, dense: below that Ray's start-up isn't worth a thought
WORTH = 1.15  # times as fast that lanes have to be
SMALL_BYTES = 4 << 20  # of all inputs together: not looked into, they are short
_PROBED = 5  # inputs that stand for all
_FRAMES = 4  # measured in each lane
_SIZE = 480, 640  # of a frame, where no input says


def settle_executor(
    config: Config, specs: Sequence[SourceSpec], *, allow_code: bool = False
) -> tuple[Config, SceneModel]:
    """Where to compute and with how many threads, which this process is given, and the model that it needs there.

    Args:
        config: resolved config with settled numerics, threads apart.
        specs: what will be computed.
        allow_code: whether a bundle may bring its own head class.

    Returns:
        The config with both answered. The model: loaded where this process computes; where actors do, shapes alone,
        checked against the weights' headers.

    Raises:
        UsageError: unknown model or task, or weights that are missing or don't fit.
        StageError: the backbone or a head can't be built.
    """
    load = cache(partial(Engine.from_config, config, allow_code=allow_code))
    executor = _choose(config, specs, load) if config.run.executor == "auto" else config.run.executor
    run = config.run.model_copy(update={"executor": executor})
    threads = config.numerics.threads or (1 if executor == "ray" else torch.get_num_threads())
    numerics = config.numerics.model_copy(update={"threads": threads})
    model = _sketched(config, allow_code) if executor == "ray" else load().model
    config = config.model_copy(update={"run": run, "numerics": numerics})
    use_threads(config)
    return config, model


def _sketched(config: Config, allow_code: bool) -> SceneModel:
    """The shapes of a model; what would keep an actor from loading its weights is raised here."""
    bundle = read_bundle(config.model)
    tasks, merged = choose_tasks(bundle, config.tasks), config.numerics.delta == "merged"
    model = sketch_model(bundle, tasks, allow_code=allow_code, merged=merged)
    check_backbone_weights(bundle, model.backbone)
    for task, head in model.heads.items():
        check_task_weights(bundle, task, head)
    return model


def _choose(config: Config, specs: Sequence[SourceSpec], load: Callable[[], Engine]) -> Literal["local", "ray"]:
    """Where it is faster; the model is loaded only where that has to be measured."""
    cores = len(os.sched_getaffinity(0))
    if config.run.cluster:
        return "ray"
    if cores // (config.numerics.threads or 1) < 2:
        return "local"
    if sum(_bytes(path) for spec in specs for path in spec.paths) < SMALL_BYTES:
        return "local"
    engine, image = load(), np.random.default_rng(0).integers(0, 255, (*_SIZE, 3), np.uint8)
    if _frames(config, specs) * _whole_s(engine, image, frames=1) < LONG_S:
        return "local"
    return "ray" if _whole_s(engine, image, _FRAMES) > WORTH * _lanes_s(engine, image, cores) else "local"


def _bytes(path: Place) -> int:
    try:
        return int(path.stat().st_size)
    except OSError:
        return 0


def _frames(config: Config, specs: Sequence[SourceSpec]) -> float:
    """About how many frames there are, from a few inputs."""
    counts = []
    for spec in specs[:: max(1, len(specs) // _PROBED)][:_PROBED]:
        with suppress(DeltasceneError):
            how = config.source
            info = probe(spec, decoder=how.decoder, fps=how.fps, timeout_s=how.timeout_s)
            counts.append(len(selected_frames(config.source, info)))
    return len(specs) * float(np.mean(counts)) if counts else 0.0


def _whole_s(engine: Engine, image: Image, frames: int) -> float:
    """Seconds of a dense frame with all threads."""
    stream = engine.open_stream("measured")
    stream(image)  # warms up
    began = time.perf_counter()
    for _ in range(frames):
        stream.reset()
        stream(image)
    return (time.perf_counter() - began) / frames


def _lanes_s(engine: Engine, image: Image, cores: int) -> float:
    """Seconds a dense frame with as many streams at once as there are lanes, on few threads each."""
    before, threads = torch.get_num_threads(), engine.config.numerics.threads or 1
    lanes = cores // threads

    def lane(number: int) -> None:
        torch.set_num_threads(threads)
        stream = engine.open_stream(f"lane {number}")
        for _ in range(_FRAMES):
            stream.reset()
            stream(image)

    with ThreadPoolExecutor(lanes) as pool:
        list(pool.map(lane, range(lanes)))  # warms up
        began = time.perf_counter()
        list(pool.map(lane, range(lanes)))
        seconds = time.perf_counter() - began
    torch.set_num_threads(before)
    return seconds / (lanes * _FRAMES)
