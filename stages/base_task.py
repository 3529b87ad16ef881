"""The base transformer: embedded rows of a frame in, their residual stream at the taps out."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from deltascene.stages.backbone import Backbone
from deltascene.stages.rows import Part, run_blocks


def run_base(
    backbone: Backbone,
    x_RD: Tensor,
    taps: Iterable[int],
    *,
    parts: Sequence[Part] | None = None,
) -> dict[int, Tensor]:
    """Rows of a frame through the base transformer's blocks.

    Args:
        backbone: the base's network.
        x_RD: embedded tokens [R, D], prefix tokens first; one part after the other.
        taps: where the residual stream is wanted, as the number of blocks run before: 0 is the embedding, `depth` the
            end. Blocks after the last tap aren't run.
        parts: whose rows they are, with caches of the base's blocks; None is all of one frame's, nothing kept.

    Returns:
        Residual stream of the rows [R, D] at every tap.
    """
    return run_blocks(backbone.blocks, x_RD, set(taps), parts=parts)
