"""The engine: frames in, predictions and their cost out; many streams, one model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from math import inf
from numbers import Real
from pathlib import Path
from typing import cast

import numpy as np
import torch

from deltascene.pipeline.bundles.bundle import choose_tasks, read_bundle
from deltascene.pipeline.bundles.scene_model import SceneModel, load_model, prepare_model
from deltascene.pipeline.config import DEFAULT_PRESET, Config, load_config
from deltascene.pipeline.engine.replay import in_segments
from deltascene.pipeline.engine.results import FrameResult
from deltascene.pipeline.engine.step import InputGeometry, StreamState, plan_geometry, step_streams
from deltascene.pipeline.errors import UsageError, nearest
from deltascene.pipeline.numerics.core_watch import CoreWatch
from deltascene.pipeline.numerics.plain_torch import plain_torch
from deltascene.pipeline.numerics.settle import settle
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import open_source
from deltascene.pipeline.text import shown
from deltascene.stages.input_plan import InputPlan
from deltascene.stages.types import Frame, Image, TokenGrid


class Stream:
    """One open stream, called with one frame after another; it alone owns the stream's state."""

    def __init__(self, model: SceneModel, config: Config, name: str, watch: CoreWatch | None = None) -> None:
        """Takes a loaded model.

        Args:
            model: the model, all of whose tasks are computed.
            config: resolved config.
            name: name of the stream, which becomes the source of bare images.
            watch: watch over torch's threads in this process, if there is one.
        """
        self.name = name
        self.begun: tuple[int, int] | None = None
        self._model, self._config, self._count = model, config, 0
        self.reset()
        self._watch = watch

    def __call__(self, frame: Frame | Image, pts_s: float | None = None) -> FrameResult:
        """Runs one frame.

        Args:
            frame: a `Frame`, or RGB uint8 [H, W, 3].
            pts_s: presentation time of a bare image in seconds; without it, 25 frames a second are assumed.

        Raises:
            UsageError: the image isn't RGB uint8, or its time isn't a number of seconds from the last frame's on.
        """
        (result,) = step_together([self], [frame], pts_s)
        return result

    @property
    def plan(self) -> InputPlan:
        """How the stream's frames become model input; available after the first frame."""
        return self._geometry.plan

    @property
    def grid(self) -> TokenGrid:
        """Token grid of the stream's frames; available after the first frame."""
        return self._geometry.grid

    @property
    def segment_frames(self) -> int:
        """Number of frames of a segment, from the config."""
        return self._config.segment.frames

    def reset(self) -> None:
        """Drops the state: the next frame runs dense, as at the start of a segment."""
        self._state, self._last_s = StreamState(begun=self.begun), 0.0

    @property
    def _geometry(self) -> InputGeometry:
        assert self._state.geometry is not None, "no frame yet"
        return self._state.geometry


def step_together(
    streams: Sequence[Stream], frames: Sequence[Frame | Image], pts_s: float | None = None
) -> list[FrameResult]:
    """Runs one frame of each of several streams with the same model and config."""
    given = [
        frame if isinstance(frame, Frame) else as_frame(frame, stream.name, stream._count, pts_s)
        for stream, frame in zip(streams, frames, strict=True)
    ]
    for stream, frame in zip(streams, given, strict=True):
        _check_time(stream, frame)
    states = [stream._state for stream in streams]
    if not streams:
        return []
    model, config = streams[0]._model, streams[0]._config
    with plain_torch(config.numerics.threads):
        done = step_streams(model, config, list(zip(states, given, strict=True)))
        if (watch := streams[0]._watch) is not None:
            watch.look()
    for stream, frame, (state, _) in zip(streams, given, done, strict=True):
        stream._state, stream._count, stream._last_s = state, frame.index + 1, frame.pts_s
    return [result for _, result in done]


