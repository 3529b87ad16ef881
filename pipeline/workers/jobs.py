"""What the parts of a worker pass to each other, as plain values: a video's job, spans of its frames, results."""

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
from deltascene.stages.zones import ignored_patches


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
    """What the parts need to know of one video; plain values, so that it can be sent to another process.

    Attributes:
        config: resolved config.
        spec: the source.
        info: what is known of it.
        files: where its results go, as an absolute path.
        frames: how many of its frames are processed.
        plan: how its frames become model input.
        grid: token grid of the model input.
        kinds: kind of every predicted task, in order.
        base: name of the base task.
        key: fingerprint of everything that its results depend on.
        fence: lock of the run that writes.
        archive: what is archived; None if nothing is.
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
        """Attributes that are stored with its arrays."""
        ignored = ignored_patches(self.config.change.ignored_in(self.id), self.plan, self.grid)
        return {
            **({} if ignored is None else {"ignored_patches": ignored.nonzero()[0].tolist()}),
            "fps": float(self.info.fps) / self.config.source.stride,
            "size": list(self.form.size),
            "frame_size": list(self.plan.frame_size),
            "model_size": list(self.plan.model_size),
            "content": list(self.plan.content),
            "change_threshold": self.config.change.threshold if self.config.policy.reuse else None,
        }

    @property
    def points(self) -> tuple[int, ...]:
        """Archive points: numbers of blocks after which the base's tokens are archived."""
        return () if self.archive is None else self.archive.info.blocks


@dataclass(frozen=True, slots=True)
class Segment:
    """The unit of work: a run of a video's frames whose result depends on nothing before it.

    Attributes:
        start: number of its first frame among the processed frames.
        frames: how many frames it has.
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
        segment: that it lies in.
        start: number of its first frame among the processed frames.
        frames: how many frames the run has.
    """

    segment: Segment
    start: int
    frames: int

    @property
    def first(self) -> bool:
        """Whether it is the first of its segment."""
        return self.start == self.segment.start

    @property
    def last(self) -> bool:
        """Whether it is the last of its segment, which is sealed after it."""
        return self.start + self.frames == self.segment.start + self.segment.frames


@dataclass(frozen=True, slots=True, eq=False)
class SpanFrames:
    """Decoded frames of a span, each with the seconds that decoding it took."""

    span: Span
    frames: Sequence[tuple[Frame, float]]


@dataclass(frozen=True, slots=True, eq=False)
class SpanOutputs:
    """The engine's outputs for a span, frame by frame."""

    span: Span
    frames: Sequence[FrameOutput]


@dataclass(frozen=True, slots=True, eq=False)
class SpanTask:
    """One sub-task's outputs for a span, frame by frame."""

    task: str
    frames: Sequence[TaskOutput]


@dataclass(frozen=True, slots=True)
class FrameSummary:
    """A written frame, as events report it.

    Attributes:
        index: its number in the source.
        pts_s: presentation time in seconds.
        valid: False when the picture isn't what the camera saw then.
        cause: of an invalid frame or of a reset; empty otherwise.
        policy: dense, rows, warped, held or skipped.
        macs_executed: MACs that ran.
        macs_dense: MACs of the same frame with every row computed.
        seconds: of all stages.
    """

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
        frames: its frames.
        seal: of its segment, if the span was its last one.
        archived: bytes that its segment takes in the archive, if the span was its last one.
    """

    frames: Sequence[FrameSummary]
    seal: Seal | None = None
    archived: int = 0


def plan_segments(wanted: range, frames: int) -> list[Segment]:
    """Cuts a video into segments.

    Args:
        wanted: the source's numbers of the frames that are processed.
        frames: length of a segment; the last one may be shorter.
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
