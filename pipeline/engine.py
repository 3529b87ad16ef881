"""The engine: frames in, predictions and their cost out. `step` is the walk of one frame, on one screen."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deltascene.pipeline.bundle import choose_tasks, read_bundle
from deltascene.pipeline.config import Config, load_config
from deltascene.pipeline.errors import UsageError, nearest
from deltascene.pipeline.model import SceneModel, load_model
from deltascene.stages.backbone import Positions
from deltascene.stages.base_task import run_base
from deltascene.stages.cost import Macs, blocks_macs, embed_macs
from deltascene.stages.heads import activate, assemble, stack_taps
from deltascene.stages.kinds import Kind
from deltascene.stages.policy import Policy, choose_policy
from deltascene.stages.preprocess import InputPlan, normalise, plan_input, resize_frame
from deltascene.stages.types import Frame, Image, TokenGrid

MAX_AGE = 255


@dataclass(frozen=True, slots=True)
class Prediction:
    """One task's answer for one frame.

    Attributes:
        kind: of the task.
        array: natural values, [H, W] or [H, W, components] at the model's input size.
        age: frames since each pixel was computed [H, W]; 255 means that or more.
    """

    kind: Kind
    array: NDArray[Any]
    age: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TaskCost:
    """What one task cost on one frame.

    Attributes:
        rows: tokens of the frame.
        rows_computed: tokens that went through the task's own blocks; 0 where it has none.
        executed: MACs that ran.
        dense: MACs of the same task with every row, every frame.
        seconds: measured time by stage.
    """

    rows: int
    rows_computed: int
    executed: Macs
    dense: Macs
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class FrameCost:
    """What a frame cost, all tasks together."""

    tasks: Mapping[str, TaskCost]

    @property
    def macs_executed(self) -> int:
        """MACs that ran."""
        return sum(cost.executed.total for cost in self.tasks.values())

    @property
    def macs_dense(self) -> int:
        """MACs of the same bundle with every row of every frame."""
        return sum(cost.dense.total for cost in self.tasks.values())

    @property
    def seconds(self) -> float:
        """Measured time of all stages inside the engine."""
        return sum(sum(cost.seconds.values()) for cost in self.tasks.values())


@dataclass(frozen=True, slots=True)
class FrameResult:
    """Everything about one frame: `result["depth"].array`, `result.cost`, `result.plot()`.

    Attributes:
        frame: the frame itself.
        policy: what was decided for it.
        predictions: by task; empty for an invalid frame.
        cost: what ran and what it cost. The base's row is always there: its blocks serve every task.
    """

    frame: Frame
    policy: Policy
    predictions: Mapping[str, Prediction]
    cost: FrameCost

    @property
    def index(self) -> int:
        """Number of the frame in its source."""
        return self.frame.index

    @property
    def pts_s(self) -> float:
        """Presentation time in seconds."""
        return self.frame.pts_s

    @property
    def valid(self) -> bool:
        """Whether the frame is what the camera saw; an invalid one has no predictions."""
        return self.frame.valid

    @property
    def cause(self) -> str:
        """Why it isn't valid, or why the stream was reset."""
        return self.frame.cause

    def __getitem__(self, task: str) -> Prediction:
        """One task's prediction.

        Raises:
            KeyError: it wasn't predicted; the text says why.
        """
        if task not in self.predictions:
            why = (
                f"frame {self.index} is invalid ({self.cause})"
                if not self.valid
                else "predicted: " + ", ".join(self.predictions)
            )
            raise KeyError(f"{task!r} was not predicted; {why}")
        return self.predictions[task]

    def plot(self) -> Image:
        """A picture of the frame and its predictions, RGB [H, W, 3]."""
        from deltascene.pipeline.overlay import compose

        image = self.frame.image if self.frame.image is not None else np.zeros((240, 320, 3), np.uint8)
        values = {name: prediction.array for name, prediction in self.predictions.items()}
        kinds = {name: prediction.kind for name, prediction in self.predictions.items()}
        return compose(image, values, kinds, caption=f"#{self.index}  {self.pts_s:.2f} s  {self.policy}")


