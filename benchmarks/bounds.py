"""Does `run --max-drift` keep its word? `python benchmarks/bounds.py --clips CLIPS --part life_val --only val_idle …`.

Every clip is a run of its own, whose pilot chooses a step for every bound, as `run` does. Then the whole clip is
computed by these steps and in full beside them, so that the excess drift isn't an estimate. It is the mean over tasks,
shown with what the bound allows: the bound itself where something moves, a fifth of it over the whole frame. Clips of a
minute and more also say how many windows of 30 s stay under 1.5 times the bound where something moves; in each the
first frame is dense, and in a run it is one every 17 s.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from clip_sets import CLIPS, ClipSpec, rendered

from deltascene.pipeline.config import Config, in_full, load_config
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.evaluation.bounds import MEAN, Goal
from deltascene.pipeline.evaluation.clip_scores import MOVING, WHOLE
from deltascene.pipeline.evaluation.excess import Measured, add_up, compare
from deltascene.pipeline.evaluation.pilot import PART, Judged, choose_step, plan_pilot, run_pilot
from deltascene.pipeline.numerics.settle import settle
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import read_frames

WINDOW_S, LEAST_S, OVER = 30.0, 60.0, 1.5


@dataclass(frozen=True)
class Row:
    """A clip under a bound: measured excess by region, and windows under `OVER` times the bound, of how many."""

    spec: ClipSpec
    bound: float
    kept: bool
    scale: float
    macs: float
    excess: dict[str, float]
    under: int
    windows: int

    @property
    def part(self) -> float:
        """The largest share of what the bound allows in a region."""
        return max(self.excess[region] / (PART[region] * self.bound) for region in PART)


def main() -> None:
    """Prints the table."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    engine = Engine.load("rooms")
    config = settle(load_config("balanced", values={"model": "rooms"}))
    specs = [spec for part in options.part for spec in rendered(options.clips, part)]
    specs = [spec for spec in specs if options.only is None or spec.name in options.only]
    if not specs:
        sys.exit(f"{options.clips}: expected clips of {', '.join(options.part)}, and those asked for; found none")
    print(
        "| clip | bound % | reachable | scale | MACs % | excess moved % | whole %, of a fifth | windows under 1.5 × |"
    )
    print("|---|---|---|---|---|---|---|---|")
    rows = list[Row]()
    for spec in specs:
        for row in judge_clip(spec, options.clips / f"{spec.name}.mp4", engine, config, options.bounds):
            rows.append(row)
            print(_line(row), flush=True)
    for bound in options.bounds:
        mine = [row for row in rows if row.bound == bound]
        reachable = [row for row in mine if row.kept]
        worst = max((row.part for row in reachable), default=0.0)
        print(
            f"\n{100 * bound:g} %: {len(reachable)} of {len(mine)} clips reachable,"
            f" {sum(row.part <= 1 for row in reachable)} of these under the bound, the worst at {worst:.2f} of it;"
            f" {sum(row.under for row in mine)} of {sum(row.windows for row in mine)} windows under;"
            f" MACs {100 * float(np.mean([row.macs for row in mine])):.1f} %"
        )


def judge_clip(spec: ClipSpec, path: Path, engine: Engine, config: Config, bounds: Sequence[float]) -> Iterator[Row]:
    """A clip under every bound."""
    sources = find_sources([str(path)])
    plan = plan_pilot(config, sources)
    judged = run_pilot(engine.model, config, plan)
    pilots = [choose_step(Goal({MEAN: bound}), plan, judged) for bound in bounds]
    steps = list[Judged]()
    for pilot in pilots:
        steps += [] if any(pilot.chosen.step == step.step for step in steps) else [pilot.chosen]
    fps, kinds = plan.fps, engine.model.bundle.kinds
    windows = _measure(path, engine, config, steps, round(WINDOW_S * fps))
    for bound, pilot in zip(bounds, pilots, strict=True):
        place = next(at for at, step in enumerate(steps) if step.step == pilot.chosen.step)
        mine = [window[place] for window in windows]
        total = add_up(mine)
        found = {region: tasks[MEAN].excess for region, tasks in total.excess(kinds).items()}
        counted = mine if plan.of >= LEAST_S * fps else []
        moved = [window.excess(kinds)[MOVING][MEAN].excess for window in counted]
        under = sum(not each > OVER * bound for each in moved)  # where nothing moves there is no drift
        yield Row(
            spec, bound, pilot.kept, pilot.chosen.step.scale, total.macs / total.macs_dense, found, under, len(moved)
        )


def _measure(path: Path, engine: Engine, config: Config, steps: Sequence[Judged], frames: int) -> list[list[Measured]]:
    """What every step measures in every window."""
    configs, found = [step.step.config for step in steps], list[list[Measured]]()
    with read_frames(find_sources([str(path)])[0]) as reader:
        while (measured := compare(engine.model, configs, in_full(config), islice(reader, frames)))[0].frames:
            found.append(measured)
    return found


def _line(row: Row) -> str:
    windows = f"{row.under} of {row.windows}" if row.windows else ""
    return (
        f"| {row.spec.name} | {100 * row.bound:g} | {'yes' if row.kept else 'no'} | {row.scale:g} |"
        f" {100 * row.macs:.1f} | {100 * row.excess[MOVING]:.1f} |"
        f" {100 * row.excess[WHOLE]:.2f}, {100 * PART[WHOLE] * row.bound:.1f} | {windows} |"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder of rendered clips")
    parser.add_argument("--part", nargs="+", choices=list(CLIPS), default=["val", "life_val"])
    parser.add_argument("--only", nargs="+", help="names of some of them")
    parser.add_argument("--bounds", nargs="+", type=float, default=[0.03, 0.05, 0.1], help="as shares")
    parser.add_argument("--threads", type=int, default=2)
    return parser


if __name__ == "__main__":
    main()