class Engine:
    """A loaded model and a config: `Engine.load("rooms").run("clip.mp4")`.

    Results don't depend on what the program around it has set in torch or OpenCV, and these settings stay as they are.

    Attributes:
        model: backbone and heads of the tasks loaded.
        config: resolved config; threads that it leaves open are as many as torch had when the engine was made.
    """

    def __init__(self, model: SceneModel, config: Config) -> None:
        threads = config.numerics.threads or torch.get_num_threads()
        numerics = config.numerics.model_copy(update={"threads": threads})
        self.model, self.config = model, config.model_copy(update={"numerics": numerics})
        self._streams: dict[str, Stream] = {}
        self._watch = CoreWatch()

    @classmethod
    def load(
        cls,
        model: str = "rooms",
        preset: str = DEFAULT_PRESET,
        tasks: Sequence[str] | None = None,
        *,
        overrides: Sequence[str] = (),
        allow_code: bool = False,
    ) -> "Engine":
        """Loads a model.

        Args:
            model: name of a packaged bundle, a folder, or an fsspec URL.
            preset: name of a preset; `exact` computes every token of every frame.
            tasks: tasks to load; None is all of the bundle's.
            overrides: config keys as `dotted.key=value`.
            allow_code: whether a bundle may bring its own head class.

        Raises:
            UsageError: unknown model, preset, task or key.
        """
        values = {"model": model, "tasks": None if tasks is None else tuple(tasks)}
        return cls.from_config(load_config(preset, overrides=overrides, values=values), allow_code=allow_code)

    @classmethod
    @plain_torch()
    def from_config(cls, config: Config, *, allow_code: bool = False) -> "Engine":
        """Loads the model and tasks of a resolved config."""
        bundle, config = read_bundle(config.model), settle(config)
        tasks = choose_tasks(bundle, config.tasks)
        model = load_model(bundle, tasks, allow_code=allow_code, merged=config.numerics.delta == "merged")
        return cls(prepare_model(model, config.numerics), config)

    def open_stream(self, name: str, tasks: Sequence[str] | None = None) -> Stream:
        """A new stream for some of the loaded tasks, or for all of them; the caller owns it."""
        return Stream(self._with(tasks), self.config, name, self._watch)

    @plain_torch()
    def plan(self, frame_size: tuple[int, int]) -> InputPlan:
        """How frames of a size (height, width) become model input.

        Raises:
            StageError: the frames are smaller than one patch.
        """
        return plan_geometry(self.model, self.config, frame_size).plan

    def step(self, frames: Mapping[str, Frame | Image]) -> dict[str, FrameResult]:
        """Runs one frame of each of several streams, given by name; a new name opens a stream, until `close_stream`.

        The rows of all streams run packed: one pass over the weights serves all of them.

        Raises:
            UsageError: an image isn't RGB uint8, or a time isn't a number of seconds from the last frame's on.
        """
        for name in frames:
            if name not in self._streams:
                self._streams[name] = self.open_stream(name)
        streams = [self._streams[name] for name in frames]
        return dict(zip(frames, step_together(streams, list(frames.values())), strict=True))

    def close_stream(self, name: str) -> None:
        """Closes a stream that `step` opened and frees its state; the same name then opens a new stream.

        Raises:
            UsageError: no such stream is open.
        """
        if name not in self._streams:
            known = ", ".join(self._streams) or "none"
            raise UsageError(f"stream: open are {known}; found {name!r}{nearest(name, self._streams)}")
        del self._streams[name]

    def run(self, source: str | Path | Iterable[Image], tasks: Sequence[str] | None = None) -> Iterator[FrameResult]:
        """Runs every frame of a source, one at a time, in constant memory.

        Args:
            source: a video file, a folder of images, a list of such, or any iterable of RGB uint8 [H, W, 3].
            tasks: some of the loaded tasks; None is all of them.

        Yields:
            Results in the source's order; each source, and each of its segments, starts with a dense frame.

        Raises:
            UsageError: unknown task, or an image that isn't RGB uint8.
            SourceError: the source can't be read.
        """
        stream = self.open_stream("source", tasks)
        items = [source] if isinstance(source, (str, Path)) else source
        for are_paths, group in groupby(items, lambda item: isinstance(item, (str, Path))):
            if are_paths:
                for spec in (spec for path in group for spec in find_sources([str(path)])):
                    yield from _run_source(open_source(self.config.source, spec), stream)
            else:
                yield from _run_source(cast("Iterator[Image]", group), stream)

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


def _run_source(frames: Iterable[Frame | Image], stream: Stream) -> Iterator[FrameResult]:
    """Runs one source on a stream; frames that change their size on the way keep the input of the first."""
    stream.begun = None
    for frame in in_segments(frames, stream):
        result = stream(frame)
        stream.begun = stream._state.begun
        yield result


def as_frame(image: Image, source: str, index: int, pts_s: float | None) -> Frame:
    """A bare image as a frame.

    Raises:
        UsageError: it isn't RGB uint8 [H, W, 3].
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UsageError(f"frame: expected an RGB uint8 array [H, W, 3]; found {found}")
    return Frame(source, index, index / 25 if pts_s is None else pts_s, image)


def _check_time(stream: Stream, frame: Frame) -> None:
    """Refuses a time that isn't finite or lies before the frame before it.

    Raises:
        UsageError: it is such a time.
    """
    if not (isinstance(frame.pts_s, Real) and stream._last_s <= frame.pts_s < inf):
        raise UsageError(
            f"stream {stream.name!r}, frame {frame.index}: expected pts_s as seconds from the source's start,"
            f" {stream._last_s:g} or more as after the last frame; found {shown(frame.pts_s)};"
            " give every frame its time, and call reset() where a stream begins anew"
        )
