"""Policies for comparison with the engine's: simple reuse without this package, dense networks, and timm's forward."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from baselines import Network
from numpy.typing import NDArray
from torch import Tensor

from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.engine.step import plan_geometry
from deltascene.pipeline.evaluation.walk import Outcome, Walker
from deltascene.stages.change import Reference, cell_means, change_strength, exposure
from deltascene.stages.heads import activate, assemble, lay_out, stack_taps
from deltascene.stages.motion import estimate_flow, no_flow, plan_lookup, to_grey, warp
from deltascene.stages.preprocess import normalise, resize_frame
from deltascene.stages.types import Frame, TokenGrid


class EveryKth:
    """Simple reuse without this package: every k-th frame is dense, its outputs are held or warped in between.

    Warped outputs follow the optical flow of the whole frame back to the dense one, searched from that of the frame
    before on, as ours is.
    """

    def __init__(self, model: SceneModel, config: Config, k: int, *, warped: bool, dense: Walker | None = None) -> None:
        """Starts before a clip's first frame; with `dense`, that computes dense frames instead of `exact`."""
        self._model, self._config, self._k, self._warped, self._dense = model, config, k, warped, dense
        self.segment_frames = config.segment.frames
        self.reset()

    def reset(self) -> None:
        """Starts a segment, whose first frame is dense."""
        self._since, self._last, self._grey = 0, Outcome({}, 0.0, 0, 0, "none"), np.zeros((0, 0), np.uint8)
        self._flow = no_flow((0, 0))
        if self._dense is not None:
            self._dense.reset()

    def __call__(self, frame: Frame, dense: Outcome | None) -> Outcome:
        """Returns the dense outputs with their time and cost on every k-th frame, else held or warped ones."""
        assert frame.image is not None
        geometry = plan_geometry(self._model, self._config, frame.image.shape[:2])
        pixels, grid = resize_frame(frame.image, geometry.plan), geometry.grid
        began = time.perf_counter()
        moved = self._moved(pixels, grid)
        moves = bool(moved.any())
        due = self._since == 0 or (self._since >= self._k and moves)
        grey = to_grey(pixels.numpy()) if self._warped and (due or moves) else self._grey
        self._since = 1 if due else self._since + 1
        if due:
            self._grey, self._flow = grey, no_flow(grid.image_size)
            self._computed()
            spent = time.perf_counter() - began
            made = dense if self._dense is None else self._dense(frame, None)
            assert made is not None
            # `exact` holds a frame that equals the last one; a network doesn't.
            self._last = replace(made, seconds=made.seconds + spent, macs=made.macs_dense, policy="dense", reason="")
            return self._last
        values, warped = self._last.values, self._warped and moves
        if warped:
            self._flow = estimate_flow(grey, self._grey, moved, grid, self._flow)
            where = plan_lookup(self._flow, grid.image_size)
            values = {task: warp(value, self._model.bundle.kinds[task], where) for task, value in values.items()}
        policy = "warped" if warped else "held"
        return Outcome(values, time.perf_counter() - began, 0, self._last.macs_dense, policy)

    def _moved(self, pixels: Tensor, grid: TokenGrid) -> NDArray[np.bool_]:
        """Patches that may have moved since the last dense frame [h, w]: all, as nobody looks."""
        return np.ones((grid.height, grid.width), bool)

    def _computed(self) -> None:
        """Is called where the frame that was looked at last becomes dense."""


class Gated(EveryKth):
    """What people with cameras run: a motion gate, and simple reuse behind it.

    The gate is this package's change mask against the last dense frame. Where nothing moved, the outputs are held; else
    they are warped around the patches that moved, or dense if the last dense frame is k or more frames ago.
    """

    def reset(self) -> None:
        """Starts a segment, whose first frame is dense."""
        super().reset()
        self._reference: Reference | None = None
        self._cells_PQ = torch.zeros(0)

    def _moved(self, pixels: Tensor, grid: TokenGrid) -> NDArray[np.bool_]:
        change = self._config.change
        self._cells_PQ = cell_means(pixels, grid, change.cell_px)
        if self._reference is None:
            return super()._moved(pixels, grid)
        gain = exposure(self._cells_PQ, self._reference)
        self._reference = replace(self._reference, gain=gain)
        strength_P = change_strength(self._cells_PQ, self._reference, gain)
        return (strength_P > change.threshold).numpy().reshape(grid.height, grid.width)

    def _computed(self) -> None:
        self._reference = Reference(self._cells_PQ)


class Seldom:
    """A dense network on every n-th frame, which saves time where only its mean time is wanted."""

    def __init__(self, walker: Walker, every: int) -> None:
        """Takes a policy without state."""
        self._walker, self._every, self._count = walker, every, 0
        self.segment_frames = walker.segment_frames

    def reset(self) -> None:
        """Starts a segment; there is no state between frames."""

    def __call__(self, frame: Frame, dense: Outcome | None) -> Outcome:
        """The outcome of every n-th frame, which also stands for the frames after it."""
        if self._count % self._every == 0:
            self._last = self._walker(frame, dense)
        self._count += 1
        return self._last


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
