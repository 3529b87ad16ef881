"""A worker whose parts are actors of a Ray cluster."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from deltascene.pipeline.errors import NoCapacity, UsageError, WorkerLost
from deltascene.pipeline.processes.lost import lost_line, out_of_memory
from deltascene.pipeline.workers.finish import Finished, FinishJob, FinishProgress
from deltascene.pipeline.workers.jobs import Segment, SpanDone, VideoJob, plan_spans
from deltascene.pipeline.workers.ray_actors import ActorSetup, EngineActor, ReaderActor, TaskActor, WriterActor

_ABANDON_S = 60.0  # that an actor may take to give up what it does, before it is replaced
_POLL_S = 2.0  # how often a worker that isn't ready checks whether it has a place


class RayWorker:
    """A reader, an engine, a writer, and with placement `split` one actor for every sub-task with a delta.

    What computes has its place in a placement group, which Ray moves to another machine when it loses one.

    Attributes:
        span_frames: frames that a message carries.
        in_flight: spans that may be in progress at once, which bounds memory.
        placed_s: seconds that a worker waits for room on some machine.
    """

    span_frames = 16
    in_flight = 3
    placed_s = 120.0

    def __init__(self, ray: Any, setup: ActorSetup, here: list[str], split: dict[str, int], cpus: float) -> None:
        """Starts the actors.

        Args:
            ray: the module, joined to a cluster.
            setup: what actors that compute need to know.
            here: tasks that the engine predicts.
            split: sub-tasks in actors of their own, and the blocks before each.
            cpus: processors that an actor that computes asks for.
        """
        from ray.util.placement_group import placement_group

        self._ray, self._closed, self._whole = ray, False, False
        self._silent_s = setup.config.run.silent_s
        self._cpus, self._place = cpus, placement_group([{"CPU": cpus} for _ in range(1 + len(split))], strategy="PACK")
        self._asked_s = time.monotonic()  # when a place was asked for
        self._makers: dict[str, Callable[[], Any]] = {
            "reader": partial(self._start, ReaderActor, None),
            "writer": partial(self._start, WriterActor, None),
            "engine": partial(self._start, EngineActor, 0, setup, here, list(split.values())),
        }
        for number, task in enumerate(split, 1):
            self._makers[task] = partial(self._start, TaskActor, number, setup, task)
        self._tasks = list(split)
        self._actors = {name: make() for name, make in self._makers.items()}

    def _start(self, actor: type, place: int | None, *arguments: Any) -> Any:
        """Starts an actor at a place of the group; without one it is beside the engine and asks for no processor."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        where = PlacementGroupSchedulingStrategy(self._place, placement_group_bundle_index=place or 0)
        cpus = 0 if place is None else self._cpus
        return self._ray.remote(actor).options(num_cpus=cpus, scheduling_strategy=where).remote(*arguments)

    def ready(self) -> None:
        """Waits until every actor has loaded what it needs.

        Raises:
            UsageError: an actor can't compute as the run wants it.
            NoCapacity: no machine has room for one.
            WorkerLost: an actor is gone, or doesn't answer.
        """
        began, patience_s = time.monotonic(), max(self._silent_s, self.placed_s)
        refs = [actor.ready.remote() for actor in self._actors.values()]
        while self._ray.wait(refs, num_returns=len(refs), timeout=_POLL_S)[1]:
            if self._closed:
                raise WorkerLost("the worker was closed")
            now = time.monotonic()
            if self._place.wait(1):
                self._asked_s = now
                if now - began > patience_s:
                    raise WorkerLost(self._silence(patience_s))
            elif now - self._asked_s <= self.placed_s:
                began = now  # actors start once they have a place
            else:
                computing = ", ".join(["engine", *self._tasks])
                raise NoCapacity(
                    f"run.workers: expected a machine with {self._cpus:g} free processors for each computing actor of a"
                    f" worker ({computing}); found none within {self.placed_s:g} s; take fewer --workers,"
                    " numerics.threads=1, or add machines"
                )
        self._get(refs)
        self._whole = True

    def run(self, job: VideoJob, segment: Segment) -> Iterator[SpanDone]:
        """Computes, writes and seals a segment; yields each span when it is written."""
        if not self._whole:  # its last segment was given up
            self.restore()
        shared, in_progress = self._ray.put(job), deque[Any]()
        reader, engine, writer = (self._actors[name] for name in ("reader", "engine", "writer"))
        for span in plan_spans(segment, self.span_frames):
            read = reader.read.remote(shared, span)
            made = engine.run.remote(shared, read)
            others = [self._actors[task].run.remote(shared, made) for task in self._tasks]
            to_draw = read if job.config.save.video else None
            in_progress.append(writer.write.remote(shared, to_draw, made, *others))
            if len(in_progress) >= self.in_flight:
                yield self._get(in_progress.popleft())
        while in_progress:
            yield self._get(in_progress.popleft())

    def finish(self, finish_job: FinishJob) -> Iterator[FinishProgress | Finished]:
        """Finishes a video in its writer's actor, which is asked again and again until it is done."""
        if not self._whole:
            self.restore()
        shared, writer = self._ray.put(finish_job), self._actors["writer"]
        step = self._get(writer.finish.remote(shared, True))
        while not isinstance(step, Finished):
            yield step
            step = self._get(writer.finish.remote(shared, False))
        yield step

    def restore(self) -> None:
        """Replaces actors that don't answer; the others give up what they began."""
        asked = {name: actor.abandon.remote() for name, actor in self._actors.items()}
        self._ray.wait([*asked.values()], num_returns=len(asked), timeout=min(_ABANDON_S, self._silent_s))
        for name, actor in list(self._actors.items()):
            try:
                self._get(asked[name], patience_s=1)
            except WorkerLost:
                if self._closed:
                    raise
                self._ray.kill(actor)
                self._actors[name] = self._makers[name]()
        self._asked_s = time.monotonic()
        try:
            self.ready()
        except UsageError as error:  # on another machine than before
            raise NoCapacity(f"a worker that was moved can't go on there: {error}") from error

    def abandon(self) -> None:
        """Has every actor give up what it began."""
        self._get([actor.abandon.remote() for actor in self._actors.values()])

    def close(self) -> None:
        """Kills the actors and gives their place back."""
        self._closed = True
        from ray.util.placement_group import remove_placement_group

        for actor in self._actors.values():
            self._ray.kill(actor)
        remove_placement_group(self._place)

    def _silence(self, seconds: float) -> str:
        names = ", ".join(self._actors)
        return f"a worker of the run ({names}) didn't answer for {seconds:g} s; a slow one needs a longer run.silent_s"

    def _get(self, refs: Any, patience_s: float | None = None) -> Any:
        """What actors answer, within `run.silent_s`; an error in one of them is raised here."""
        lost, patience_s = self._ray.exceptions, self._silent_s if patience_s is None else patience_s
        try:
            return self._ray.get(refs, timeout=patience_s)
        except lost.GetTimeoutError:
            self._whole = False
            raise WorkerLost(self._silence(patience_s)) from None
        except lost.RayTaskError as error:
            if isinstance(error.cause, lost.RayError) or out_of_memory(error.cause):  # the first: what it waited for
                self._whole = False
                raise WorkerLost(lost_line(error.cause)) from None
            raise error.cause from None
        except lost.RayError as error:
            self._whole = False
            raise WorkerLost(lost_line(error)) from error
