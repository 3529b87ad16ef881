"""Dense networks as yardsticks: B1, B2 and B2 in int8, for frames of one size (see `yardsticks.py`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec

import torch
from baselines import Compiled, Network, by_openvino, by_torch, networks
from quality import precision_of
from torch import Tensor
from walkers import ByNetworks

from deltascene.pipeline.bundles.scene_model import SceneModel, sketch_model
from deltascene.pipeline.config import Config
from deltascene.pipeline.engine.cost import frame_costs
from deltascene.pipeline.engine.step import plan_geometry
from deltascene.pipeline.engine.stopwatch import Stopwatch
from deltascene.pipeline.evaluation.clips import Clip
from deltascene.pipeline.evaluation.walk import ByEngine, Walker
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import read_frames
from deltascene.stages.preprocess import normalise, resize_frame
from deltascene.stages.types import TokenGrid


@dataclass(frozen=True)
class Dense:
    """Dense networks for frames of one size, compiled when they are first wanted.

    Attributes:
        model: the loaded model.
        exact: config of dense prediction.
        image: an example of an input [1, 3, H, W].
        grid: its token grid.
        openvino: whether OpenVINO runs them; else this package does.
        int8: whether B2 is also wanted in int8 (nncf's post-training quantisation).
    """

    model: SceneModel
    exact: Config
    image: Tensor
    grid: TokenGrid
    openvino: bool
    int8: bool = False

    @classmethod
    def of(cls, model: SceneModel, exact: Config, clip: Clip, *, openvino: bool = True, int8: bool = False) -> "Dense":
        """Networks for a clip's frames, by OpenVINO if it is wanted and installed."""
        with read_frames(find_sources([str(clip.path)])[0]) as reader:
            first = next(iter(reader)).image
        assert first is not None
        geometry, entry = plan_geometry(model, exact, first.shape[:2]), model.bundle.entry.input
        image = normalise(resize_frame(first, geometry.plan), entry.mean, entry.std)[None]
        return cls(model, exact, image, geometry.grid, openvino and find_spec("openvino") is not None, int8)

    @property
    def what(self) -> str:
        """How they run."""
        return f"OpenVINO {precision_of(self.exact)}" if self.openvino else "this package"

    def start_single(self) -> Walker:
        """B1."""
        return ByNetworks(self.model, self.exact, self._single)

    def start(self) -> Walker:
        """B2."""
        # The engine holds a frame that it was given before, so each policy has one of its own.
        return ByNetworks(self.model, self.exact, self._shared) if self.openvino else ByEngine(self.model, self.exact)

    def start_int8(self) -> Walker:
        """B2 in int8, calibrated on the first clip's first frame."""
        return ByNetworks(self.model, self.exact, self._int8)

    @property
    def macs_single(self) -> float:
        """MACs of B1 in percent of B2's."""

        def macs(tasks: Sequence[str]) -> int:
            sketch = sketch_model(self.model.bundle, tasks, merged=self.exact.numerics.delta == "merged")
            return sum(cost.dense.total for cost in frame_costs(sketch, None, self.grid, Stopwatch()).values())

        return 100 * sum(macs([task]) for task in self.model.tasks) / macs(self.model.tasks)

    @cached_property
    def _single(self) -> list[Network]:
        return self._networks(single_task=True)

    @cached_property
    def _shared(self) -> list[Network]:
        return self._networks(single_task=False)

    @cached_property
    def _int8(self) -> list[Network]:
        return self._networks(single_task=False, precision="int8")

    def _networks(self, *, single_task: bool, precision: Compiled | None = None) -> list[Network]:
        nets = networks(self.model.bundle, self.model.tasks, self.grid, single_task=single_task)
        best, threads = precision_of(self.exact), torch.get_num_threads()
        if precision is not None:
            return [by_openvino(net, self.image, threads, precision) for net in nets]
        ready = [by_openvino(net, self.image, threads, best) if self.openvino else by_torch(net, best) for net in nets]
        for net in ready:
            net(self.image)  # the first time is longer
        return ready
