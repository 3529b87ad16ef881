"""Memory of an engine: `python benchmarks/memory.py`.

Steps four streams together for 10,000 frames and prints the resident memory, which must not grow, and the size of a
stream's state, compared with the formula of docs/benchmarks.md.
"""

import argparse
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import psutil
import torch

from deltascene.pipeline.engine.engine import Engine
from deltascene.stages.scene_cache import padded_tokens
from deltascene.stages.types import Image

FRAME = (480, 640)


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=4)
    options = parser.parse_args()
    engine = Engine.load("rooms", "balanced")
    films = {f"camera {number}": film(number) for number in range(options.streams)}
    process, steps = psutil.Process(), options.frames // options.streams
    print("| frames | resident MB |\n|---|---|")
    for number in range(steps):
        engine.step({name: next(frames) for name, frames in films.items()})
        if (number + 1) % max(1, steps // 10) == 0:
            print(f"| {(number + 1) * options.streams} | {process.memory_info().rss / 1e6:.0f} |", flush=True)
    held, expected = held_bytes(engine, "camera 0"), expected_bytes(engine)
    print("\n| a stream carries | MB | formula | ratio |\n|---|---|---|---|")
    for part in held:
        print(f"| {part} | {held[part] / 1e6:.2f} | {expected[part] / 1e6:.2f} | {held[part] / expected[part]:.3f} |")


def film(seed: int) -> Iterator[Image]:
    """Frames of a square that moves over a still picture, without end."""
    rng = np.random.default_rng(seed)
    picture, place = rng.integers(60, 180, (*FRAME, 3), np.uint8), np.array([200, 300])
    while True:
        frame = picture.copy()
        top, left = place
        frame[top : top + 60, left : left + 60] = (240, 40, 90)
        yield frame
        place = np.clip(place + rng.integers(-12, 13, 2), 0, (FRAME[0] - 60, FRAME[1] - 60))


def held_bytes(engine: Engine, name: str) -> dict[str, int]:
    """Bytes of a stream's state between frames, of the base and by task."""
    state = engine._streams[name]._state
    tasks = {task: sum(_buffers(of).values()) for task, of in state.tasks.items()}
    return {"base": sum(_buffers(state).values()) - sum(tasks.values()), **tasks}


def expected_bytes(engine: Engine) -> dict[str, int]:
    """Bytes by the formula: keys and values of the blocks, pixels and their cells, cells and outputs of each head.

    Pixels are those of the last computed and, where a moving camera is told from there, of the last dense frame, in
    colours and grey.
    """
    model, plan = engine.model, engine.plan(FRAME)
    grid = model.backbone.grid(plan.model_size)
    height, width = plan.model_size
    kept = padded_tokens(grid.tokens) + grid.tokens  # keys in whole panels, values
    block = (2 if engine.config.numerics.dtype == "bfloat16" else 4) * model.backbone.width * kept
    quantities = 3 * round(grid.patch / engine.config.change.cell_px) ** 2
    positions = 4 * model.backbone.width * grid.tokens
    pictures = 2 if engine.config.policy.camera_from == "dense" else 1
    pixels = pictures * (3 + 1) * height * width + 2 * 4 * grid.patches * quantities
    expected = {"base": model.base_depth * block + pixels + positions}
    for task in model.tasks:
        kind, head, sub = model.bundle.kinds[task], model.heads[task], model.sub_tasks.get(task)
        blocks = 0 if sub is None else max(model.bundle.entry.tasks[task].taps) - sub.split
        cells = 4 * grid.patches * kind.channels * head.side**2
        shown = 1 if kind.activation == "argmax" else 4 * kind.channels
        expected[task] = blocks * block + cells + height * width * shown
    return expected


def _buffers(thing: Any) -> dict[int, int]:
    """Bytes of every tensor and array in a state, once each, by address."""
    if isinstance(thing, torch.Tensor):
        return {thing.untyped_storage().data_ptr(): thing.untyped_storage().nbytes()}
    if isinstance(thing, np.ndarray):
        owner = thing if thing.base is None else thing.base
        return {id(owner): thing.nbytes}
    if is_dataclass(thing) and not isinstance(thing, type):
        made = vars(thing) if hasattr(thing, "__dict__") else {}  # with what it keeps besides its fields
        inside = list(made.values()) or [getattr(thing, part.name) for part in fields(thing)]
    elif isinstance(thing, dict):
        inside = list(thing.values())
    elif isinstance(thing, list | tuple):
        inside = list(thing)
    else:
        return {}
    found: dict[int, int] = {}
    for part in inside:
        found |= _buffers(part)
    return found


if __name__ == "__main__":
    main()
