"""Our dense forward compared with timm's, interleaved in one run: `python benchmarks/dense.py`.

Prints medians in milliseconds, their ratio pair by pair, the relative error, and MACs. Expected: ratio at most 1.05.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from deltascene.stages.backbone import create_backbone
from deltascene.stages.cost import blocks_macs, embed_macs
from deltascene.stages.rows import run_blocks

MODELS = (
    ("vit_small_patch14_dinov2", 518, (16, 22)),
    ("vit_small_patch16_224", 224, (14, 14)),
    ("deit3_small_patch16_224", 224, (14, 14)),
    ("vit_base_patch16_224", 224, (14, 14)),
)


def clock(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Milliseconds of a call, and its result."""
    began = time.perf_counter()
    out = call()
    return (time.perf_counter() - began) * 1e3, out


@torch.inference_mode()
def compare(name: str, img_size: int, grid_size: tuple[int, int], runs: int) -> str:
    """A row of the table."""
    torch.manual_seed(0)
    backbone = create_backbone(name, {"img_size": img_size})
    image = torch.randn(3, *(side * backbone.patch for side in grid_size))
    grid = backbone.grid((image.shape[1], image.shape[2]))
    positions = backbone.positions(grid)

    def ours() -> Tensor:
        x_ND = run_blocks(backbone.blocks, backbone.embed(image, positions), [backbone.depth])[backbone.depth]
        return backbone.final_norm(x_ND)

    timms = backbone.features()

    def theirs() -> Tensor:
        tokens: Tensor = timms(image[None])[0]
        return tokens

    times: list[tuple[float, float]] = []
    error = float((ours() - theirs()).norm() / theirs().norm())
    for number in range(runs):  # in alternating order
        pair = [clock(call)[0] for call in ((ours, theirs) if number % 2 else (theirs, ours))]
        times.append((pair[0], pair[1]) if number % 2 else (pair[1], pair[0]))
    mine, other = (statistics.median(side) for side in zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    macs = embed_macs(grid.patches, backbone.patch_macs()) + blocks_macs(
        backbone.block_shapes(), grid.tokens, grid.tokens
    )
    return f"| {name} | {grid.tokens} | {macs / 1e9:.2f} | {other:.1f} | {mine:.1f} | {ratio:.3f} | {error:.1e} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, {options.runs} interleaved pairs\n")
    print("| backbone | tokens | GMAC | timm ms | ours ms | ours / timm | relative error |")
    print("|---|---|---|---|---|---|---|")
    for name, img_size, grid_size in MODELS:
        print(compare(name, img_size, grid_size, options.runs), flush=True)


if __name__ == "__main__":
    main()
