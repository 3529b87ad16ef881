"""Time of computing some of the rows: `python benchmarks/speed.py`.

Four tables of medians, each measured in one interleaved run of all contenders: networks with random weights at fixed
fractions of rows, against timm's eager forward and OpenVINO; the packaged model's four tasks, against the baselines B1
(a network per task) and B2 (the bundle's own dense network); several streams packed, against one after the other; and
the time by stage. With and without the compiled kernel, if `deltascene doctor --build-kernels` has built it; in
bfloat16, if the processor has instructions for it, and in float32.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from deltascene import Engine  # before torch, so that its threads wait as they do in a run

# isort: split
import numpy as np
import torch
from baselines import Precision, by_openvino, by_torch, networks
from torch import Tensor

from deltascene.pipeline.bundles.scene_model import prepare_block
from deltascene.pipeline.config import NumericsConfig, load_config
from deltascene.pipeline.numerics.kernel import choose_kernel, kernel_file
from deltascene.pipeline.numerics.settle import settle
from deltascene.pipeline.versions import cpu_name
from deltascene.stages.backbone import Backbone, create_backbone
from deltascene.stages.packed import multiplies_bfloat16
from deltascene.stages.rows import StreamRows, key_shapes, run_blocks
from deltascene.stages.scene_cache import allocate_cache
from deltascene.stages.types import Image

FRACTIONS = (1.0, 0.25, 0.1, 0.05, 0.02)
FEW = (0.1, 0.05, 0.02)
STREAMS = (1, 2, 4, 8)
FRAME = (480, 640)
SHORT = {"float32": "f32", "bfloat16": "bf16"}
Contenders = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Way:
    """Kernel and dtype of the products."""

    kernel: str
    dtype: str

    @property
    def numerics(self) -> NumericsConfig:
        """The numerics of a config with this kernel and dtype."""
        overrides = [f"numerics.kernel={self.kernel}", f"numerics.dtype={self.dtype}"]
        return load_config(overrides=overrides).numerics

    def __str__(self) -> str:
        return f"{self.kernel} {SHORT[self.dtype]}"


@dataclass(frozen=True)
class Case:
    """A network at an input size."""

    name: str
    timm: str
    size: tuple[int, int]


CASES = (
    Case("S/14", "vit_small_patch14_dinov2", (224, 308)),
    Case("S/14", "vit_small_patch14_dinov2", (448, 616)),
    Case("B/16", "vit_base_patch16_224", (448, 576)),
)


def main() -> None:
    """Prints the tables."""
    options = _parser().parse_args()
    place_threads()
    torch.set_num_threads(options.threads)
    kernels = ["torch"] + (["compiled"] if choose_kernel("auto") == "compiled" else [])
    fast = multiplies_bfloat16() and settle(load_config()).numerics.dtype == "bfloat16"
    ways = [Way(kernel, dtype) for dtype in (["bfloat16"] if fast else []) + ["float32"] for kernel in kernels]
    if fast:
        ways.remove(Way("torch", "float32"))  # never chosen
    print(f"{cpu_name()}, torch {torch.__version__}, {options.threads} threads, medians of {options.runs} rounds")
    print(f"kernel: {kernel_file().stem if len(kernels) > 1 else 'not compiled'}")
    if not fast:
        print("float32 alone: this processor has no fast bfloat16 products")
    for part in options.parts:
        print(flush=True)
        {"networks": networks_table, "tasks": tasks_table, "streams": streams_table, "stages": stages_table}[part](
            options, ways, "bf16" if fast else "f32"
        )


def networks_table(options: argparse.Namespace, ways: list[Way], best: Precision) -> None:
    """Prints times of single networks by fraction of rows, with embedding and final norm."""
    print("| network, tokens | contender | ms | times faster than eager | than OpenVINO |\n|---|---|---|---|---|")
    for case in CASES:
        backbone = create_backbone(case.timm, {"img_size": case.size[0]})
        image = torch.randn(3, *case.size, generator=torch.Generator().manual_seed(0))
        tokens = backbone.grid(case.size).tokens
        contenders: dict[str, Callable[[], object]] = {}
        for eager in _precisions(best):
            features = create_backbone(case.timm, {"img_size": case.size[0]}).features()
            contenders[f"eager {eager}"] = partial(by_torch(features, eager), image[None])
        for precision in (*_precisions(best), "int8"):
            features = create_backbone(case.timm, {"img_size": case.size[0]}).features()
            contenders[f"OpenVINO {precision}"] = partial(
                by_openvino(features, image[None], options.threads, precision), image[None]
            )
        plain = backbone.blocks
        for way in ways:
            own = backbone.with_blocks([prepare_block(block, way.numerics) for block in plain])
            for fraction in FRACTIONS:
                contenders[f"{fraction:.0%} of the rows, {way}"] = _rows_of(own, image, fraction)
        ms = interleaved(contenders, options.runs)
        for name, spent in ms.items():
            ratios = f"{ms[f'eager {best}'] / spent:.1f} | {ms[f'OpenVINO {best}'] / spent:.1f}"
            print(f"| {case.name}, {tokens} | {name} | {spent:.1f} | {ratios} |", flush=True)


def tasks_table(options: argparse.Namespace, ways: list[Way], best: Precision) -> None:
    """Prints times of all tasks of the packaged model by share of changed patches, with mask and heads."""
    engine = Engine.load("rooms", "exact", overrides=["numerics.kernel=torch"])
    bundle, tasks = engine.model.bundle, engine.model.tasks
    plan = engine.plan(FRAME)
    grid = engine.model.backbone.grid(plan.model_size)
    image = torch.randn(1, 3, *plan.model_size, generator=torch.Generator().manual_seed(0))
    contenders: dict[str, Callable[[], object]] = {}
    for name, single in (("B1", True), ("B2", False)):
        dense = networks(bundle, tasks, grid, single_task=single)
        for precision in (*_precisions(best), "int8"):
            contenders[f"{name}, OpenVINO {precision}"] = partial(
                _each, [by_openvino(network, image, options.threads, precision) for network in dense], image
            )
        for eager in _precisions(best):
            own = networks(bundle, tasks, grid, single_task=single)  # by_torch changes its dtype
            contenders[f"{name}, eager {eager}"] = partial(_each, [by_torch(network, eager) for network in own], image)
    for way in ways:
        for fraction in FRACTIONS:
            contenders[f"{fraction:.0%} of the rows, {way}"] = _film_of(_engine(way, fraction), fraction)
    ms = interleaved(contenders, options.runs)
    baselines = [f"{name}, {by} {best}" for name in ("B1", "B2") for by in ("eager", "OpenVINO")]
    print(f"| four tasks, {grid.tokens} tokens | ms | {' | '.join(f'than {name}' for name in baselines)} |")
    print("|---|---|" + "---|" * len(baselines))
    for name, spent in ms.items():
        print(f"| {name} | {spent:.1f} | {' | '.join(f'{ms[other] / spent:.1f}' for other in baselines)} |")


def streams_table(options: argparse.Namespace, ways: list[Way], best: Precision) -> None:
    """Prints milliseconds per stream, for streams stepped together and one after the other."""
    print("| rows, kernel | streams | together | one by one | ratio |\n|---|---|---|---|---|")
    for way in ways:
        for fraction in FEW:
            contenders: dict[str, Callable[[], object]] = {}
            engine = _engine(way, fraction)
            for count in STREAMS:
                for how, run in (("together", _together), ("apart", _apart)):
                    names = [f"{count} {how} {number}" for number in range(count)]
                    films = {name: moving_patches(engine, fraction, seed) for seed, name in enumerate(names)}
                    contenders[f"{count} {how}"] = partial(run, engine, films)
            ms = interleaved(contenders, options.runs)
            for count in STREAMS:
                packed, alone = ms[f"{count} together"] / count, ms[f"{count} apart"] / count
                print(f"| {fraction:.0%}, {way} | {count} | {packed:.2f} | {alone:.2f} | {alone / packed:.2f} |")


def stages_table(options: argparse.Namespace, ways: list[Way], best: Precision) -> None:
    """Prints milliseconds of a frame by stage."""
    stages = ("preprocess", "mask", "embed", "blocks", "head")
    print(f"| rows, kernel | {' | '.join(stages)} | all | GMAC |\n|---|{'---|' * (len(stages) + 2)}")
    for way in ways:
        for fraction in (*FRACTIONS, 0.0):
            engine = _engine(way, fraction)
            stream, frames = engine.open_stream("film"), moving_patches(engine, fraction, 0)
            stream(next(frames))
            results = [stream(next(frames)) for _ in range(options.runs)]
            spent = {stage: 1e3 * statistics.median(_seconds(result, stage) for result in results) for stage in stages}
            whole = 1e3 * statistics.median(result.cost.seconds for result in results)
            gmac = statistics.median(result.cost.macs_executed for result in results) / 1e9
            listed = " | ".join(f"{value:.2f}" for value in (*spent.values(), whole, gmac))
            print(f"| {fraction:.0%}, {way} | {listed} |", flush=True)


def interleaved(contenders: Contenders, runs: int) -> dict[str, float]:
    """Median milliseconds of each contender; all run in every round, in rotating order."""
    names, seconds = list(contenders), {name: list[float]() for name in contenders}
    for number in range(runs + 1):  # the first round warms up
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            began = time.perf_counter()
            contenders[name]()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return {name: 1e3 * statistics.median(spent) for name, spent in seconds.items()}


def moving_patches(engine: Engine, fraction: float, seed: int) -> Iterator[Image]:
    """Pictures in which only a blob of patches, at a random place, changes from each to the next."""
    rng, (height, width) = np.random.default_rng(seed), engine.plan(FRAME).model_size
    patch = engine.model.backbone.patch
    rows, columns = height // patch, width // patch
    count = max(0, round(fraction * (rows * columns + 1)) - 1)
    picture = rng.integers(60, 180, (height, width, 3), np.uint8)
    while True:
        yield picture
        picture = picture.copy()
        down, across = (rng.integers(0, side) for side in (rows, columns))
        far = [(number // columns - down) ** 2 + (number % columns - across) ** 2 for number in range(rows * columns)]
        for number in np.argsort(far, kind="stable")[:count]:
            top, left = (side * patch for side in divmod(int(number), columns))
            square = picture[top : top + patch, left : left + patch]
            square[...] = np.where(square.mean() > 120, 70, 170)


def _precisions(best: Precision) -> list[Precision]:
    """float32, and bfloat16 where that is the best."""
    return ["f32"] if best == "f32" else ["f32", "bf16"]


def _engine(way: Way, fraction: float) -> Engine:
    rules = ["policy.every=1", "policy.refresh=100000", "policy.refresh_s=1000000.0", "policy.camera_share=1"]
    rules += ["policy.cut_share=1", "policy.light_step=10"]
    preset, rules = ("exact", []) if fraction == 1 else ("balanced", rules)
    return Engine.load(
        "rooms", preset, overrides=[*rules, f"numerics.kernel={way.kernel}", f"numerics.dtype={way.dtype}"]
    )


def _film_of(engine: Engine, fraction: float) -> Callable[[], object]:
    stream, frames = engine.open_stream("film"), moving_patches(engine, fraction, 0)
    stream(next(frames))
    return lambda: stream(next(frames))


def _together(engine: Engine, films: Mapping[str, Iterator[Image]]) -> object:
    return engine.step({name: next(frames) for name, frames in films.items()})


def _apart(engine: Engine, films: Mapping[str, Iterator[Image]]) -> object:
    return [engine.step({name: next(frames)}) for name, frames in films.items()]


def _each(run: list[Callable[[Tensor], object]], image: Tensor) -> object:
    return [network(image) for network in run]


def _rows_of(backbone: Backbone, image: Tensor, fraction: float) -> Callable[[], object]:
    """Function that computes some rows with a network, after a dense pass."""
    grid = backbone.grid((image.shape[1], image.shape[2]))
    positions = backbone.positions(grid)
    cache = allocate_cache(key_shapes(backbone.blocks), grid.tokens, backbone.width, ())
    count = round(fraction * grid.tokens) - grid.prefix
    which = torch.randperm(grid.patches, generator=torch.Generator().manual_seed(1))[:count].sort().values
    rows = torch.cat([torch.arange(grid.prefix), which + grid.prefix]) if fraction < 1 else None

    @torch.inference_mode()
    def run(rows: Tensor | None = rows) -> Tensor:
        from deltascene.stages.backbone import cut_patches

        cut = cut_patches(image, grid.patch)
        x_RD = backbone.embed_patches(cut if rows is None else cut[which], positions, None if rows is None else which)
        stream_rows = [StreamRows(len(x_RD), rows, cache)]
        return backbone.final_norm(
            run_blocks(backbone.blocks, x_RD, [backbone.depth], stream_rows=stream_rows)[backbone.depth]
        )

    run(None)
    return run


def _seconds(result: object, stage: str) -> float:
    return sum(task.seconds.get(stage, 0.0) for task in result.cost.tasks.values())  # type: ignore[attr-defined]


def place_threads() -> None:
    """Restarts the program with torch's threads bound to cores."""
    if "OMP_PROC_BIND" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_PROC_BIND": "true"})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["networks", "tasks", "streams", "stages"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--runs", type=int, default=9, help="rounds")
    parser.add_argument("--threads", type=int, default=2)
    return parser


if __name__ == "__main__":
    main()
