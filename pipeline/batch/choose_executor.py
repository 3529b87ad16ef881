"""Chooses where a run computes if `run.executor` is `auto`, once, before anything is computed.

Ray is faster where it brings more machines, or where several workers of one thread each compute more than one stream
does with all threads. The latter is measured here, on dense frames, and only if the run is long enough to make up for
the time that Ray takes to start.
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

LONG_S = 300.0  # seconds of local work, all frames dense: a shorter run doesn't make up for Ray's start
WORTH = 1.15  # several workers must be this many times as fast
SMALL_BYTES = 4 << 20  # of all inputs together; such inputs are short and aren't looked into
_PROBED = 5  # number of inputs that are looked into
_FRAMES = 4  # frames that each worker computes when it is measured
_SIZE = 480, 640  # height and width of a measured frame


def settle_executor(
    config: Config, specs: Sequence[SourceSpec], *, allow_code: bool = False
) -> tuple[Config, SceneModel]:
    """Chooses the executor and the number of threads, applies the latter to this process, and loads the model.

    Args:
        config: resolved config with settled numerics, except for threads.
        specs: inputs of the run.
        allow_code: whether a bundle may bring its own head class.

    Returns:
        The config with executor and threads. The model: with weights if this process computes; if actors do, only its
        shapes, checked against the headers of the weight files.

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
    """The shapes of a model; weights that an actor couldn't load are refused here."""
    bundle = read_bundle(config.model)
    tasks, merged = choose_tasks(bundle, config.tasks), config.numerics.delta == "merged"
    model = sketch_model(bundle, tasks, allow_code=allow_code, merged=merged)
    check_backbone_weights(bundle, model.backbone)
    for task, head in model.heads.items():
        check_task_weights(bundle, task, head)
    return model


def _choose(config: Config, specs: Sequence[SourceSpec], load: Callable[[], Engine]) -> Literal["local", "ray"]:
    """The faster executor; the model is loaded only if it has to be measured."""
    cores = len(os.sched_getaffinity(0))
    if config.run.cluster:
        return "ray"
    threads = config.numerics.threads or 1
    if cores // threads < 2:
        return "local"
    if sum(_bytes(path) for spec in specs for path in spec.paths) < SMALL_BYTES:
        return "local"
    engine, image = load(), np.random.default_rng(0).integers(0, 255, (*_SIZE, 3), np.uint8)
    if _frames(config, specs) * _whole_s(engine, image, frames=1) < LONG_S:
        return "local"
    whole_s, workers_s = _whole_s(engine, image, _FRAMES), _workers_s(engine, image, cores, threads)
    return "ray" if whole_s > WORTH * workers_s else "local"


def _bytes(path: Place) -> int:
    try:
        return int(path.stat().st_size)
    except OSError:
        return 0


def _frames(config: Config, specs: Sequence[SourceSpec]) -> float:
    """Approximate number of frames of all inputs, estimated from a few."""
    counts = []
    for spec in specs[:: max(1, len(specs) // _PROBED)][:_PROBED]:
        with suppress(DeltasceneError):
            how = config.source
            info = probe(spec, decoder=how.decoder, fps=how.fps, timeout_s=how.timeout_s)
            counts.append(len(selected_frames(config.source, info)))
    return len(specs) * float(np.mean(counts)) if counts else 0.0


def _whole_s(engine: Engine, image: Image, frames: int) -> float:
    """Seconds per dense frame of one stream with all threads."""
    stream = engine.open_stream("measured")
    stream(image)  # warms up
    began = time.perf_counter()
    for _ in range(frames):
        stream.reset()
        stream(image)
    return (time.perf_counter() - began) / frames


def _workers_s(engine: Engine, image: Image, cores: int, threads: int) -> float:
    """Seconds per dense frame of several streams at once, each with the threads of one worker."""
    workers = cores // threads
    numerics = engine.config.numerics.model_copy(update={"threads": threads})
    engine = Engine(engine.model, engine.config.model_copy(update={"numerics": numerics}))

    def work(number: int) -> None:
        stream = engine.open_stream(f"worker {number}")
        for _ in range(_FRAMES):
            stream.reset()
            stream(image)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))  # warms up
        began = time.perf_counter()
        list(pool.map(work, range(workers)))
        seconds = time.perf_counter() - began
    return seconds / (workers * _FRAMES)
