"""Drift on real clips beside flow-warp at equal drift: `python benchmarks/real_drift.py --videos FOLDER`.

Over the first frames of each clip of real_clips.json (FOLDER as for `real_clips.py`), one interleaved walk runs
`exact`, the presets, and flow-warp: dense on every k-th frame, in between its outputs warped along the optical flow. In
the words of audits (docs/savings.md): drift is the distance from `exact`, over the whole frame and in the patches that
moved lately by `balanced`'s change map, the same for all; the floor is what dense prediction changes from frame to
frame in the other patches; excess is mean drift less mean floor, not below 0. All are shares (degrees of 90°), means
over tasks, and dense frames count as 0. Drift says how far a prediction is from the dense one, not which is right.
Intervals are 95 %, bootstrap over blocks of 15 frames.

Beside each preset stands the largest k of 2, 3, 4, 6, 8, 12 and 16 whose excess on that very clip, moved and whole, is
each at most the preset's; dense where there is none. Its MACs are 1/k of dense, as on an endless clip, and its time
that of the bundle's dense network (B2: by OpenVINO, or by this package without it; measured on every 5th frame of the
walk) on one of k frames and of flow and warping on the others. A preset's opening dense frame counts in full. Decoding,
resizing and writing are left out for all.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from dense_networks import Dense
from numpy.typing import NDArray
from quality import PRESETS, settings
from real_clips_marks import MARKS, find_clip, read_marks
from walkers import EveryKth, Seldom
from yardsticks import KS, SELDOM, best_k

from deltascene.errors import DeltasceneError
from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.engine.audit import AuditState, draw, measure
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.engine.replay import begins_segment, in_segments
from deltascene.pipeline.engine.step import plan_geometry
from deltascene.pipeline.evaluation.bounds import MEAN
from deltascene.pipeline.evaluation.clip_scores import MOVING, REGIONS, WHOLE, bootstrap
from deltascene.pipeline.evaluation.clips import Clip
from deltascene.pipeline.evaluation.excess import Excess, Measured, frame_sums
from deltascene.pipeline.evaluation.walk import EXACT, ByEngine, Outcome, Walker
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import read_frames
from deltascene.stages.kinds import Kind

NETWORK = "B2"
WARM_UP = 3  # frames that aren't timed
HEAD = (
    "| clip | policy | whole %: drift / floor / excess | moved %: drift / floor / excess | MACs % | ms "
    "| k | excess % of warp k, whole | moved | its MACs % | its ms | its MACs, in ours | its time, in ours | B2 ms |"
)


@dataclass(frozen=True)
class Found:
    """A policy on a clip.

    Attributes:
        excess: by region; mean over tasks, as shares.
        interval: of the excess, by region.
        macs: in percent of dense prediction's.
        ms: mean time of a frame; None where it wasn't measured.
    """

    excess: Mapping[str, Excess]
    interval: Mapping[str, tuple[float, float]]
    macs: float
    ms: float | None


def main() -> None:
    """Prints the tables, and writes the JSON file if asked to."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    model, configs = Engine.load(options.model).model, settings(options.model, [])
    numerics = configs[EXACT].numerics
    print(f"first {options.frames} frames, {options.threads} threads, {numerics.dtype}, kernel {numerics.kernel}")
    print(f"\n{HEAD}\n|{'---|' * (HEAD.count('|') - 1)}")
    found = dict[str, dict[str, Found]]()
    with tempfile.TemporaryDirectory() as scratch:
        for clip in read_marks(MARKS):
            try:
                path = find_clip(options.videos, clip, Path(scratch))
                if path is None:
                    print(f"{clip.file}: not in {options.videos}, left out; {clip.origin}", file=sys.stderr)
                    continue
                mine = judge_clip(path, model, configs, options.frames, timed=not options.no_time)
            except DeltasceneError as error:
                print(error, file=sys.stderr)
                sys.exit(error.exit_code)
            found[clip.file] = mine
            print(*lines(clip.file, mine), sep="\n", flush=True)
    print(f"\n{table_of_warps(found)}")
    if options.out is not None:
        plain = {clip: {name: asdict(one) for name, one in mine.items()} for clip, mine in found.items()}
        options.out.write_text(json.dumps(plain, indent=1) + "\n")


def judge_clip(
    path: Path, model: SceneModel, configs: Mapping[str, Config], frames: int, *, timed: bool = True
) -> dict[str, Found]:
    """The presets and `warp k` on the first frames of a clip; with times, B2's as well."""
    exact, kinds = configs[EXACT], model.bundle.kinds
    walkers: dict[str, Walker] = {name: ByEngine(model, configs[name]) for name in PRESETS}
    walkers |= {f"warp {k}": EveryKth(model, exact, k, warped=True) for k in KS}
    if timed:
        network = Dense.of(model, exact, Clip(path.name, path, {}, np.zeros((0, 0, 0), bool)))
        walkers[NETWORK] = Seldom(network.start(), SELDOM)
        _walk(path, model, configs, walkers, WARM_UP)
    outcomes, sums = _walk(path, model, configs, walkers, frames)
    dense_ms = _mean_ms(outcomes[NETWORK]) if timed else None
    found = {}
    for name, rows in sums.items():
        macs = 100 * sum(one.macs for one in outcomes[name]) / sum(one.macs_dense for one in outcomes[name])
        ms = _mean_ms(outcomes[name]) if timed else None
        if (k := _k_of(name)) is not None:
            macs, warped = 100 / k, [one for one in outcomes[name] if one.policy == "warped"]
            ms = None if dense_ms is None else (dense_ms + (k - 1) * _mean_ms(warped)) / k
        excess = _excess({task: each.sum(0) for task, each in rows.items()}, kinds)
        found[name] = Found(excess, {region: _interval(rows, kinds, region) for region in REGIONS}, macs, ms)
    zero = {region: Excess(0.0, each.floor, 0.0) for region, each in found[PRESETS[0]].excess.items()}
    found[NETWORK] = Found(zero, dict.fromkeys(REGIONS, (0.0, 0.0)), 100.0, dense_ms)
    return found


