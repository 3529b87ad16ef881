"""Choice of the type in which blocks multiply on this machine; with `auto` it is measured.

Processors with AVX512-BF16 or AMX multiply bfloat16 two to four times as fast as float32; others that support the type
are slower with it.
"""

import time
from typing import Literal

import torch

from deltascene.pipeline.bundles.scene_model import prepare_block
from deltascene.pipeline.config import NumericsConfig
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.numerics.kernel import multiplies_bfloat16 as kernel_multiplies_bfloat16
from deltascene.stages.backbone import Block
from deltascene.stages.packed import multiplies_bfloat16
from deltascene.stages.rows import StreamRows, run_block

Dtype = Literal["float32", "bfloat16"]

_WIDTH, _HEADS, _ROWS = 384, 6, 64
_REPEATS = 8
_WORTH = 1.3  # smallest speed-up at which bfloat16 is chosen; in practice it is 2 or more, or below 1


def choose_dtype(numerics: NumericsConfig) -> Dtype:
    """The type in which blocks multiply.

    Args:
        numerics: numerics whose kernel is settled and loaded.

    Raises:
        UsageError: bfloat16 was requested, and this processor or its kernel can't multiply it.
    """
    if numerics.dtype == "float32":
        return "float32"
    able = kernel_multiplies_bfloat16() if numerics.kernel == "compiled" else multiplies_bfloat16()
    if numerics.dtype == "bfloat16":
        if not able:
            raise UsageError(
                "numerics.dtype: expected float32, as this processor has no products of bfloat16 for "
                f"numerics.kernel={numerics.kernel}; found bfloat16"
            )
        return "bfloat16"
    return "bfloat16" if able and _times_as_fast(numerics) > _WORTH else "float32"


def _times_as_fast(numerics: NumericsConfig) -> float:
    """Speed-up of a block in bfloat16, measured on one thread, as waiting threads would hide it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            plain = Block(_WIDTH, _HEADS, qkv_bias=True).eval()
        seconds = [_seconds(plain, numerics.model_copy(update={"dtype": dtype})) for dtype in ("float32", "bfloat16")]
    finally:
        torch.set_num_threads(threads)
    return seconds[0] / seconds[1]


@torch.inference_mode()
def _seconds(plain: Block, numerics: NumericsConfig) -> float:
    block, x_RD = prepare_block(plain, numerics), torch.ones(_ROWS, _WIDTH)
    spent = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        run_block(block, x_RD, [StreamRows(_ROWS)])
        spent.append(time.perf_counter() - began)
    return min(spent)