@dataclass(frozen=True, slots=True)
class InputGeometry:
    """What depends on a stream's frame size alone, worked out once."""

    plan: InputPlan
    grid: TokenGrid
    positions: Positions


@dataclass(frozen=True, slots=True)
class StreamState:
    """What a stream carries from frame to frame inside a segment; it starts empty.

    Attributes:
        geometry: of its frame size.
        pixels: last computed input, uint8 [3, H, W].
        predictions: last outputs.
    """

    geometry: InputGeometry | None = None
    pixels: Tensor | None = None
    predictions: Mapping[str, Prediction] = field(default_factory=dict)


@torch.inference_mode()
def step(model: SceneModel, config: Config, state: StreamState, frame: Frame) -> tuple[StreamState, FrameResult]:
    """One frame of one stream: preprocess, decide, run what is needed.

    Args:
        model: backbone and heads.
        config: resolved config.
        state: what the stream carries; an empty one starts a segment with a dense frame.
        frame: the frame; an invalid one is passed through without a prediction.

    Returns:
        The stream's next state, and the frame's result.
    """
    clock = Stopwatch()
    if not frame.valid or frame.image is None:
        return state, _result(model, state, replace(frame, valid=False), "skipped", {}, clock)
    geometry = state.geometry
    if geometry is None or geometry.plan.frame_size != frame.image.shape[:2]:
        frame = frame if geometry is None else replace(frame, cause=frame.cause or "resized")
        state = StreamState(plan_geometry(model, config, frame.image.shape[:2]))
        geometry = state.geometry
    assert geometry is not None
    pixels = resize_frame(frame.image, geometry.plan)
    clock.lap("preprocess")
    policy = choose_policy(
        valid=True,
        first=state.pixels is None,
        identical=state.pixels is not None and torch.equal(pixels, state.pixels),
        hold_identical=config.policy.hold_identical,
    )
    clock.lap("preprocess")
    if policy == "held":
        predictions = {name: replace(last, age=_older(last.age)) for name, last in state.predictions.items()}
    else:
        predictions = _predict_dense(model, geometry, pixels, clock)
        state = StreamState(geometry, pixels, predictions)
    return replace(state, predictions=predictions), _result(model, state, frame, policy, predictions, clock)


def plan_geometry(model: SceneModel, config: Config, frame_size: tuple[int, int]) -> InputGeometry:
    """Input size, token grid and positions for frames of one size.

    Raises:
        StageError: the frames are smaller than one patch.
    """
    entry, asked = model.bundle.entry.input, config.input.size
    size, short_side = entry.size, entry.short_side
    if asked is not None:
        size, short_side = (None, asked) if isinstance(asked, int) else (asked, None)
    plan = plan_input(frame_size, model.backbone.patch, size=size, short_side=short_side, resize=entry.resize)
    grid = model.backbone.grid(plan.model_size)
    return InputGeometry(plan, grid, model.backbone.positions(grid))


