"""Where a run computes when that is left open: `run.executor: auto`, settled once, before anything is computed.

Ray pays where it brings more machines, or where lanes of one thread each do more than one stream on all threads: that
is measured here, on dense frames, and only for work that is long enough to pay for its start.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Literal

import numpy as np
import torch

from deltascene.cache.places import Place
from deltascene.errors import DeltasceneError
from deltascene.pipeline.config import Config
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.sources.reader import probe, selected_frames
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.stages.types import Image

LONG_S = 300.0  # of local work, dense: below that Ray's start-up isn't worth a thought
WORTH = 1.15  # times as fast that lanes have to be
SMALL_BYTES = 4 << 20  # of all inputs together: not looked into, they are short
_PROBED = 5  # inputs that stand for all
_FRAMES = 4  # measured in each lane
_SIZE = 480, 640  # of a frame, where no input says


def settle_executor(engine: Engine, specs: Sequence[SourceSpec]) -> Engine:
    """An engine whose config says where to compute and with how many threads.

    Args:
        engine: as loaded; its model is kept.
        specs: what will be computed.
    """
    config = engine.config
    executor = _choose(engine, specs) if config.run.executor == "auto" else config.run.executor
    run = config.run.model_copy(update={"executor": executor})
    threads = config.numerics.threads or (1 if executor == "ray" else torch.get_num_threads())
    numerics = config.numerics.model_copy(update={"threads": threads})
    return Engine(engine.model, config.model_copy(update={"run": run, "numerics": numerics}))


def _choose(engine: Engine, specs: Sequence[SourceSpec]) -> Literal["local", "ray"]:
    config, cores = engine.config, len(os.sched_getaffinity(0))
    if config.run.cluster:
        return "ray"
    if cores // (config.numerics.threads or 1) < 2:
        return "local"
    if sum(_bytes(path) for spec in specs for path in spec.paths) < SMALL_BYTES:
        return "local"
    image = np.random.default_rng(0).integers(0, 255, (*_SIZE, 3), np.uint8)
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
