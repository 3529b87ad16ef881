"""Policies for comparison with the engine's: simple reuse without this package, dense networks, and timm's forward."""

import time
from collections.abc import Sequence

import numpy as np
import torch
from baselines import Network

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
    """Simple reuse without this package: every k-th frame is dense, its outputs are held or warped in between.

    Warped outputs follow the optical flow of the whole frame back to the dense one.
    """

    def __init__(
        self, model: SceneModel, config: Config, k: int, *, warped: bool, dense: "ByNetworks | None" = None
    ) -> None:
        """Starts before a clip's first frame; with `dense`, that computes dense frames instead of `exact`."""
        self._model, self._config, self._k, self._warped, self._dense = model, config, k, warped, dense
        self.segment_frames = config.segment.frames
        self.reset()

    def reset(self) -> None:
        """Starts a segment, whose first frame is dense."""
        self._count, self._values, self._grey = 0, dict[str, Array](), np.zeros((0, 0), np.uint8)

    def __call__(self, frame: Frame, dense: Outcome | None) -> Outcome:
        """Returns the dense outputs with their time and cost on every k-th frame, else held or warped ones."""
        assert frame.image is not None
        due = self._count % self._k == 0
        if self._dense is not None:
            dense = self._dense(frame, None) if due else Outcome({}, 0.0, 0, 0, "")
        assert dense is not None
        geometry = plan_geometry(self._model, self._config, frame.image.shape[:2])
        pixels, grid = resize_frame(frame.image, geometry.plan).numpy(), geometry.grid
        began = time.perf_counter()
        self._count += 1
        values = dict(dense.values) if due else self._values
        if self._warped:
            grey = to_grey(pixels)
            self._grey = grey if due else self._grey
        if due:
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
    """Dense networks of the tasks (see `baselines`)."""

    def __init__(self, model: SceneModel, config: Config, networks: Sequence[Network]) -> None:
        """Takes one network for all tasks, or one per task, in the model's order."""
        self._model, self._config, self._networks = model, config, networks
        self.segment_frames = config.segment.frames

    def reset(self) -> None:
        """Starts a segment; there is no state between frames."""

    def __call__(self, frame: Frame, dense: Outcome | None) -> Outcome:
        """Processes one frame; the time includes arranging the outputs as pictures."""
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
    """timm's forward and the heads, only for its time; its outputs aren't kept.

    The time contains neither tasks' own blocks, so that it is a lower bound, nor the resizing of the frame.
    """

    def __init__(self, model: SceneModel, config: Config) -> None:
        """Takes a model as returned by `load_model`, and converts it to the config's dtype."""
        self._model, self._config, self._dtype = model, config, getattr(torch, config.numerics.dtype)
        model.backbone.to(self._dtype)
        for head in model.heads.values():
            head.to(self._dtype)
        self.segment_frames = config.segment.frames

    def reset(self) -> None:
        """Starts a segment; there is no state between frames."""

    @torch.inference_mode()
    def __call__(self, frame: Frame, dense: Outcome | None) -> Outcome:
        """Processes one frame; returns no predictions."""
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
