"""What a run hands from part to part: a video's job, spans of its frames, and what was made of them. Plain values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deltascene.cache.seal import Seal
from deltascene.cache.segment import SegmentInfo
from deltascene.pipeline.config import Config
from deltascene.pipeline.runs.folder import VideoFolder
from deltascene.pipeline.runs.lock import Fence
from deltascene.pipeline.sources.info import SourceInfo
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.workers.outputs import FrameOutput, StoredForm, TaskOutput
from deltascene.stages.input_plan import InputPlan
from deltascene.stages.kinds import Kind
from deltascene.stages.types import Frame, TokenGrid


@dataclass(frozen=True, slots=True)
class ArchiveJob:
    """What is archived of a video.

    Attributes:
        info: what its segments have in common.
        key: what its activations depend on, as flat plain values.
    """

    info: SegmentInfo
    key: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VideoJob:
    """Everything that the parts need to know of one video; plain values, so that it can travel.

    Attributes:
        config: resolved config.
        spec: the source.
        info: what is known of it.
        files: where its results go; absolute.
        frames: how many of its frames are processed.
        plan: how its frames become model input.
        grid: token grid of that.
        kinds: of the tasks predicted, in order.
        base: name of the base task.
        key: fingerprint of all that its results depend on.
        fence: of the run that writes.
        archive: what is archived; None is nothing.
        input_full: hash of every byte of the source; empty where that isn't known.
    """

    config: Config
    spec: SourceSpec
    info: SourceInfo
    files: VideoFolder
    frames: int
    plan: InputPlan
    grid: TokenGrid
    kinds: Mapping[str, Kind]
    base: str
    key: str
    fence: Fence
    archive: ArchiveJob | None
    input_full: str = ""

    @property
    def id(self) -> str:
        """Name of the video's folder; no other video of the run has it."""
        return self.spec.id

    @property
    def form(self) -> StoredForm:
        """How its predictions are stored."""
        return StoredForm(self.plan, self.config.save.size == "frame")

    @property
    def attributes(self) -> dict[str, Any]:
        """What its arrays say of themselves."""
        return {
            "fps": float(self.info.fps) / self.config.source.stride,
            "size": list(self.form.size),
            "frame_size": list(self.plan.frame_size),
            "model_size": list(self.plan.model_size),
            "content": list(self.plan.content),
            "change_threshold": self.config.change.threshold if self.config.policy.reuse else None,
        }

    @property
    def points(self) -> tuple[int, ...]:
        """Where the base's tokens are archived."""
        return () if self.archive is None else self.archive.info.blocks


@dataclass(frozen=True, slots=True)
class Segment:
    """The unit of work: a run of a video's frames whose result depends on nothing before it.

    Attributes:
        start: number of its first frame among the processed frames.
        frames: how many it has.
        first_index: the source's number of its first frame.
        next_index: the source's number of the frame after its last one.
        archived: whether its activations are archived, if the video's are.
    """

    start: int
    frames: int
    first_index: int
    next_index: int
    archived: bool = True


@dataclass(frozen=True, slots=True)
class Span:
    """A run of frames inside one segment.

    Attributes:
        segment: it lies in.
        start: number of its first frame among the processed frames.
        frames: how many frames the run has.
    """

    segment: Segment
    start: int
    frames: int

    @property
    def first(self) -> bool:
        """Whether it starts its segment."""
        return self.start == self.segment.start

    @property
    def last(self) -> bool:
        """Whether it ends its segment, which is sealed then."""
        return self.start + self.frames == self.segment.start + self.segment.frames


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
    """

    frames: Sequence[FrameSummary]
    seal: Seal | None = None
    archived: int = 0


def plan_segments(wanted: range, frames: int) -> list[Segment]:
    """Cuts a video into segments.

    Args:
        wanted: the source's numbers of the frames that are processed.
        frames: of a segment; the last one may have fewer.
    """
    segments = []
    for start in range(0, len(wanted), frames):
        part = wanted[start : start + frames]
        segments.append(Segment(start, len(part), part[0], part[-1] + wanted.step))
    return segments


def plan_spans(segment: Segment, span_frames: int) -> Iterator[Span]:
    """Cuts a segment into spans."""
    for begin in range(0, segment.frames, span_frames):
        yield Span(segment, segment.start + begin, min(span_frames, segment.frames - begin))
