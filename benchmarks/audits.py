"""Do the intervals that audits give contain the true drift? Trials on clips of which every frame was computed twice.

    python benchmarks/audits.py --store DRIFTS --record CLIP… [--preset balanced --frames 900]
    python benchmarks/audits.py --store DRIFTS [--audits 90 --trials 200]

The first call records the drift of every frame, forth and back through a clip until there are frames enough; the second
draws audits as a run does, with another seed in every trial, and counts the intervals that contain the true mean.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.config import Config, load_config
from deltascene.pipeline.engine.audit import FLOOR_SHARE, AuditState, Drift, measure, one_of, spend, uniform
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.engine.replay import in_segments
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import read_frames
from deltascene.stages.sampled_mean import Estimate, SampledMean
from deltascene.stages.types import Frame

Array = NDArray[Any]
POINT = 0.01  # a half-width up to this, or up to a third of the drift, is narrow enough; of degrees, 100 times that


@dataclass(frozen=True)
class Series:
    """A clip of which every frame's drift is known.

    Attributes:
        name: of the clip.
        policy: of every frame [T].
        reason: for it [T].
        executed: MACs executed, as a share of dense [T].
        drift: by task, in the unit of its kind [T]; and of the dense frames 0.
        floor: by task [T], NaN where unknown.
        units: of the drift, by task.
    """

    name: str
    policy: Sequence[str]
    reason: Sequence[str]
    executed: Array
    drift: Mapping[str, Array]
    floor: Mapping[str, Array]
    units: Mapping[str, str]


def main(arguments: Sequence[str] | None = None) -> None:
    """Records clips, or prints the table of trials."""
    asked = _parser().parse_args(arguments)
    if asked.record:
        asked.store.mkdir(parents=True, exist_ok=True)
        for clip in asked.record:
            target = asked.store / f"{clip.stem}.{asked.preset}.npz"
            if not target.exists():
                np.savez_compressed(target, **record(clip, load_config(asked.preset), asked.frames))
                print(target, flush=True)
        return
    found = [read_series(path, asked.frames) for path in sorted(asked.store.glob(f"*.{asked.preset}.npz"))]
    print_trials(found, asked.audits, asked.trials)


def record(clip: Path, config: Config, frames: int) -> dict[str, Any]:
    """Drift of every frame of a clip, as columns of a `Series`."""
    engine = Engine.from_config(config)
    reuse = {"reuse": False, "hold_identical": False}
    every_row = engine.config.model_copy(update={"policy": engine.config.policy.model_copy(update=reuse)})
    stream, exact = engine.open_stream(clip.stem), Engine(engine.model, every_row).open_stream(clip.stem)
    rows: list[tuple[str, str, float, dict[str, Drift]]] = []
    before = None
    for frame in in_segments(islice(forth_and_back(clip), frames), stream):
        made, dense = stream(frame), exact(frame)
        moved = stream._state.audits.moved(frame.pts_s)
        drifts = measure(made, dense, before, moved, stream.grid)
        rows.append((made.policy, made.reason, made.cost.macs_executed / made.cost.macs_dense, drifts))
        before = dense
    kinds = engine.model.bundle.kinds
    return {
        "policy": np.array([row[0] for row in rows]),
        "reason": np.array([row[1] for row in rows]),
        "executed": np.array([row[2] for row in rows]),
        **{
            f"{name}/{task}": np.array([getattr(row[3][task], field) for row in rows], np.float64)
            for name, field in (("drift", "whole"), ("floor", "floor"))
            for task in rows[0][3]
        },
        **{f"unit/{task}": np.array(kinds[task].drift_unit) for task in rows[0][3]},
    }


def forth_and_back(clip: Path) -> Iterator[Frame]:
    """A clip's frames without an end, every second time in reverse, at a steady rate."""
    with read_frames(find_sources([str(clip)])[0]) as reader:
        frames = list(reader)
    step_s = (frames[-1].pts_s - frames[0].pts_s) / max(1, len(frames) - 1)
    order, index = [*range(len(frames)), *range(len(frames) - 2, 0, -1)], 0
    while True:
        yield replace(frames[order[index % len(order)]], index=index, pts_s=index * step_s)
        index += 1


def read_series(path: Path, frames: int) -> Series:
    """A recorded clip; a shorter one begins anew until there are frames enough."""
    with np.load(path) as kept:
        columns = {name: np.resize(kept[name], frames) if kept[name].ndim else kept[name] for name in kept.files}
    dense = columns["policy"] == "dense"
    by = {name: {} for name in ("drift", "floor", "unit")}
    for name, values in columns.items():
        what, _, task = name.partition("/")
        if task:
            by[what][task] = np.where(dense, 0.0, values) if what == "drift" else values
    units = {task: str(unit) for task, unit in by["unit"].items()}
    about = (columns["policy"].tolist(), columns["reason"].tolist(), columns["executed"])
    return Series(path.name.split(".")[0], *about, by["drift"], by["floor"], units)


