"""Classes that Ray makes actors of: each holds one part of a worker and passes calls on to it.

Only those that compute import torch, in `ready`: a reader or a writer starts at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deltascene.pipeline.config import Config
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.quick_imports import quick_imports
from deltascene.pipeline.workers.finish import Finished, FinisherPart, FinishJob, FinishProgress
from deltascene.pipeline.workers.jobs import Span, SpanDone, SpanFrames, SpanOutputs, SpanTask, VideoJob
from deltascene.pipeline.workers.reader_part import ReaderPart
from deltascene.pipeline.workers.writer_part import WriterPart

if TYPE_CHECKING:
    from deltascene.pipeline.bundles.bundle import Bundle
    from deltascene.pipeline.bundles.scene_model import SceneModel
    from deltascene.pipeline.workers.engine_part import EnginePart
    from deltascene.pipeline.workers.task_part import TaskPart


@dataclass(frozen=True, slots=True)
class ActorSetup:
    """What an actor that computes needs to know.

    Attributes:
        config: resolved config.
        model: name or URL of the bundle, or its folder's absolute path.
        weights: SHA-256 of its files by name; an actor on another machine must have the same.
        numerics: the driver's record, which the actor has to honour.
        allow_code: whether the bundle may bring its own head class.
    """

    config: Config
    model: str
    weights: Mapping[str, str]
    numerics: Mapping[str, Any]
    allow_code: bool

    @property
    def merged(self) -> bool:
        """Whether deltas are added into dense weights."""
        return self.config.numerics.delta == "merged"

    def bundle(self, tasks: Sequence[str]) -> "Bundle":
        """The model's bundle on this machine.

        Raises:
            UsageError: it isn't there, or holds other bytes than the driver's.
        """
        from deltascene.cache.keys import file_sha256
        from deltascene.pipeline.bundles.bundle import read_bundle

        bundle = read_bundle(self.model)
        for file in bundle.weight_files(tasks):
            if file_sha256(file) != self.weights.get(file.name):
                raise UsageError(f"{file}: expected the bytes that the run was started with; found others")
        return bundle

    def prepared(self, model: "SceneModel") -> "SceneModel":
        """A loaded model as the run's numerics want it."""
        from deltascene.pipeline.bundles.scene_model import prepare_model

        return prepare_model(model, self.config.numerics)


class ReaderActor:
    """Holds a `ReaderPart`."""

    def __init__(self) -> None:
        self._part = ReaderPart()

    def ready(self) -> None:
        """Answers as soon as the actor runs."""

    def read(self, job: VideoJob, span: Span) -> SpanFrames:
        """Decodes a span."""
        return self._part.read(job, span)

    def abandon(self) -> None:
        """Closes the video."""
        self._part.close()


class EngineActor:
    """Holds an `EnginePart` with the base and some tasks."""

    def __init__(self, setup: ActorSetup, tasks: Sequence[str], splits: Sequence[int]) -> None:
        self._setup, self._tasks, self._splits = setup, tasks, splits
        self._part: EnginePart | None = None

    def ready(self) -> None:
        """Loads the model; comes first.

        Raises:
            UsageError: this process can't honour the run's numerics.
        """
        if self._part is not None:
            return
        with quick_imports():
            from deltascene.pipeline.bundles.scene_model import handing_over, load_model
            from deltascene.pipeline.numerics.settle import honour
            from deltascene.pipeline.workers.engine_part import EnginePart

        setup, tasks = self._setup, self._tasks
        honour(setup.config, setup.numerics)
        model = load_model(setup.bundle(tasks), tasks, allow_code=setup.allow_code, merged=setup.merged)
        self._part = EnginePart(handing_over(setup.prepared(model), setup.config, self._splits), setup.config)

    def run(self, job: VideoJob, read: SpanFrames) -> SpanOutputs:
        """Computes a span."""
        assert self._part is not None, "ready comes first"
        return self._part.run(job, read)

    def abandon(self) -> None:
        """Does nothing: a segment starts without state."""


class TaskActor:
    """Holds a `TaskPart`."""

    def __init__(self, setup: ActorSetup, task: str) -> None:
        self._setup, self._task = setup, task
        self._part: TaskPart | None = None

    def ready(self) -> None:
        """Loads the task; comes first.

        Raises:
            UsageError: this process can't honour the run's numerics.
        """
        if self._part is not None:
            return
        with quick_imports():
            from deltascene.pipeline.bundles.scene_model import load_sub_task_model
            from deltascene.pipeline.numerics.settle import honour
            from deltascene.pipeline.workers.task_part import TaskPart

        setup, task = self._setup, self._task
        honour(setup.config, setup.numerics)
        model = load_sub_task_model(setup.bundle([task]), task, allow_code=setup.allow_code, merged=setup.merged)
        self._part = TaskPart(setup.prepared(model), setup.config)

    def run(self, job: VideoJob, made: SpanOutputs) -> SpanTask:
        """Computes the task on what the engine made of a span."""
        assert self._part is not None, "ready comes first"
        return self._part.run(job, made.span, [output.record for output in made.frames])

    def abandon(self) -> None:
        """Does nothing: a segment starts without state."""


class WriterActor:
    """Holds a `WriterPart` and a `FinisherPart`."""

    def __init__(self) -> None:
        self._part, self._finisher = WriterPart(), FinisherPart()

    def ready(self) -> None:
        """Answers as soon as the actor runs."""

    def write(self, job: VideoJob, read: SpanFrames | None, made: SpanOutputs, *others: SpanTask) -> SpanDone:
        """Writes a span."""
        return self._part.write(job, made, others, read)

    def finish(self, finish_job: FinishJob, first: bool) -> FinishProgress | Finished:
        """Begins or goes on with finishing a video."""
        return self._finisher.finish(finish_job, first)

    def abandon(self) -> None:
        """Gives up what isn't sealed, and what isn't finished."""
        self._part.close()
        self._finisher.close()