class Stopwatch:
    """Seconds by (task, stage): `lap` books the time since the last lap."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str, task: str = "") -> None:
        """Books the time since the last lap; no task means shared by all, booked on the base."""
        now = time.perf_counter()
        self.seconds[task, stage] = self.seconds.get((task, stage), 0.0) + now - self._last
        self._last = now


def _predict_dense(
    model: SceneModel, geometry: InputGeometry, pixels: Tensor, clock: Stopwatch
) -> dict[str, Prediction]:
    bundle, grid = model.bundle, geometry.grid
    image_CHW = normalise(pixels, bundle.entry.input.mean, bundle.entry.input.std)
    clock.lap("preprocess")
    x_ND = model.backbone.embed(image_CHW, geometry.positions)
    clock.lap("embed")
    tapped = run_base(model.backbone, x_ND, bundle.taps(model.tasks))
    clock.lap("blocks")
    predictions = {}
    for task in model.tasks:
        head, kind = model.heads[task], bundle.kinds[task]
        cells = head.cells(stack_taps(tapped, bundle.entry.tasks[task].taps, grid.prefix))
        value = activate(assemble(cells, grid, kind.channels, head.side), kind.activation).numpy()
        if kind.activation == "argmax":
            value = value.astype(kind.stored.dtype)
        predictions[task] = Prediction(kind, value, np.zeros(grid.image_size, np.uint8))
        clock.lap("head", task)
    return predictions


def _older(age: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(age < MAX_AGE, age + 1, age).astype(np.uint8)


def _result(
    model: SceneModel,
    state: StreamState,
    frame: Frame,
    policy: Policy,
    predictions: Mapping[str, Prediction],
    clock: Stopwatch,
) -> FrameResult:
    return FrameResult(frame, policy, predictions, FrameCost(_costs(model, state, policy, clock)))


def _costs(model: SceneModel, state: StreamState, policy: Policy, clock: Stopwatch) -> dict[str, TaskCost]:
    base = model.bundle.entry.base
    costs = {}
    for task in dict.fromkeys((base, *model.tasks)):
        dense = dense_macs(model, state.geometry.grid, task) if state.geometry and policy != "skipped" else Macs()
        ran = policy == "dense"
        tokens = state.geometry.grid.tokens if state.geometry else 0
        seconds = {
            stage: spent
            for (owner, stage), spent in clock.seconds.items()
            if owner == task or (owner == "" and task == base)
        }
        own_rows = tokens if ran and task == base else 0
        costs[task] = TaskCost(tokens, own_rows, dense if ran else Macs(), dense, seconds)
    return costs


def dense_macs(model: SceneModel, grid: TokenGrid, task: str) -> Macs:
    """MACs of a task on one dense frame; the base carries the embedding and the blocks, which every task shares."""
    head = model.heads[task].macs_per_token() * grid.patches if task in model.tasks else 0
    if task != model.bundle.entry.base:
        return Macs(head=head)
    shapes = model.backbone.block_shapes()[: max(model.bundle.taps(model.tasks))]
    return Macs(
        embed=embed_macs(grid.patches, model.backbone.patch_macs()),
        blocks=blocks_macs(shapes, grid.tokens, grid.tokens),
        head=head,
    )


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
        if not isinstance(frame, Frame):
            frame = as_frame(frame, self.name, self._count, pts_s)
        self._count = frame.index + 1
        self._state, result = step(self._model, self._engine.config, self._state, frame)
        return result

    @property
    def plan(self) -> InputPlan:
        """How the stream's frames become model input; known from the first frame on."""
        assert self._state.geometry is not None, "no frame yet"
        return self._state.geometry.plan

    def reset(self) -> None:
        """Forgets what was computed: the next frame runs dense, as at the start of a segment."""
        self._state = StreamState()


class Engine:
    """A loaded model and a config: `Engine.load("rooms").run("clip.mp4")`.

    Attributes:
        model: backbone and heads of the tasks loaded.
        config: resolved config.
    """

    def __init__(self, model: SceneModel, config: Config) -> None:
        self.model, self.config = model, config
        self._streams: dict[str, Stream] = {}
        if config.numerics.threads is not None:
            torch.set_num_threads(config.numerics.threads)

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
        bundle = read_bundle(config.model)
        return cls(load_model(bundle, choose_tasks(bundle, config.tasks), allow_code=allow_code), config)

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
        """One frame each of several streams, by the streams' names; a new name opens a stream."""
        for name in frames:
            if name not in self._streams:
                self._streams[name] = self.open_stream(name)
        return {name: self._streams[name](frame) for name, frame in frames.items()}

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
        from deltascene.pipeline.sources import find_sources, read_frames

        chosen, segment = self.config.source, self.config.segment.frames
        for spec in find_sources(paths):
            frames = read_frames(
                spec,
                start_s=chosen.start_s,
                end_s=chosen.end_s,
                stride=chosen.stride,
                fps=chosen.fps,
                decoder=chosen.decoder,
            )
            for number, frame in enumerate(frames):
                if number % segment == 0:
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
        return replace(self.model, tasks=tuple(task for task in self.model.tasks if task in tasks))


def as_frame(image: Image, source: str, index: int, pts_s: float | None) -> Frame:
    """A bare image as a frame.

    Raises:
        UsageError: it isn't RGB uint8 [H, W, 3].
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UsageError(f"frame: expected an RGB uint8 array [H, W, 3]; found {found}")
    return Frame(source, index, index / 25 if pts_s is None else pts_s, image)
