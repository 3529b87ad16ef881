"""The engine: frames in, predictions and their cost out; many streams, one model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from deltascene.pipeline.bundle import choose_tasks, read_bundle
from deltascene.pipeline.config import Config, load_config
from deltascene.pipeline.core_watch import CoreWatch
from deltascene.pipeline.errors import UsageError, nearest
from deltascene.pipeline.model import SceneModel, load_model, prepare_model
from deltascene.pipeline.numerics import settle
from deltascene.pipeline.results import FrameResult
from deltascene.pipeline.sources import find_sources
from deltascene.pipeline.sources_chosen import open_source
from deltascene.pipeline.step import StreamState, plan_geometry, step_streams
from deltascene.stages.input_plan import InputPlan
from deltascene.stages.motion import set_flow_threads
from deltascene.stages.types import Frame, Image


class Stream:
    """One open stream of an engine: call it with frame after frame."""

    def __init__(self, engine: "Engine", model: SceneModel, name: str) -> None:
        self.name = name
        self._engine, self._model, self._state, self._count = engine, model, StreamState(), 0

    def __call__(self, frame: Frame | Image, pts_s: float | None = None) -> FrameResult:
        """Runs one frame.

        Args:
            frame: a `Frame`, or RGB uint8 [H, W, 3].
            pts_s: time of a bare image in seconds; 25 frames a second are assumed without it.

        Raises:
            UsageError: the image isn't RGB uint8.
        """
        (result,) = step_together(self._engine, [self], [frame], pts_s)
        return result

    @property
    def plan(self) -> InputPlan:
        """How the stream's frames become model input; known from the first frame on."""
        assert self._state.geometry is not None, "no frame yet"
        return self._state.geometry.plan

    def reset(self) -> None:
        """Forgets what was computed: the next frame runs dense, as at the start of a segment."""
        self._state = StreamState()


def step_together(
    engine: "Engine", streams: Sequence[Stream], frames: Sequence[Frame | Image], pts_s: float | None = None
) -> list[FrameResult]:
    """One frame each of streams with the same tasks."""
    given = [
        frame if isinstance(frame, Frame) else as_frame(frame, stream.name, stream._count, pts_s)
        for stream, frame in zip(streams, frames, strict=True)
    ]
    states = [stream._state for stream in streams]
    done = step_streams(streams[0]._model, engine.config, list(zip(states, given, strict=True))) if streams else []
    for stream, frame, (state, _) in zip(streams, given, done, strict=True):
        stream._state, stream._count = state, frame.index + 1
    engine._watch.look()
    return [result for _, result in done]


class Engine:
    """A loaded model and a config: `Engine.load("rooms").run("clip.mp4")`.

    Attributes:
        model: backbone and heads of the tasks loaded.
        config: resolved config.
    """

    def __init__(self, model: SceneModel, config: Config) -> None:
        self.model, self.config = model, config
        self._streams: dict[str, Stream] = {}
        self._watch = CoreWatch()
        if config.numerics.threads is not None:
            torch.set_num_threads(config.numerics.threads)
        set_flow_threads(1)

    @classmethod
    def load(
        cls,
        model: str = "rooms",
        preset: str = "exact",
        tasks: Sequence[str] | None = None,
        *,
        overrides: Sequence[str] = (),
        allow_code: bool = False,
    ) -> "Engine":
        """Loads a model.

        Args:
            model: name of a packaged bundle, a folder, or an fsspec URL.
            preset: name of a preset.
            tasks: the tasks wanted; None is all of the bundle's. Only these are loaded.
            overrides: config keys as `dotted.key=value`.
            allow_code: whether a bundle may bring its own head class.

        Raises:
            UsageError: unknown model, preset, task or key.
        """
        values = {"model": model, "tasks": None if tasks is None else tuple(tasks)}
        return cls.from_config(load_config(preset, overrides=overrides, values=values), allow_code=allow_code)

    @classmethod
    def from_config(cls, config: Config, *, allow_code: bool = False) -> "Engine":
        """Loads what a resolved config names."""
        bundle, config = read_bundle(config.model), settle(config)
        tasks = choose_tasks(bundle, config.tasks)
        model = load_model(bundle, tasks, allow_code=allow_code, merged=config.numerics.delta == "merged")
        return cls(prepare_model(model, config.numerics), config)

    def open_stream(self, name: str, tasks: Sequence[str] | None = None) -> Stream:
        """A new stream, for some of the loaded tasks or all of them."""
        return Stream(self, self._with(tasks), name)

    def plan(self, frame_size: tuple[int, int]) -> InputPlan:
        """How frames of a size (height, width) would become model input.

        Raises:
            StageError: they are smaller than one patch.
        """
        return plan_geometry(self.model, self.config, frame_size).plan

    def step(self, frames: Mapping[str, Frame | Image]) -> dict[str, FrameResult]:
        """One frame each of several streams, by the streams' names; a new name opens a stream.

        Their rows run packed: one pass over the weights serves them all.

        Raises:
            UsageError: an image isn't RGB uint8.
        """
        streams = [self._streams.setdefault(name, Stream(self, self.model, name)) for name in frames]
        return dict(zip(frames, step_together(self, streams, list(frames.values())), strict=True))

    def run(self, source: str | Path | Iterable[Image], tasks: Sequence[str] | None = None) -> Iterator[FrameResult]:
        """Every frame of a source, one at a time; memory stays flat.

        Args:
            source: a video file, a folder of images, a list of such, or any iterable of RGB uint8 [H, W, 3].
            tasks: some of the loaded tasks; None is all of them.

        Yields:
            Results in the source's order; each source starts with a dense frame.

        Raises:
            UsageError: unknown task, or an image of the wrong form.
            SourceError: the source can't be read.
        """
        stream = self.open_stream("source", tasks)
        if isinstance(source, (str, Path)):
            yield from self._run_paths([str(source)], stream)
            return
        for item in source:
            if isinstance(item, (str, Path)):
                yield from self._run_paths([str(item)], stream)
            else:
                yield stream(item)

    def _run_paths(self, paths: Sequence[str], stream: Stream) -> Iterator[FrameResult]:
        for spec in find_sources(paths):
            for number, frame in enumerate(open_source(self.config.source, spec)):
                if number % self.config.segment.frames == 0:
                    stream.reset()
                yield stream(frame)

    def _with(self, tasks: Sequence[str] | None) -> SceneModel:
        if tasks is None:
            return self.model
        for task in tasks:
            if task not in self.model.tasks:
                raise UsageError(
                    f"task: loaded are {', '.join(self.model.tasks)}; found {task!r}{nearest(task, self.model.tasks)}"
                )
        subs = {task: sub for task, sub in self.model.sub_tasks.items() if task in tasks}
        return replace(self.model, tasks=tuple(task for task in self.model.tasks if task in tasks), sub_tasks=subs)


def as_frame(image: Image, source: str, index: int, pts_s: float | None) -> Frame:
    """A bare image as a frame.

    Raises:
        UsageError: it isn't RGB uint8 [H, W, 3].
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UsageError(f"frame: expected an RGB uint8 array [H, W, 3]; found {found}")
    return Frame(source, index, index / 25 if pts_s is None else pts_s, image)
