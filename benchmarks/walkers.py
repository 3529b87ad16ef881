"""Policies beside the engine's: what anybody can do without this package, and what is walked for its time alone."""

import time
from collections.abc import Sequence

import numpy as np
import torch
from yardsticks import Network

from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.engine.step import plan_geometry
from deltascene.pipeline.evaluation.walk import Outcome
from deltascene.stages.heads import activate, assemble, lay_out, stack_taps
from deltascene.stages.kinds import Array
from deltascene.stages.motion import estimate_flow, plan_lookup, to_grey, warp
from deltascene.stages.preprocess import normalise, resize_frame
from deltascene.stages.types import Frame


class EveryKth:
    """What anybody can do without this package: dense every k-th frame, its outputs held or warped in between.

    Warped outputs follow the optical flow of the whole frame back to the dense one.
    """

    def __init__(
        self, model: SceneModel, config: Config, k: int, *, warped: bool, dense: "ByNetworks | None" = None
    ) -> None:
        """Starts before a clip's first frame; `dense` computes instead of what `exact` said."""
        self._model, self._config, self._k, self._warped, self._dense = model, config, k, warped, dense
        self.segment_frames = config.segment.frames
        self.reset()

    def reset(self) -> None:
        """A segment starts: its first frame is dense."""
        self._count, self._values, self._grey = 0, dict[str, Array](), np.zeros((0, 0), np.uint8)

    def __call__(self, frame: Frame, dense: Outcome | None) -> Outcome:
        """Takes the dense outputs, with their time and their cost, when it is their turn."""
        assert frame.image is not None
        turn = self._count % self._k == 0
        if self._dense is not None:
            dense = self._dense(frame, None) if turn else Outcome({}, 0.0, 0, 0, "")
        assert dense is not None
        geometry = plan_geometry(self._model, self._config, frame.image.shape[:2])
        pixels, grid = resize_frame(frame.image, geometry.plan).numpy(), geometry.grid
        began = time.perf_counter()
        self._count += 1
        values = dict(dense.values) if turn else self._values
        if self._warped:
            grey = to_grey(pixels)
            self._grey = grey if turn else self._grey
        if turn:
            self._values = values
            return dense
        if self._warped:
            kinds = self._model.bundle.kinds
            flow = estimate_flow(grey, self._grey, np.ones((grid.height, grid.width), bool), grid)
            where = plan_lookup(flow, grid.image_size)
            values = {task: warp(value, kinds[task], where) for task, value in values.items()}
        policy = "warped" if self._warped else "held"
        return Outcome(values, time.perf_counter() - began, 0, dense.macs_dense, policy)


class ByNetworks:
    """Dense networks of the tasks, as a user would run them: see `yardsticks`."""

    def __init__(self, model: SceneModel, config: Config, networks: Sequence[Network]) -> None:
        """Takes one network for all tasks, or one for each, in the model's order."""
        self._model, self._config, self._networks = model, config, networks
        self.segment_frames = config.segment.frames

    def reset(self) -> None:
        """A segment starts; nothing is carried from frame to frame."""

    def __call__(self, frame: Frame, dense: Outcome | None) -> Outcome:
        """One frame; the time includes putting the outputs into pictures."""
        assert frame.image is not None
        entry, geometry = (
            self._model.bundle.entry.input,
            plan_geometry(self._model, self._config, frame.image.shape[:2]),
        )
        pixels = resize_frame(frame.image, geometry.plan)
        began = time.perf_counter()
        image = normalise(pixels, entry.mean, entry.std)[None]
        outputs = [output for network in self._networks for output in network(image)]
        values = {task: lay_out(output, geometry.grid) for task, output in zip(self._model.tasks, outputs, strict=True)}
        return Outcome(values, time.perf_counter() - began, 0, 0, "dense")


class Eager:
    """timm's own forward and the heads, for its time alone; nothing of ours but the heads is in it.

    A task with blocks of its own would cost more: it isn't charged for them, nor for resizing the frame.
    """

    def __init__(self, model: SceneModel, config: Config) -> None:
        """Takes a model as `load_model` gives it, and changes its type to the config's."""
        self._model, self._config, self._dtype = model, config, getattr(torch, config.numerics.dtype)
        model.backbone.to(self._dtype)
        for head in model.heads.values():
            head.to(self._dtype)
        self.segment_frames = config.segment.frames

    def reset(self) -> None:
        """A segment starts; nothing is carried from frame to frame."""

    @torch.inference_mode()
    def __call__(self, frame: Frame, dense: Outcome | None) -> Outcome:
        """One frame; it predicts nothing that is kept."""
        assert frame.image is not None
        model, entry = self._model, self._model.bundle.entry
        geometry = plan_geometry(model, self._config, frame.image.shape[:2])
        pixels, taps = resize_frame(frame.image, geometry.plan), model.bundle.taps(model.tasks)
        began = time.perf_counter()
        image = normalise(pixels, entry.input.mean, entry.input.std)[None].to(self._dtype)
        tapped = {tap: tokens_BPD[0] for tap, tokens_BPD in model.backbone.dense_taps(image, taps).items()}
        for task, head in model.heads.items():
            kind = model.bundle.kinds[task]
            cells = head.cells(stack_taps(tapped, entry.tasks[task].taps, 0)).float()
            activate(assemble(cells, geometry.grid, kind.channels, head.side), kind.activation).numpy()
        return Outcome({}, time.perf_counter() - began, 0, 0, "eager")
