"""The base transformer of a frame: embedded tokens in, residual stream at the taps out."""

from collections.abc import Iterable

from torch import Tensor

from deltascene.stages.backbone import Backbone
from deltascene.stages.rows import run_block


def run_base(backbone: Backbone, x_ND: Tensor, taps: Iterable[int]) -> dict[int, Tensor]:
    """All rows of a frame through the base transformer's blocks.

    Args:
        backbone: the base's network.
        x_ND: embedded tokens [N, D], prefix tokens first.
        taps: where the residual stream is wanted, as the number of blocks run before: 0 is the embedding, `depth` the
            end. Blocks after the last tap aren't run.

    Returns:
        Residual stream [N, D] at every tap, prefix tokens first.
    """
    wanted = set(taps)
    tapped = {0: x_ND} if 0 in wanted else {}
    for number, block in enumerate(backbone.blocks[: max(wanted)], start=1):
        x_ND = run_block(block, x_ND)
        if number in wanted:
            tapped[number] = x_ND
    return tapped
