"""Where the parts of a run are: in this process, or each in an actor of a Ray cluster. The results are the same.

Both kinds of lane walk the same spans in the same order: reader, engine, sub-tasks in places of their own, writer.
"""

import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from deltascene.cache.keys import file_sha256
from deltascene.pipeline.bundles.bundle import packaged_models
from deltascene.pipeline.bundles.scene_model import SceneModel, handing_over
from deltascene.pipeline.config import Config
from deltascene.pipeline.errors import NoCapacity, UsageError, WorkerLost
from deltascene.pipeline.numerics.settle import numerics_record
from deltascene.pipeline.processes.lost import lost_line, out_of_memory
from deltascene.pipeline.workers.compute_parts import EnginePart
from deltascene.pipeline.workers.crew import TRIES, InlinePool, ThreadedPool, WorkerPool
from deltascene.pipeline.workers.finish import Finished, FinishJob, FinishProgress, finish_video
from deltascene.pipeline.workers.jobs import Segment, SpanDone, VideoJob, plan_spans
from deltascene.pipeline.workers.parts import ReaderPart, WriterPart

_log = logging.getLogger(__name__)

_ANSWERS_S = 10.0  # that a cluster may take to answer
_ABANDONS_S = 60.0  # that an actor may take to give up what it does, before it is replaced
_LOOK_S = 2.0  # how often a lane that isn't ready looks whether it has a place


class LocalWorker:
    """All parts in this process, one frame at a time, so that progress shows."""

    span_frames = 1

    def __init__(self, model: SceneModel, config: Config) -> None:
        """Takes a loaded model."""
        self._reader, self._writer = ReaderPart(), WriterPart()
        self._engine = EnginePart(handing_over(model, config), config)

    def run(self, job: VideoJob, segment: Segment) -> Iterator[SpanDone]:
        """As `Worker.run`."""
        for span in plan_spans(segment, self.span_frames):
            read = self._reader.read(job, span)
            yield self._writer.write(job, self._engine.run(job, read), [], read)

    def finish(self, ending: FinishJob) -> Iterator[FinishProgress | Finished]:
        """As `Worker.finish`."""
        return finish_video(ending)

    def restore(self) -> None:
        """As `Worker.restore`: the processes that decode and encode are all that can be lost."""
        self.abandon()

    def abandon(self) -> None:
        """As `Worker.abandon`."""
        self._writer.close()
        self._reader.close()

    def close(self) -> None:
        """As `Worker.close`."""
        self.abandon()


