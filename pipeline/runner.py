"""Where the parts of a run are: in this process, or each in an actor of a Ray cluster. The results are the same.

Both runners walk the same spans in the same order: reader, engine, sub-tasks in places of their own, writer.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from deltascene.pipeline.engine import Engine
from deltascene.pipeline.errors import DeltasceneError, UsageError
from deltascene.pipeline.jobs import Span, SpanDone, VideoJob
from deltascene.pipeline.numerics import numerics_record
from deltascene.pipeline.parts import EnginePart, ReaderPart, WriterPart


class WorkerLost(DeltasceneError):  # noqa: N818 - reads as what happened
    """An actor of the run is gone."""


class Runner(Protocol):
    """Computes one video after the other.

    Attributes:
        span_frames: how many frames go from part to part at once.
    """

    span_frames: int

    def open(self, job: VideoJob) -> range:
        """Starts a video; returns the numbers of the frames that are left to process.

        Raises:
            SourceError: it can't be read.
        """

    def run(self, job: VideoJob, spans: Iterable[Span]) -> Iterator[SpanDone]:
        """Computes and writes spans in order; what comes after the last one taken may be lost.

        Raises:
            DeltasceneError: whatever a part says.
        """

    def finish(self) -> str:
        """Lets go of a video after its last frame; `truncated` if it ended before its header says, else empty."""

    def abandon(self) -> None:
        """Lets go of a video before its end."""

    def close(self) -> None:
        """Lets go of everything."""


class LocalRunner:
    """All parts in this process, one span at a time.

    Attributes:
        span_frames: one frame, so that progress shows.
    """

    span_frames = 1

    def __init__(self, engine: Engine) -> None:
        """Takes a loaded engine."""
        self._reader, self._writer = ReaderPart(), WriterPart()
        self._engine = EnginePart(engine.model, engine.config)

    def open(self, job: VideoJob) -> range:
        """As `Runner.open`."""
        self._writer.open(job)
        return self._reader.open(job)

    def run(self, job: VideoJob, spans: Iterable[Span]) -> Iterator[SpanDone]:
        """As `Runner.run`."""
        for span in spans:
            yield self._writer.write(job, self._engine.run(job, self._reader.read(span)), [])

    def finish(self) -> str:
        """As `Runner.finish`."""
        return self._reader.finish()

    def abandon(self) -> None:
        """As `Runner.abandon`."""
        self._writer.close()
        self._reader.close()

    def close(self) -> None:
        """As `Runner.close`."""
        self.abandon()


class RayRunner:
    """A reader, an engine, a writer, and with placement `split` one actor for every sub-task with a delta.

    Attributes:
        span_frames: a message carries that many frames.
        in_flight: spans that may be under way at once; bounds memory.
    """

    span_frames = 16
    in_flight = 3

    def __init__(self, engine: Engine, *, allow_code: bool = False) -> None:
        """Starts the actors, and a cluster on this machine if none is joined.

        Args:
            engine: its config and model say what the actors load; its own weights aren't sent.
            allow_code: whether a bundle may bring its own head class.
        """
        import ray

        from deltascene.pipeline import actors

        self._ray: Any = ray
        self._own_cluster = not self._ray.is_initialized()
        if self._own_cluster:
            self._ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        if engine.config.run.audit_every and engine.config.run.placement == "split":
            raise UsageError("--audit-every: expected placement fused; with split no actor has all that a frame needs")
        split = list(engine.model.sub_tasks) if engine.config.run.placement == "split" else []
        here = [task for task in engine.model.tasks if task not in split]
        seat = actors.Seat(
            config=engine.config,
            folder=engine.model.bundle.folder.resolve(),
            numerics=numerics_record(engine.config),
            allow_code=allow_code,
        )
        cpus = _share_of_cpus(self._ray.cluster_resources()["CPU"], seat.numerics["threads"], 1 + len(split))
        self._reader = self._actor(actors.ReaderActor, 0)
        self._writer = self._actor(actors.WriterActor, 0)
        splits = tuple(sorted({engine.model.sub_tasks[task].split for task in split}))
        self._engine = self._actor(actors.EngineActor, cpus)
        self._tasks = [self._actor(actors.TaskActor, cpus) for _ in split]
        loading = [self._engine.load.remote(seat, here, splits)]
        loading += [actor.load.remote(seat, task) for actor, task in zip(self._tasks, split, strict=True)]
        try:
            self._get(loading)
        except BaseException:
            self.close()
            raise

    def open(self, job: VideoJob) -> range:
        """As `Runner.open`."""
        self._get(self._writer.open.remote(job))
        wanted: range = self._get(self._reader.open.remote(job))
        return wanted

    def run(self, job: VideoJob, spans: Iterable[Span]) -> Iterator[SpanDone]:
        """As `Runner.run`."""
        shared, under_way = self._ray.put(job), deque[Any]()
        for span in spans:
            read = self._reader.read.remote(span)
            made = self._engine.run.remote(shared, read)
            others = [task.run.remote(shared, made) for task in self._tasks]
            under_way.append(self._writer.write.remote(shared, made, *others))
            if len(under_way) >= self.in_flight:
                yield self._get(under_way.popleft())
        while under_way:
            yield self._get(under_way.popleft())

    def finish(self) -> str:
        """As `Runner.finish`."""
        cause: str = self._get(self._reader.finish.remote())
        return cause

    def abandon(self) -> None:
        """As `Runner.abandon`."""
        self._get([self._reader.close.remote(), self._writer.close.remote()])

    def close(self) -> None:
        """As `Runner.close`."""
        for actor in (self._reader, self._writer, self._engine, *self._tasks):
            self._ray.kill(actor)
        if self._own_cluster:
            self._ray.shutdown()

    def _actor(self, part: type, cpus: float) -> Any:
        """Starts an actor that holds a part."""
        return self._ray.remote(part).options(num_cpus=cpus).remote()

    def _get(self, refs: Any) -> Any:
        """What actors answer; their errors are raised as if they had happened here."""
        try:
            return self._ray.get(refs)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayActorError as error:
            raise WorkerLost(f"an actor of the run died: {' '.join(str(error).split())[:200]}") from error


def open_runner(engine: Engine, *, allow_code: bool = False) -> Runner:
    """The runner that a config asks for."""
    if engine.config.run.executor == "ray":
        return RayRunner(engine, allow_code=allow_code)
    return LocalRunner(engine)


def _share_of_cpus(cluster: float, threads: int, engines: int) -> float:
    """Processors that an engine or sub-task actor asks for: its threads, or an equal share where there are fewer."""
    if engines * threads <= cluster:
        return float(threads)
    share = cluster / engines
    return float(int(share)) if share >= 1 else round(share - 0.005, 2)
