"""Segments of a stream: the one loop that runs or evaluates a stream, with a model or without.

The results of a segment depend on no earlier frame, so all state is reset at its start. A segment is a number of
processed frames: a source's times and stride apply before, and invalid frames count.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.engine.decide import Decision, TemporalState, decide, follow, uses_evidence
from deltascene.pipeline.engine.step import grid_of
from deltascene.pipeline.numerics.plain_torch import plain_torch
from deltascene.stages.input_plan import InputPlan
from deltascene.stages.preprocess import resize_frame
from deltascene.stages.types import Frame, TokenGrid
from deltascene.stages.zones import ignored_patches

Item = TypeVar("Item")


class Carrier(Protocol):
    """An object whose state lasts for a segment."""

    @property
    def segment_frames(self) -> int:
        """Number of frames of a segment."""

    def reset(self) -> None:
        """Drops the state at the start of a segment."""


def begins_segment(number: int, segment_frames: int) -> bool:
    """Whether a stream's processed frame, numbered from 0, is the first one of a segment."""
    return number % segment_frames == 0


def in_segments(frames: Iterable[Item], *carriers: Carrier, start: int = 0) -> Iterator[Item]:
    """Yields a stream's frames in order, and resets the carriers before the first frame of each of their segments.

    Args:
        frames: processed frames, or one item for each of them.
        carriers: objects with state; they must be done with a frame before the next one is requested.
        start: number of the first of these frames among the processed ones.
    """
    for number, frame in enumerate(frames, start):
        for carrier in carriers:
            if begins_segment(number, carrier.segment_frames):
                carrier.reset()
        yield frame


@dataclass(frozen=True, slots=True)
class DecidedFrame:
    """Decisions of a run about a frame.

    Attributes:
        frame: the frame.
        grid: token grid of its size; None for an invalid frame.
        decisions: one for each config; empty for an invalid frame.
    """

    frame: Frame
    grid: TokenGrid | None = None
    decisions: Sequence[Decision] = ()


def decide_frames(model: SceneModel, configs: Sequence[Config], frames: Iterable[Frame]) -> Iterator[DecidedFrame]:
    """Yields the decisions of runs under some configs, frame by frame; they depend on pixels alone.

    Args:
        model: shapes are enough, as no weights are used.
        configs: resolved configs, at least one, with the same input and segments, so that a frame is resized once.
        frames: processed frames of one stream.

    Raises:
        StageError: a frame is smaller than one patch.
    """
    deciding = _Deciding(model, configs)
    for frame in in_segments(frames, deciding):
        yield deciding(frame)


class _Deciding:
    """Decisions about one stream under several configs, with their state."""

    def __init__(self, model: SceneModel, configs: Sequence[Config]) -> None:
        self._model, self._configs, (first, *others) = model, configs, configs
        assert all((each.input, each.segment) == (first.input, first.segment) for each in others), "pixels are shared"
        self.segment_frames = first.segment.frames
        self._begun: tuple[int, int] | None = None
        self.reset()

    def reset(self) -> None:
        """Drops the state at the start of a segment, or when the frames' size changed."""
        self._states = [TemporalState()] * len(self._configs)
        self._geometry: tuple[InputPlan, TokenGrid] | None = None
        self._ignored: list[NDArray[np.bool_] | None] = []

    @plain_torch()
    def __call__(self, frame: Frame) -> DecidedFrame:
        """Decides about one frame."""
        if not frame.valid or frame.image is None:
            return DecidedFrame(frame)
        size = (frame.image.shape[0], frame.image.shape[1])
        self._begun = self._begun or size
        if self._geometry is None or self._geometry[0].frame_size != size:
            self.reset()
            self._geometry = grid_of(self._model, self._configs[0], size, self._begun)
            zones = (config.change.ignored_in(frame.source) for config in self._configs)
            self._ignored = [ignored_patches(polygons, *self._geometry) for polygons in zones]
        plan, grid = self._geometry
        pixels = resize_frame(frame.image, plan)
        decisions = []
        for place, config in enumerate(self._configs):
            self._states[place], decision = decide(
                config, grid, self._states[place], frame, pixels, self._ignored[place]
            )
            if decision.policy == "warped" and uses_evidence(config):
                self._states[place], _ = follow(config, grid, self._states[place], decision)
            decisions.append(decision)
        return DecidedFrame(frame, grid, decisions)
