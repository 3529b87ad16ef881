"""What a video's archive will hold and take, before it is computed."""

from deltascene.cache.segment import SegmentInfo, estimate_bytes
from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.numerics.settle import split_dtype
from deltascene.stages.input_plan import InputPlan
from deltascene.stages.types import TokenGrid

EXPECTED_MOVED = 0.2  # of the tokens, where nothing is known of a video yet: people walking about in a room


def segment_info(model: SceneModel, config: Config, plan: InputPlan, grid: TokenGrid) -> SegmentInfo:
    """What a video's archived segments have in common."""
    return SegmentInfo(
        blocks=model.bundle.entry.archive.blocks,
        dtype=split_dtype(config),
        tokens=grid.tokens,
        prefix=grid.prefix,
        width=model.backbone.width,
        grid=(grid.height, grid.width),
        patch=grid.patch,
        frame_size=plan.frame_size,
        model_size=plan.model_size,
        content=plan.content,
    )


def expected_bytes(config: Config, info: SegmentInfo, frames: int, moved: float = EXPECTED_MOVED) -> int:
    """About what a video's archive will take, before compression.

    Args:
        config: says how often frames run dense, by rows, or are warped.
        info: of its segments.
        frames: how many there are.
        moved: share of the tokens that a frame computes by rows; 0 gives the least that a moving picture can take.
    """
    policy = config.policy
    if not policy.reuse:
        return estimate_bytes(info, frames, dense=1, rows=0, warped=0, segment_frames=config.segment.frames)
    dense = min(1.0, 1 / policy.refresh + 1 / config.segment.frames)
    warped = (1 - dense) * (1 - 1 / policy.every)
    sizes = {"dense": dense, "rows": moved, "warped": warped if moved else 0.0}
    return estimate_bytes(info, frames, **sizes, segment_frames=config.segment.frames)