def _walk(
    path: Path, model: SceneModel, configs: Mapping[str, Config], walkers: Mapping[str, Walker], frames: int
) -> tuple[dict[str, list[Outcome]], dict[str, dict[str, NDArray[np.float64]]]]:
    """Outcomes without values by policy, and by policy and task the sums of each frame [frames, regions, 5]."""
    judging, full, watched = configs[PRESETS[0]], ByEngine(model, configs[EXACT]), walkers[PRESETS[0]]
    assert isinstance(watched, ByEngine)
    outcomes, sums = {name: list[Outcome]() for name in walkers}, {name: [] for name in walkers if name != NETWORK}
    audits, before, names = AuditState(), None, list(walkers)
    with read_frames(find_sources([str(path)])[0]) as reader:
        read = in_segments(islice(reader, frames), full, *walkers.values())
        for number, frame in enumerate(read):
            dense = full(frame, None)
            if frame.image is None:
                continue
            first = number % len(names)
            made = {name: walkers[name](frame, dense) for name in (*names[first:], *names[:first])}
            grid = plan_geometry(model, judging, frame.image.shape[:2]).grid
            audits = AuditState() if begins_segment(number, judging.segment.frames) else audits
            audits, drawn = draw(judging, grid, audits, watched.result, torch.empty(0, dtype=torch.uint8))
            assert drawn.moved is not None
            for name, each in sums.items():
                arrays, drifts = made[name].values, {}
                if made[name].policy != "dense":
                    dressed = {t: replace(one, array=arrays[t]) for t, one in full.result.predictions.items()}
                    result = replace(full.result, predictions=dressed)
                    drifts = measure(result, full.result, before, drawn.moved, grid)
                each.append(frame_sums(arrays, drifts, moved=bool(drawn.moved.any())))
            before = full.result
            for name, one in made.items():
                outcomes[name].append(replace(one, values={}))
    return outcomes, {
        name: {task: np.stack([each[task] for each in per_frame]) for task in per_frame[0]}
        for name, per_frame in sums.items()
    }


def lines(clip: str, policies: Mapping[str, Found]) -> Iterator[str]:
    """Lines of the presets on a clip, below `HEAD`."""
    excess = {name: {region: each.excess[region].excess for region in REGIONS} for name, each in policies.items()}
    warps = {k: excess[f"warp {k}"] for k in KS}
    for name in PRESETS:
        ours, k = policies[name], best_k(warps, excess[name], dict.fromkeys(REGIONS, 0.0))
        warp = policies[NETWORK if k == 1 else f"warp {k}"]
        cells = [clip, name, *(_shares(ours, region) for region in REGIONS), f"{ours.macs:.1f}", _ms(ours.ms)]
        cells += ["dense" if k == 1 else f"{k}", *(_excess_of(warp, region) for region in REGIONS)]
        cells += [f"{warp.macs:.1f}", _ms(warp.ms), f"{warp.macs / ours.macs:.2f}×"]
        cells += [f"{warp.ms / ours.ms:.2f}×" if warp.ms and ours.ms else "", _ms(policies[NETWORK].ms)]
        yield f"| {' | '.join(cells)} |"


def table_of_warps(found: Mapping[str, Mapping[str, Found]]) -> str:
    """Excess of every k, whole / moved."""
    shown = [f"| excess whole / moved % of warp k | {' | '.join(map(str, KS))} |", "|---|" + "---|" * len(KS)]
    for clip, policies in found.items():
        warps = [policies[f"warp {k}"].excess for k in KS]
        cells = [f"{_percent(each[WHOLE].excess)} / {_percent(each[MOVING].excess)}" for each in warps]
        shown.append(f"| {clip} | {' | '.join(cells)} |")
    return "\n".join(shown)


def _excess(sums: Mapping[str, NDArray[np.float64]], kinds: Mapping[str, Kind]) -> dict[str, Excess]:
    return {region: tasks[MEAN] for region, tasks in Measured(sums, 0, 0, 0.0, 0).excess(kinds).items()}


def _interval(rows: Mapping[str, NDArray[np.float64]], kinds: Mapping[str, Kind], region: str) -> tuple[float, float]:
    def excess(drawn: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        draws = len(next(iter(drawn.values())))
        each = ({task: sums[draw] for task, sums in drawn.items()} for draw in range(draws))
        return np.array([_excess(sums, kinds)[region].excess for sums in each])

    return bootstrap([(rows,)], excess)[0][0]


def _k_of(name: str) -> int | None:
    return int(name.removeprefix("warp ")) if name.startswith("warp ") else None


def _mean_ms(outcomes: Sequence[Outcome]) -> float:
    return 1e3 * float(np.mean([one.seconds for one in outcomes]))


def _shares(one: Found, region: str) -> str:
    excess = one.excess[region]
    return f"{_percent(excess.drift)} / {_percent(excess.floor)} / {_excess_of(one, region)}"


def _excess_of(one: Found, region: str) -> str:
    low, high = one.interval[region]
    return f"{_percent(one.excess[region].excess)} [{_percent(low)}, {_percent(high)}]"


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.1f}"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, help="folder of the clips")
    parser.add_argument("--model", default="rooms", help="packaged bundle or folder")
    parser.add_argument("--frames", type=int, default=150, help="of each clip, the first ones")
    parser.add_argument("--no-time", action="store_true", help="show no times")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="numbers of all policies")
    return parser


if __name__ == "__main__":
    main()
