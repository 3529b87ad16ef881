"""What a video's archive will hold, and how many bytes it will take, before the video is computed."""

from deltascene.cache.places import free_bytes
from deltascene.cache.segment import SegmentInfo, estimate_bytes
from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.errors import DiskFull
from deltascene.pipeline.numerics.settle import split_dtype
from deltascene.pipeline.units import compact
from deltascene.pipeline.workers.jobs import VideoJob
from deltascene.stages.input_plan import InputPlan
from deltascene.stages.types import TokenGrid

USUAL_EVERY = 2  # frames, where rows run by time
EXPECTED_MOVED = 0.2  # share of the tokens, where nothing is known of a video yet: people walk about in a room


def segment_info(model: SceneModel, config: Config, plan: InputPlan, grid: TokenGrid) -> SegmentInfo:
    """Description that all archived segments of a video share."""
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
    """Approximate bytes of a video's archive, before compression.

    Args:
        config: decides how often frames run dense, by rows, or are warped.
        info: what the video's segments have in common.
        frames: number of frames.
        moved: share of the tokens that a frame computes by rows; 0 gives a lower bound for any video.
    """
    policy = config.policy
    if not policy.reuse:
        return estimate_bytes(info, frames, dense=1, rows=0, warped=0, segment_frames=config.segment.frames)
    dense = min(1.0, (1 / policy.refresh if policy.refresh else 0) + 1 / config.segment.frames)
    warped = (1 - dense) * (1 - 1 / (policy.every or USUAL_EVERY))
    sizes = {"dense": dense, "rows": moved, "warped": warped if moved else 0.0}
    return estimate_bytes(info, frames, **sizes, segment_frames=config.segment.frames)


def archive_estimate(job: VideoJob, frames: int, budget_left: int | None) -> int:
    """Approximate bytes that frames of a video will take in its archive; 0 without an archive.

    Args:
        job: the video.
        frames: number of its frames that are to be computed.
        budget_left: bytes that archives may still take; None is without limit.
    """
    if job.archive is None:
        return 0
    expected = expected_bytes(job.config, job.archive.info, frames)
    return expected if budget_left is None else min(expected, budget_left)


def refuse_too_large(job: VideoJob, frames: int, budget_left: int | None) -> None:
    """Refuses a video before it is computed if the disk can't hold even its dense frames' activations.

    Args:
        job: the video.
        frames: number of its frames that are to be computed.
        budget_left: bytes that archives may still take; None is without limit.

    Raises:
        DiskFull: it can't.
    """
    if job.archive is None or not frames:
        return
    least, free = expected_bytes(job.config, job.archive.info, frames, moved=0), free_bytes(job.files.root)
    least = least if budget_left is None else min(least, budget_left)
    if free is not None and least > free:
        raise DiskFull(
            f"{job.spec.id}: its archive takes {compact(least, 'B')} or more, {compact(free, 'B')} are free:"
            " choose --no-archive, --archive-budget, or another -o"
        )
