"""What a preset would save on a video, without running a model: mask and policy replayed over its pixels.

The decisions are those of a run, so rows and MACs are exact; what it would cost in accuracy is not said.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from deltascene.errors import ExitCode
from deltascene.pipeline.bundles.bundle import choose_tasks, read_bundle
from deltascene.pipeline.bundles.scene_model import SceneModel, handing_over, sketch_model
from deltascene.pipeline.config import Config
from deltascene.pipeline.engine.cost import frame_costs
from deltascene.pipeline.engine.replay import decide_frames
from deltascene.pipeline.engine.stopwatch import Stopwatch
from deltascene.pipeline.sources.reader import open_source
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.units import compact, share
from deltascene.stages.change import count_rows
from deltascene.stages.motion import set_flow_threads


@dataclass(frozen=True, slots=True)
class FrameForecast:
    """One frame of a replay.

    Attributes:
        index: number in the source.
        policy: that it would get.
        reason: why.
        rows: tokens that would be computed.
        tokens: of the frame.
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


def replay(config: Config, spec: SourceSpec, model: SceneModel | None = None) -> Iterator[FrameForecast]:
    """The decisions of a run, frame by frame.

    Args:
        config: resolved config.
        spec: the source.
        model: shapes of the model; None sketches what the config names.

    Raises:
        SourceError: it can't be read.
        StageError: its frames are smaller than one patch.
    """
    model = handing_over(model or sketch(config), config)
    set_flow_threads(1)
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


def sketch(config: Config) -> SceneModel:
    """The shapes of the model that a config names; no weights are read."""
    bundle = read_bundle(config.model)
    return sketch_model(bundle, choose_tasks(bundle, config.tasks), merged=config.numerics.delta == "merged")


def print_what_if(configs: dict[str, Config], specs: list[SourceSpec], console: Console) -> int:
    """A table of what each config would compute on each source."""
    table = Table("video", "preset", "dense", "rows", "warped", "held", "tokens computed", "MACs a frame", "saved")
    for spec in specs:
        for name, config in configs.items():
            frames = [frame for frame in replay(config, spec) if frame.policy != "skipped"]
            policies = Counter(frame.policy for frame in frames)
            dense = sum(frame.macs_dense for frame in frames)
            executed = sum(frame.macs_executed for frame in frames)
            tokens = sum(frame.rows for frame in frames) / max(1, sum(frame.tokens for frame in frames))
            counts = [str(policies[policy]) for policy in ("dense", "rows", "warped", "held")]
            each = compact(executed / max(1, len(frames)), "MAC")
            table.add_row(spec.id, name, *counts, share(tokens), each, share(1 - executed / max(1, dense)))
    console.print(table)
    console.print("Exact rows and MACs of a run; its time and accuracy are not forecast.", highlight=False)
    return ExitCode.OK
