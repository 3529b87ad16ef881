"""The base transformer: embedded rows of a frame in, their residual stream at the taps out."""

from collections.abc import Iterable

from torch import Tensor

from deltascene.stages.backbone import Backbone
from deltascene.stages.rows import run_blocks
from deltascene.stages.scene_cache import SceneCache


def run_base(
    backbone: Backbone,
    x_RD: Tensor,
    taps: Iterable[int],
    *,
    rows: Tensor | None = None,
    cache: SceneCache | None = None,
) -> dict[int, Tensor]:
    """Rows of a frame through the base transformer's blocks.

    Args:
        backbone: the base's network.
        x_RD: embedded tokens [R, D], prefix tokens first.
        taps: where the residual stream is wanted, as the number of blocks run before: 0 is the embedding, `depth` the
            end. Blocks after the last tap aren't run.
        rows: which tokens they are; None is all of them.
        cache: of the base's blocks; overwritten at `rows`.

    Returns:
        Residual stream of the rows [R, D] at every tap.
    """
    return run_blocks(backbone.blocks, x_RD, set(taps), rows=rows, cache=cache)
