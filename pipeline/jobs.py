"""What a run hands from part to part: a video's job, spans of its frames, and what was made of them. Plain values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deltascene.cache.seal import Seal
from deltascene.cache.segment import SegmentInfo
from deltascene.pipeline.config import Config
from deltascene.pipeline.convert import split_dtype
from deltascene.pipeline.model import SceneModel
from deltascene.pipeline.outputs import FrameOutput, StoredForm, TaskOutput
from deltascene.pipeline.run_folder import VideoFolder
from deltascene.pipeline.sources import SourceInfo, SourceSpec
from deltascene.stages.kinds import Kind
from deltascene.stages.preprocess import InputPlan
from deltascene.stages.types import Frame, TokenGrid


@dataclass(frozen=True, slots=True)
class ArchiveJob:
    """What is archived of a video.

    Attributes:
        info: what its segments have in common.
        key: what its activations depend on, as flat plain values.
        left: bytes that the archive may still take; None is any.
    """

    info: SegmentInfo
    key: Mapping[str, Any]
    left: int | None


@dataclass(frozen=True, slots=True)
class VideoJob:
    """Everything that the parts need to know of one video; plain values, so that it can travel.

    Attributes:
        config: resolved config.
        spec: the source.
        info: what is known of it.
        files: where its results go; absolute.
        first_index: frames of the source before this number are done; None starts at the selection's beginning.
        done_frames: how many processed frames that were.
        plan: how its frames become model input.
        grid: token grid of that.
        kinds: of the tasks predicted, in order.
        base: name of the base task.
        key: fingerprint of all that its results depend on.
        token: of the run that writes.
        archive: what is archived; None is nothing.
    """

    config: Config
    spec: SourceSpec
    info: SourceInfo
    files: VideoFolder
    first_index: int | None
    done_frames: int
    plan: InputPlan
    grid: TokenGrid
    kinds: Mapping[str, Kind]
    base: str
    key: str
    token: str
    archive: ArchiveJob | None

    @property
    def form(self) -> StoredForm:
        """How its predictions are stored."""
        return StoredForm(self.plan, self.config.save.size == "frame")

    @property
    def points(self) -> tuple[int, ...]:
        """Where the base's tokens are archived."""
        return () if self.archive is None else self.archive.info.blocks


@dataclass(frozen=True, slots=True)
class Span:
    """A run of frames inside one segment.

    Attributes:
        segment: number of the segment's first frame among the processed frames.
        frames: how many frames the run has.
        first: it starts its segment: whoever carries state starts anew.
        last: it ends its segment, which is sealed then.
    """

    segment: int
    frames: int
    first: bool
    last: bool


@dataclass(frozen=True, slots=True, eq=False)
class SpanFrames:
    """Decoded frames of a span, each with the seconds that it took to come."""

    span: Span
    frames: Sequence[tuple[Frame, float]]


@dataclass(frozen=True, slots=True, eq=False)
class SpanOutputs:
    """What the engine made of a span."""

    span: Span
    frames: Sequence[FrameOutput]


@dataclass(frozen=True, slots=True, eq=False)
class SpanTask:
    """What one sub-task made of a span, frame by frame."""

    task: str
    frames: Sequence[TaskOutput]


@dataclass(frozen=True, slots=True)
class FrameSummary:
    """What a listener is told of a frame."""

    index: int
    pts_s: float
    valid: bool
    cause: str
    policy: str
    macs_executed: int
    macs_dense: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SpanDone:
    """A span that was written.

    Attributes:
        frames: a word on each.
        seal: of its segment, where the span ended it.
        archived: bytes that its segment takes in the archive, where the span ended it.
        over_budget: the segment wasn't archived because the budget was reached.
    """

    frames: Sequence[FrameSummary]
    seal: Seal | None = None
    archived: int = 0
    over_budget: bool = False


def plan_spans(frames: int, done_frames: int, segment_frames: int, span_frames: int) -> Iterator[Span]:
    """Cuts the frames that are left into spans that never cross a segment."""
    for segment in range(done_frames, done_frames + frames, segment_frames):
        count = min(segment_frames, done_frames + frames - segment)
        for begin in range(0, count, span_frames):
            size = min(span_frames, count - begin)
            yield Span(segment, size, begin == 0, begin + size == count)


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