def spent(series: Series, share: float, segment_frames: int = 256) -> tuple[Array, Array]:
    """What is spent on every frame [T], and the number of the segment's first frame [T]."""
    state, found, firsts = AuditState(), [], []
    for at, (policy, reason, executed) in enumerate(zip(series.policy, series.reason, series.executed, strict=True)):
        first = at if reason == "reset" or at == 0 else state.first
        why = "reset" if first == at else reason
        state, here = spend(replace(state, first=first), share * float(executed), policy, why, segment_frames)
        found.append(0.0 if here is None else here)
        firsts.append(first)
    return np.array(found), np.array(firsts)


def share_for(series: Series, audits: int) -> float:
    """Share of the run's compute with which that many audits are expected."""
    share = 0.1
    for _ in range(20):
        share *= audits / max(1e-9, float(spent(series, share)[0].sum()))
    return share


def draw(series: Series, spent_T: Array, firsts_T: Array, seed: int) -> tuple[Array, Array, Array]:
    """Places of the audited frames, their probabilities, and whether the floor is measured, as a run draws them."""
    places, probabilities, floors, state = [], [], [], AuditState()
    for at in range(len(spent_T)):
        if at == firsts_T[at]:
            state = AuditState(first=at)
        probability, due = one_of(state, float(spent_T[at]), series.name, seed)
        state = replace(state, drawn=state.drawn + float(spent_T[at]))
        if due:
            places.append(at)
            probabilities.append(probability)
            floors.append(uniform(f"floor {seed} {at} {series.name}") < FLOOR_SHARE)
    return np.array(places), np.array(probabilities), np.array(floors)


def trials(series: Series, audits: int, count: int) -> Mapping[str, list[Estimate | None]]:
    """Estimates of every trial, by task."""
    dense = np.array(series.policy) == "dense"
    spent_T, firsts_T = spent(series, share_for(series, audits))
    found: dict[str, list[Estimate | None]] = {task: [] for task in series.drift}
    for seed in range(count):
        places, probabilities, floors = draw(series, spent_T, firsts_T, seed)
        for task, estimates in found.items():
            sums = SampledMean()
            second = np.where(floors, series.floor[task][places], np.nan)
            sums.add(
                series.drift[task][places], second, probabilities, open_=int((~dense).sum()), zero=int(dense.sum())
            )
            estimates.append(sums.first())
    return found


def print_trials(found: Sequence[Series], audits: int, count: int) -> None:
    """Prints a row for every clip and task, and one for each task over all clips: trial n on clip n modulo clips."""
    print(f"| clip | task | true drift | intervals that contain it, of {count} | half-width | as narrow as asked |")
    print("|---|---|---|---|---|---|")
    mixed: dict[str, list[tuple[bool, bool]]] = {}
    for number, series in enumerate(found):
        for task, estimates in trials(series, audits, count).items():
            true = float(series.drift[task].mean())
            point = POINT * (100 if series.units[task] == "degrees" else 1)
            judged = [_judged(each, true, max(point, true / 3)) for each in estimates]
            widths = [(each.high - each.low) / 2 for each in estimates if each and each.high is not None]  # type: ignore[operator]
            hits, narrow = (sum(each[at] for each in judged) for at in (0, 1))
            print(f"| {series.name} | {task} | {true:.4g} | {hits} | {np.mean(widths):.2g} | {narrow} |", flush=True)
            mixed.setdefault(task, []).extend(judged[number :: len(found)])
    for task, judged in mixed.items():
        hits, narrow = (sum(each[at] for each in judged) for at in (0, 1))
        print(f"| all {len(found)} | {task} | | {hits} of {len(judged)} | | {narrow} of {len(judged)} |")


def _judged(estimate: Estimate | None, true: float, widest: float) -> tuple[bool, bool]:
    """Whether an interval contains the true mean, and whether it is narrow enough; without one, neither."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return False, False
    return estimate.low <= true <= estimate.high, (estimate.high - estimate.low) / 2 <= widest


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="folder of the recorded drifts")
    parser.add_argument("--record", type=Path, nargs="+", metavar="CLIP", help="videos to record")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--frames", type=int, default=900, help="of every series")
    parser.add_argument("--audits", type=int, default=90, help="expected in a trial")
    parser.add_argument("--trials", type=int, default=200)
    return parser


if __name__ == "__main__":
    main()
