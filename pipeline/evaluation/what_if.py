"""What a preset would save on a video, without running a model: change mask and policy are replayed over its pixels.

The decisions are those of a run, so rows and MACs are exact. The loss of accuracy isn't known.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from deltascene.pipeline.bundles.bundle import choose_tasks, read_bundle
from deltascene.pipeline.bundles.scene_model import SceneModel, handing_over, sketch_model
from deltascene.pipeline.config import Config
from deltascene.pipeline.engine.cost import frame_costs
from deltascene.pipeline.engine.replay import decide_frames
from deltascene.pipeline.engine.stopwatch import Stopwatch
from deltascene.pipeline.numerics.plain_torch import plain_torch
from deltascene.pipeline.sources.reader import open_source
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.stages.change import count_rows


@dataclass(frozen=True, slots=True)
class FrameForecast:
    """One frame of a replay.

    Attributes:
        index: number of the frame in the source.
        policy: policy of the frame, or `skipped`.
        reason: why the frame has that policy.
        rows: number of tokens that would be computed.
        tokens: number of tokens of the frame.
        macs_executed: MACs that would run, of all tasks.
        macs_dense: MACs of the same model with every row.
    """

    index: int
    policy: str
    reason: str
    rows: int
    tokens: int
    macs_executed: int
    macs_dense: int


@dataclass(frozen=True, slots=True)
class VideoForecast:
    """Sums over the valid frames of a video.

    Attributes:
        video: id of the source.
        preset: name of the preset.
        policies: number of frames by policy.
        rows: number of tokens that would be computed.
        tokens: number of tokens in all.
        macs_executed: MACs that would run, of all tasks.
        macs_dense: MACs of the same model with every row.
    """

    video: str
    preset: str
    policies: Mapping[str, int]
    rows: int
    tokens: int
    macs_executed: int
    macs_dense: int

    @property
    def frames(self) -> int:
        """Number of valid frames."""
        return sum(self.policies.values())


def replay(config: Config, spec: SourceSpec, model: SceneModel | None = None) -> Iterator[FrameForecast]:
    """The decisions of a run, frame by frame.

    Args:
        config: resolved config.
        spec: the source.
        model: shapes of the model; None takes those of the model that the config names.

    Raises:
        SourceError: the source can't be read.
        StageError: its frames are smaller than one patch.
    """
    model = handing_over(model or sketch(config), config)
    with open_source(config.source, spec) as reader:
        for decided in decide_frames(model, [config], reader):
            frame, grid = decided.frame, decided.grid
            if grid is None:
                yield FrameForecast(frame.index, "skipped", "invalid", 0, 0, 0, 0)
                continue
            (decision,) = decided.decisions
            costs = frame_costs(model, decision.rows, grid, Stopwatch()).values()
            yield FrameForecast(
                frame.index,
                decision.policy,
                decision.reason,
                count_rows(decision.rows, grid),
                grid.tokens,
                sum(cost.executed.total for cost in costs),
                sum(cost.dense.total for cost in costs),
            )


@plain_torch()
def sketch(config: Config) -> SceneModel:
    """The shapes of the model that a config names; no weights are read."""
    bundle = read_bundle(config.model)
    return sketch_model(bundle, choose_tasks(bundle, config.tasks), merged=config.numerics.delta == "merged")


def forecast(configs: Mapping[str, Config], specs: Sequence[SourceSpec]) -> Iterator[VideoForecast]:
    """What every config would compute on every source, video by video.

    Args:
        configs: resolved configs by the name of their preset.
        specs: the sources.

    Raises:
        SourceError: a source can't be read.
        StageError: its frames are smaller than one patch.
    """
    for spec in specs:
        for name, config in configs.items():
            frames = [frame for frame in replay(config, spec) if frame.policy != "skipped"]
            yield VideoForecast(
                video=spec.id,
                preset=name,
                policies=Counter(frame.policy for frame in frames),
                rows=sum(frame.rows for frame in frames),
                tokens=sum(frame.tokens for frame in frames),
                macs_executed=sum(frame.macs_executed for frame in frames),
                macs_dense=sum(frame.macs_dense for frame in frames),
            )