class RayWorker:
    """A reader, an engine, a writer, and with placement `split` one actor for every sub-task with a delta.

    What computes has its place in a placement group, which Ray moves to another machine when it loses one.

    Attributes:
        span_frames: a message carries that many frames.
        in_flight: spans that may be under way at once; bounds memory.
        placed_s: a lane waits so long for room on some machine.
    """

    span_frames = 16
    in_flight = 3
    placed_s = 120.0

    def __init__(self, ray: Any, seat: Any, here: list[str], split: dict[str, int], cpus: float) -> None:
        """Starts the actors.

        Args:
            ray: the module, joined to a cluster.
            seat: what actors that compute need to know.
            here: tasks that the engine predicts.
            split: sub-tasks in actors of their own, and the blocks before each.
            cpus: processors that an actor that computes asks for.
        """
        from ray.util.placement_group import placement_group

        from deltascene.pipeline.workers import ray_actors

        self._ray, self._closed, self._whole = ray, False, False
        self._silent_s = seat.config.run.silent_s
        self._cpus, self._place = cpus, placement_group([{"CPU": cpus} for _ in range(1 + len(split))], strategy="PACK")
        self._asked = time.monotonic()  # for a place
        self._makers: dict[str, Callable[[], Any]] = {
            "reader": partial(self._start, ray_actors.ReaderActor, None),
            "writer": partial(self._start, ray_actors.WriterActor, None),
            "engine": partial(self._start, ray_actors.EngineActor, 0, seat, here, list(split.values())),
        }
        for number, task in enumerate(split, 1):
            self._makers[task] = partial(self._start, ray_actors.TaskActor, number, seat, task)
        self._tasks = list(split)
        self._actors = {name: make() for name, make in self._makers.items()}

    def _start(self, part: type, place: int | None, *about: Any) -> Any:
        """An actor that holds a part, at a place of the group; without one it's beside the engine and asks for none."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        where = PlacementGroupSchedulingStrategy(self._place, placement_group_bundle_index=place or 0)
        cpus = 0 if place is None else self._cpus
        return self._ray.remote(part).options(num_cpus=cpus, scheduling_strategy=where).remote(*about)

    def ready(self) -> None:
        """Waits until every actor has loaded what it needs.

        Raises:
            UsageError: one can't.
            NoCapacity: no machine has room for one.
            WorkerLost: one is gone, or doesn't answer.
        """
        began, patience_s = time.monotonic(), max(self._silent_s, self.placed_s)
        refs = [actor.ready.remote() for actor in self._actors.values()]
        while self._ray.wait(refs, num_returns=len(refs), timeout=_LOOK_S)[1]:
            if self._closed:
                raise WorkerLost("the lane was closed")
            now = time.monotonic()
            if self._place.wait(1):
                self._asked = now
                if now - began > patience_s:
                    raise WorkerLost(self._silence(patience_s))
            elif now - self._asked <= self.placed_s:
                began = now  # actors start once they have a place
            else:
                raise NoCapacity(
                    f"run.workers: expected a machine with {self._cpus:g} free processors for each of the"
                    f" {', '.join(name for name in self._actors if name not in ('reader', 'writer'))} of a lane; found"
                    f" none within {self.placed_s:g} s; take fewer --workers, numerics.threads=1, or add machines"
                )
        self._get(refs)
        self._whole = True

    def run(self, job: VideoJob, segment: Segment) -> Iterator[SpanDone]:
        """As `Worker.run`."""
        if not self._whole:  # its last segment was given up
            self.restore()
        shared, under_way = self._ray.put(job), deque[Any]()
        reader, engine, writer = (self._actors[name] for name in ("reader", "engine", "writer"))
        for span in plan_spans(segment, self.span_frames):
            read = reader.read.remote(shared, span)
            made = engine.run.remote(shared, read)
            others = [self._actors[task].run.remote(shared, made) for task in self._tasks]
            drawn = read if job.config.save.video else None
            under_way.append(writer.write.remote(shared, drawn, made, *others))
            if len(under_way) >= self.in_flight:
                yield self._get(under_way.popleft())
        while under_way:
            yield self._get(under_way.popleft())

    def finish(self, ending: FinishJob) -> Iterator[FinishProgress | Finished]:
        """As `Worker.finish`: by the writer, stroke by stroke."""
        if not self._whole:
            self.restore()
        shared, writer = self._ray.put(ending), self._actors["writer"]
        step = self._get(writer.finish.remote(shared, True))
        while not isinstance(step, Finished):
            yield step
            step = self._get(writer.finish.remote(shared, False))
        yield step

    def restore(self) -> None:
        """As `Worker.restore`: actors that answer stay, and give up what they began."""
        asked = {name: actor.abandon.remote() for name, actor in self._actors.items()}
        self._ray.wait([*asked.values()], num_returns=len(asked), timeout=min(_ABANDONS_S, self._silent_s))
        for name, actor in list(self._actors.items()):
            try:
                self._get(asked[name], patience_s=1)
            except WorkerLost:
                if self._closed:
                    raise
                self._ray.kill(actor)
                self._actors[name] = self._makers[name]()
        self._asked = time.monotonic()
        try:
            self.ready()
        except UsageError as error:  # on another machine than before
            raise NoCapacity(f"a lane that was moved can't go on there: {error}") from error

    def abandon(self) -> None:
        """As `Worker.abandon`."""
        self._get([actor.abandon.remote() for actor in self._actors.values()])

    def close(self) -> None:
        """As `Worker.close`."""
        self._closed = True
        from ray.util.placement_group import remove_placement_group

        for actor in self._actors.values():
            self._ray.kill(actor)
        remove_placement_group(self._place)

    def _silence(self, seconds: float) -> str:
        names = ", ".join(self._actors)
        return f"a worker of the run ({names}) didn't answer for {seconds:g} s; a slow one needs more run.silent_s"

    def _get(self, refs: Any, patience_s: float | None = None) -> Any:
        """What actors answer, within `run.silent_s`; their errors are raised as if they had happened here."""
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


class RayPool(ThreadedPool):
    """Lanes of actors; a cluster on this machine is started if none is joined."""

    def __init__(self, model: SceneModel, config: Config, *, allow_code: bool = False) -> None:
        """Joins or starts a cluster, and starts the lanes.

        Args:
            model: its description says what the actors load; it needs no weights.
            config: resolved config.
            allow_code: whether a bundle may bring its own head class.
        """
        import ray

        from deltascene.pipeline.workers import ray_actors

        if config.run.audit_every and config.run.placement == "split":
            raise UsageError("--audit-every: expected placement fused; with split no actor has all that a frame needs")
        _check_address(config.run.cluster)
        self._ray: Any = ray
        self._joined_here = not self._ray.is_initialized()
        if self._joined_here:
            # Without an address Ray would join whatever cluster was last started on this machine.
            own: dict[str, Any] = {"address": "local", "include_dashboard": False}
            where = {"address": config.run.cluster} if config.run.cluster else own
            self._ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
        split = {task: sub.split for task, sub in model.sub_tasks.items()} if config.run.placement == "split" else {}
        here = [task for task in model.tasks if task not in split]
        seat = ray_actors.ActorSetup(
            config=config,
            model=_model_anywhere(model, config),
            weights={file.name: file_sha256(file) for file in model.bundle.weight_files(model.tasks)},
            numerics=numerics_record(config),
            allow_code=allow_code,
        )
        cluster, each = self._ray.cluster_resources()["CPU"], 1 + len(split)
        lanes = config.run.workers or max(1, int(cluster // (each * seat.numerics["threads"])))
        cpus = _share_of_cpus(cluster, seat.numerics["threads"], lanes * each)
        made = [RayWorker(self._ray, seat, here, split, cpus) for _ in range(lanes)]
        try:
            placed = _placed(made)
        except BaseException:
            for lane in made:
                lane.close()
            self._leave()
            raise
        super().__init__(placed)

    def close(self) -> None:
        """As `WorkerPool.close`."""
        super().close()
        self._leave()

    def _leave(self) -> None:
        if self._joined_here:
            self._ray.shutdown()


def _placed(lanes: Sequence[RayWorker]) -> list[RayWorker]:
    """Lanes that are ready; those without room are closed, if others have it.

    Raises:
        UsageError: an actor can't compute as the run wants it.
        NoCapacity: none has room.
        WorkerLost: actors died again and again.
    """
    placed: list[RayWorker] = []
    for lane in lanes:
        try:
            _begin(lane)
        except NoCapacity as error:
            if lane is lanes[-1] and not placed:
                raise
            lane.close()
            _log.warning("%d of %d workers have room in the cluster: %s", len(placed), len(lanes), error)
        else:
            placed.append(lane)
    return placed


def _begin(lane: RayWorker) -> None:
    """Waits for a lane; actors that die meanwhile are replaced, a few times."""
    for attempt in range(1, TRIES + 1):
        try:
            lane.ready() if attempt == 1 else lane.restore()
            return
        except WorkerLost:
            if attempt == TRIES:
                raise


def _check_address(address: str | None) -> None:
    """Whether anybody listens at a cluster's address; Ray itself tries for minutes.

    Raises:
        UsageError: nobody does.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon:  # none, or a name that Ray knows, as `auto`
        return
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWERS_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(
            f"run.address: expected a Ray cluster at HOST:PORT; found none at {address} ({error}); ray start --head"
        ) from error


def open_pool(model: SceneModel, config: Config, *, allow_code: bool = False) -> WorkerPool:
    """The lanes that a config asks for; those in this process need a loaded model."""
    if config.run.executor == "ray":
        return RayPool(model, config, allow_code=allow_code)
    return InlinePool(LocalWorker(model, config))


def _model_anywhere(model: SceneModel, config: Config) -> str:
    """What an actor finds the bundle by: as it was named, but a folder by its absolute path."""
    named, folder = config.model, model.bundle.folder
    return named if "://" in named or named in packaged_models() else str(folder.resolve())


def _share_of_cpus(cluster: float, threads: int, engines: int) -> float:
    """Processors that an engine or sub-task actor asks for: its threads, or an equal share where there are fewer."""
    if engines * threads <= cluster:
        return float(threads)
    share = cluster / engines
    return float(int(share)) if share >= 1 else round(share - 0.005, 2)
