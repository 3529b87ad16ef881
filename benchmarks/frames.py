"""Time of frames that compute no rows: `python benchmarks/frames.py`.

Medians over the frames of made-up films, for the packaged model's four tasks at its own input size; the films take
turns. *still* has only noise, and its frames are held. In *moving*, textured objects move before a still background; in
*camera*, the camera pans; their frames are warped in between computed ones, by a flow that is searched in the whole
picture or in boxes around what moved. As elsewhere, `all` is the time of all stages without decoding, resizing and
writing; `call` is that of the whole call, with its bookkeeping. `fastest` is the fastest tenth of `all`: on a machine
that does other work, it is nearer to what a frame takes.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping

import cv2
import numpy as np

from deltascene import Engine
from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.results import FrameResult
from deltascene.pipeline.versions import cpu_name
from deltascene.stages.types import Image

FLOWS = ("afresh", "onward")
THRESHOLD = load_config().change.threshold
WARM_UP = 5  # frames
STAGES = ("mask", "flow", "warp")
NOISE = 1.5  # standard deviation in steps of 255
OBJECTS = ((16, 20, 76, 62, 3, 1), (96, 90, 54, 58, -4, 0), (50, 210, 72, 48, 0, 3))  # top, left, height, width, dx, dy
RULES = ("policy.every=3", "policy.max_age_s=9.0", "policy.camera_every=3", "policy.camera_s=9.0")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=240, help="of every film")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the config")
    options = parser.parse_args()
    rules = (*RULES, f"numerics.threads={options.threads}", *options.set)
    engines = {how: Engine.load("rooms", "balanced", overrides=[*rules, f"policy.flow={how}"]) for how in FLOWS}
    print(f"{cpu_name()}, {options.threads} threads, {options.frames} frames of each film, medians in ms\n")
    print(f"| film, flow | frames | patches moved | {' | '.join(STAGES)} | all | fastest | call |")
    print("|---|---|---|" + "---|" * (len(STAGES) + 3))
    for line in measure(engines, options.frames):
        print(line)


def measure(engines: Mapping[str, Engine], frames: int) -> Iterator[str]:
    """Lines of the table; the first engine also takes the still film."""
    first = next(iter(engines.values()))
    size = first.plan((480, 640)).model_size
    films = {("still", ""): (still(size), first)}
    for how, engine in engines.items():
        films |= {("moving", how): (moving(size), engine), ("camera", how): (camera(size), engine)}
    streams = {name: engine.open_stream(" ".join(name)) for name, (_, engine) in films.items()}
    taken: dict[tuple[str, str], list[tuple[float, FrameResult]]] = {name: [] for name in films}
    for number in range(frames):
        for name, (film, _) in films.items():
            picture = next(film)
            began = time.perf_counter()
            result = streams[name](picture)
            spent = time.perf_counter() - began
            if number > WARM_UP and result.policy == ("held" if name[0] == "still" else "warped"):
                taken[name].append((spent, result))
    for name, results in taken.items():
        share = statistics.median((result.record.change > THRESHOLD).mean() for _, result in results)
        by_stage = [1e3 * statistics.median(_seconds(result, stage) for _, result in results) for stage in STAGES]
        whole = [1e3 * (result.cost.seconds - _seconds(result, "preprocess")) for _, result in results]
        call = 1e3 * statistics.median(spent for spent, _ in results)
        measured = (*by_stage, statistics.median(whole), np.quantile(whole, 0.1), call)
        listed = " | ".join(f"{value:.2f}" for value in measured)
        about = ", ".join(filter(None, name))
        yield f"| {about} | {len(results)} {results[0][1].policy} | {share:.0%} | {listed} |"


def still(size: tuple[int, int]) -> Iterator[Image]:
    """A still scene with noise."""
    return _noisy(lambda number: _texture(size, 0), 1)


def moving(size: tuple[int, int]) -> Iterator[Image]:
    """Textured objects that move before a still background, to and fro."""
    ground = _texture(size, 0)
    things = [_texture((height, width), seed) for seed, (_, _, height, width, _, _) in enumerate(OBJECTS, 1)]

    def draw(number: int) -> Image:
        picture, swing = ground.copy(), 8 - abs(number % 32 - 16) * 1.0
        for thing, (top, left, height, width, dx, dy) in zip(things, OBJECTS, strict=True):
            y, x = (max(0, round(at + step * swing)) for at, step in ((top, dy), (left, dx)))
            there = picture[y : y + height, x : x + width]
            there[...] = thing[: there.shape[0], : there.shape[1]]
        return picture

    return _noisy(draw, 2)


def camera(size: tuple[int, int]) -> Iterator[Image]:
    """A camera that pans over a texture to and fro, with the objects of `moving` left out."""
    margin = 80
    wide = _texture((size[0] + margin, size[1] + margin), 4)

    def draw(number: int) -> Image:
        swing = abs(number % 32 - 16)
        top, left = 2 * swing, 5 * swing
        return wide[top : top + size[0], left : left + size[1]]

    return _noisy(draw, 3)


def _noisy(draw: Callable[[int], Image], seed: int) -> Iterator[Image]:
    """Pictures with noise of their own."""
    rng, number = np.random.default_rng(seed), 0
    while True:
        picture = draw(number).astype(np.float32)
        picture += rng.normal(0, NOISE, picture.shape).astype(np.float32)
        yield np.clip(np.rint(picture), 0, 255).astype(np.uint8)
        number += 1


def _texture(size: tuple[int, int], seed: int) -> Image:
    """Structure of all sizes, RGB [H, W, 3]."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.random((size[0] // side + 2, size[1] // side + 2, 3), np.float32), size[::-1]) * side**0.5
        for side in (4, 8, 16, 32, 64)
    ]
    return np.asarray(cv2.normalize(sum(layers), None, 25, 225, cv2.NORM_MINMAX), np.uint8)


def _seconds(result: FrameResult, stage: str) -> float:
    return sum(task.seconds.get(stage, 0.0) for task in result.cost.tasks.values())


if __name__ == "__main__":
    main()
