"""Benefit of packing the tasks of a stream into one product: `python benchmarks/packing.py`.

Times all blocks of a frame of the packaged model on the rows of one stream, in three ways. *Merged* is what the engine
does: the rows of every task are multiplied by its own dense weights, one task after the other. *Unpacked* keeps each
task's low-rank products in addition to the base's weights. *Packed* multiplies the rows of all tasks by the base's
weights in one product. Of the last two, a lower bound is printed (only the base's blocks), and the time with separate
low-rank products, which would take less inside of a block. Both leave out the tasks' own norms.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import torch
from speed import interleaved, place_threads
from torch import Tensor, nn

from deltascene.pipeline.bundles.bundle import Bundle, read_bundle
from deltascene.pipeline.bundles.scene_model import load_model, prepare_model
from deltascene.pipeline.config import load_config
from deltascene.pipeline.numerics.settle import settle
from deltascene.pipeline.versions import cpu_name
from deltascene.stages.backbone import Block
from deltascene.stages.delta import DeltaLinear
from deltascene.stages.folded import FoldedBlock, FoldedLinear
from deltascene.stages.rows import StreamRows, key_shapes, run_blocks
from deltascene.stages.scene_cache import SceneCache, allocate_cache

FRACTIONS = (0.02, 0.05, 0.1, 0.25)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=31, help="rounds")
    options = parser.parse_args()
    place_threads()
    torch.set_num_threads(2)
    numerics = settle(load_config(overrides=["numerics.kernel=compiled"])).numerics
    print(f"{cpu_name()}, {numerics.dtype}, 2 threads, medians of {options.runs} rounds, ms of all blocks of a frame\n")
    print("| rows | merged | unpacked, at least | and low-rank products | packed, at least | and low-rank products |")
    print("|---|---|---|---|---|---|")
    bundle = read_bundle("rooms")
    frame = Frame(bundle, getattr(torch, numerics.dtype), numerics)
    for fraction in FRACTIONS:
        ms = interleaved(frame.ways(fraction), options.runs)
        times = [ms["merged"], *(ms[way] + extra for way in ("unpacked", "packed") for extra in (0, ms["low-rank"]))]
        print(f"| {fraction:.0%} | {' | '.join(f'{spent:.2f}' for spent in times)} |", flush=True)


class Frame:
    """The packaged model's blocks, and a stream's scene caches for each way of computing them."""

    def __init__(self, bundle: Bundle, dtype: torch.dtype, numerics: object) -> None:
        tasks = tuple(bundle.entry.tasks)
        beside = load_model(bundle, tasks, merged=False).sub_tasks
        self.narrow = [narrow for sub in beside.values() for block in sub.blocks for narrow in low_rank(block, dtype)]
        model = prepare_model(load_model(bundle, tasks), numerics)  # type: ignore[arg-type]
        self.base, self.subs = list(model.backbone.blocks), model.sub_tasks
        self.grid = model.backbone.grid(bundle.entry.input.size)  # type: ignore[arg-type]
        self.width = model.backbone.width

    def ways(self, fraction: float) -> dict[str, Callable[[], object]]:
        """Functions that compute a share of the rows, by way."""
        rows = torch.randperm(self.grid.tokens, generator=torch.Generator().manual_seed(1))
        rows = rows[: round(fraction * self.grid.tokens)].sort().values
        x_RD = torch.randn(len(rows), self.width, generator=torch.Generator().manual_seed(2))
        own = [(self.base, self._cache(self.base))]
        own += [(sub.blocks, self._cache(sub.blocks)) for sub in self.subs.values()]
        same = [(self.base[sub.split :], self._cache(sub.blocks)) for sub in self.subs.values()]
        depth, splits = len(self.base), sorted({sub.split for sub in self.subs.values()})
        packed = [(self.base[: splits[0]], [own[0][1]])]
        for begin, end in zip(splits, [*splits[1:], depth], strict=True):
            running = 1 + sum(sub.split <= begin for sub in self.subs.values())
            packed.append((self.base[begin:end], [self._cache(self.base[begin:end]) for _ in range(running)]))
        return {
            "merged": partial(_in_turn, own, x_RD, rows),
            "unpacked": partial(_in_turn, [own[0], *same], x_RD, rows),
            "packed": partial(_together, packed, x_RD, rows),
            "low-rank": partial(_narrow, self.narrow, x_RD),
        }

    def _cache(self, blocks: Sequence[Block | FoldedBlock]) -> SceneCache:
        cache = allocate_cache(key_shapes(blocks), self.grid.tokens, self.width, ())
        run_blocks(
            blocks, torch.randn(self.grid.tokens, self.width), {len(blocks)}, stream_rows=[_part(None, cache, self)]
        )
        return cache


def low_rank(block: Block, dtype: torch.dtype) -> list[tuple[FoldedLinear, FoldedLinear]]:
    """A block's layers A and B of its low-rank products, prepared for the kernel."""
    deltas = [layer for layer in block.modules() if isinstance(layer, DeltaLinear)]
    return [(FoldedLinear(_layer(delta.A), dtype), FoldedLinear(_layer(delta.B), dtype)) for delta in deltas]


def _layer(weight_OI: Tensor) -> nn.Linear:
    layer = nn.Linear(weight_OI.shape[1], weight_OI.shape[0], bias=False)
    layer.weight = nn.Parameter(weight_OI.detach())
    return layer


def _part(rows: Tensor | None, cache: SceneCache, frame: Frame) -> StreamRows:
    return StreamRows(frame.grid.tokens if rows is None else len(rows), rows, cache)


@torch.inference_mode()
def _in_turn(own: Sequence[tuple[Sequence[Block], SceneCache]], x_RD: Tensor, rows: Tensor) -> None:
    for blocks, cache in own:
        run_blocks(blocks, x_RD, {len(blocks)}, stream_rows=[StreamRows(len(rows), rows, cache)])


@torch.inference_mode()
def _together(stages: Sequence[tuple[Sequence[Block], list[SceneCache]]], x_RD: Tensor, rows: Tensor) -> None:
    for blocks, caches in stages:
        stream_rows = [StreamRows(len(rows), rows, cache) for cache in caches]
        run_blocks(blocks, x_RD.repeat(len(caches), 1), {len(blocks)}, stream_rows=stream_rows)


@torch.inference_mode()
def _narrow(products: Sequence[tuple[FoldedLinear, FoldedLinear]], x_RD: Tensor) -> None:
    wide = torch.randn(len(x_RD), max(a.in_features for a, _ in products))
    inputs = {width: wide[:, :width].contiguous() for width in {a.in_features for a, _ in products}}
    for a, b in products:
        b(a(inputs[a.in_features]).contiguous())


if __name__ == "__main__":
    main()
