"""What reuse is worth beside what anybody can run, clip by clip: `python benchmarks/yardsticks.py --clips CLIPS`.

Ours are the presets and every `--setting`. For each of them, on each clip, these are the yardsticks:

    B1            a network for each task.
    B2            the bundle's own dense network, on every frame.
    B2 + best k   B2 on every k-th frame, with its outputs warped along the optical flow in between. k is the largest of
                  2, 3, 4, 6, 8, 12 and 16 whose loss on that very clip is at most ours or, where that is more, the
                  preset's bound, over the whole frame and in the moving region; 1 where none is.
    B3            a motion gate: our mask against the last dense frame; where nothing moved, outputs are held, else it
                  is B2 + best k, warped around what moved.

All begin anew with every segment, as ours do. Dense networks run by OpenVINO, in bfloat16 where that is faster; without
it, by this package. Flow and warping are this package's for all. Times are measured in one interleaved walk of all
policies, repeated; each frame's median over the walks counts, and their mean is shown. Decoding, resizing and writing
are left out for all. Losses are against truth (docs/quality.md), over several phases.

Without `--clips`, the packaged demo clip is judged. What is in `--store` isn't run again, times neither.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from deltascene import Engine  # before torch, so that its threads wait as they do in a run

# isort: split
import torch
from clip_sets import CLIPS, rendered
from dense_networks import Dense
from quality import DEMO, Candidate, candidates, read_setting, score, settings, time_policies
from records import Records
from walkers import EveryKth, Gated, Seldom
from yardstick_tables import Row, Scored, int8_table, means, table

from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.evaluation.clip_scores import MOVING, REGIONS, WHOLE, Columns, add_up, error_of, loss_percent
from deltascene.pipeline.evaluation.clips import Clip, open_clip
from deltascene.pipeline.evaluation.phases import phases_that_fit
from deltascene.pipeline.evaluation.walk import EXACT, ByEngine, Walker

KS = (2, 3, 4, 6, 8, 12, 16)
BOUNDS = {"balanced": {WHOLE: 1.0, MOVING: 5.0}, "fast": {WHOLE: 3.0, MOVING: 10.0}}
PHASES = 2
SELDOM = 5  # frames from one measurement of a dense network to the next; its time doesn't depend on the frame


def main() -> None:
    """The command."""
    options = _parser().parse_args()
    parts, folder = (["demo"], DEMO) if options.clips is None else (options.part, options.clips)
    torch.set_num_threads(options.threads)
    model, ours = Engine.load(options.model).model, Ours.of(options.model, options.setting)
    there = [spec for part in parts for spec in rendered(folder, part)]
    specs = [spec for spec in there if options.only is None or spec.name in options.only]
    if not specs:
        sys.exit(f"{folder}: expected clips of {', '.join(parts)}, and those asked for; found none")
    dense: dict[tuple[int, int], Dense] = {}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as passing:
        records = Records.of(options.store or Path(passing), model, options.frames)
        for spec in specs:
            clip = open_clip(folder / f"{spec.name}.mp4", model.bundle.kinds)
            size = clip.moving.shape[1], clip.moving.shape[2]
            if size not in dense:
                wanted = {"openvino": not options.no_openvino, "int8": options.int8}
                dense[size] = Dense.of(model, ours.configs[EXACT], clip, **wanted)
            passes = 0 if options.no_time else options.passes
            rows += judge_clip(clip, spec.group, model, ours, records, options.phases, dense[size], passes)
            print(f"{spec.name} is judged", file=sys.stderr, flush=True)
    numerics = ours.configs[EXACT].numerics
    runs = " and ".join({one.what for one in dense.values()})
    print(
        f"{len(specs)} clips, {options.phases} phases, {options.threads} threads; dense networks by {runs},"
        f" ours in {numerics.dtype} with kernel {numerics.kernel}; B1 takes {rows[0].single.macs:.0f} % of B2's MACs"
    )
    print(f"\n{table(rows)}\n\n{means(rows)}" + (f"\n\n{int8_table(rows)}" if options.int8 else ""))
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


@dataclass(frozen=True)
class Ours:
    """The policies that are judged.

    Attributes:
        configs: by name; with `exact`.
        bounds: of loss in percent, by name and region: those of the preset that a setting stands on.
    """

    configs: Mapping[str, Config]
    bounds: Mapping[str, Mapping[str, float]]

    @classmethod
    def of(cls, model: str, texts: Sequence[str]) -> "Ours":
        """The presets, and settings given as text (see `quality.settings`)."""
        read = [read_setting(text) for text in texts]
        for name, base, _ in read:
            if base not in BOUNDS:
                raise UsageError(f"--setting {name}: expected one of {', '.join(BOUNDS)} as its base; found {base}")
        bounds = {**BOUNDS, **{name: BOUNDS[base] for name, base, _ in read}}
        return cls(settings(model, texts), bounds)

    @property
    def names(self) -> list[str]:
        """Names of the policies."""
        return [name for name in self.configs if name != EXACT]


def best_k(losses: Mapping[int, Mapping[str, float]], ours: Mapping[str, float], bounds: Mapping[str, float]) -> int:
    """The largest k whose loss in every region is at most ours or the bound, whichever is more; 1 if there is none.

    An unknown loss, as where nothing moves, keeps to any bound.
    """
    most = {region: max(bound, ours[region]) for region, bound in bounds.items()}  # NaN comes second, and loses
    return max((k for k, loss in losses.items() if not any(loss[region] > most[region] for region in most)), default=1)


def judge_clip(
    clip: Clip, group: str, model: SceneModel, ours: Ours, records: Records, phases: int, dense: Dense, passes: int
) -> list[Row]:
    """Rows of all our policies on a clip.

    Args:
        clip: the clip.
        group: of its kind.
        model: the loaded model.
        ours: the policies.
        records: store; what is in it isn't run again.
        phases: number of first frames.
        dense: the dense networks, for times.
        passes: walks that are timed; 0 shows the times of the store.
    """
    found = score_clip(clip, model, ours, records, phases)
    times = measure(clip, model, timed(model, ours, found.ks.values(), dense), records, passes)
    reference = Scored(dict.fromkeys(REGIONS, 0.0), 100.0, times.get("B2"))
    single = Scored(reference.loss, dense.macs_single, times.get("B1"))
    int8 = score_int8(clip, model, ours, records, dense, times.get("B2 int8")) if dense.int8 else None
    rows = []
    for name, k in found.ks.items():
        warp = reference if k == 1 else found.scored(f"warp {k}", times.get(f"B2 warp {k}"))
        gate = found.scored(f"gate {k}", times.get(f"B3 {k}"))
        rows.append(
            Row(clip.name, group, name, k, found.scored(name, times.get(name)), warp, gate, reference, single, int8)
        )
    return rows


@dataclass(frozen=True)
class ClipRecords:
    """Records of a clip, and the k chosen for each of our policies."""

    records: Mapping[str, Columns]
    ks: Mapping[str, int]

    def scored(self, name: str, ms: float | None) -> Scored:
        """Scores of a policy."""
        return Scored(_losses(self.records, name), 100 * float(error_of(add_up(self.records[name])["macs"])), ms)


def score_clip(clip: Clip, model: SceneModel, ours: Ours, records: Records, phases: int) -> ClipRecords:
    """Scores ours and every flow-warp on a clip, chooses k, and scores the gates that these ask for."""
    phases = phases_that_fit(clip, records.frames, phases)
    policies = candidates(model, ours.configs, KS, ["warp"])
    found = score(clip, model, policies, records, phases)
    by_k = {k: _losses(found, f"warp {k}") for k in KS}
    ks = {name: best_k(by_k, _losses(found, name), ours.bounds[name]) for name in ours.names}
    gates = {f"gate {k}": gate(model, ours, k) for k in sorted(set(ks.values()))}
    found |= score(clip, model, {EXACT: policies[EXACT], **gates}, records, phases)
    return ClipRecords(found, ks)


def score_int8(clip: Clip, model: SceneModel, ours: Ours, records: Records, dense: Dense, ms: float | None) -> Scored:
    """B2 in int8 against truth."""
    exact = ours.configs[EXACT]
    policies = {
        EXACT: Candidate(exact.result_keys(), partial(ByEngine, model, exact)),
        "B2 int8": Candidate({"int8": True, **exact.result_keys()}, dense.start_int8),
    }
    return Scored(_losses(score(clip, model, policies, records), "B2 int8"), 100.0, ms)


def gate(model: SceneModel, ours: Ours, k: int, dense: Callable[[], Walker] | None = None) -> Candidate:
    """B3 with dense frames by `exact`, or by another policy."""
    mask, exact = ours.configs["balanced"], ours.configs[EXACT]
    computes = dense or partial(ByEngine, model, exact)

    def start() -> Walker:
        return Gated(model, mask, k, warped=True, dense=computes())

    return Candidate({"gate": k, "change": mask.change.model_dump(), **exact.result_keys()}, start)


def timed(model: SceneModel, ours: Ours, ks: Iterable[int], dense: Dense, seldom: int = SELDOM) -> dict[str, Candidate]:
    """Policies whose times are measured together; dense networks on every `seldom`-th frame."""
    how, exact = {"threads": torch.get_num_threads(), "by": dense.what}, ours.configs[EXACT]
    found = {
        "B1": Candidate({"B1": seldom, **how}, lambda: Seldom(dense.start_single(), seldom)),
        "B2": Candidate({"B2": seldom, **how}, lambda: Seldom(dense.start(), seldom)),
    }
    if dense.int8:
        found["B2 int8"] = Candidate({"int8": seldom, **how}, lambda: Seldom(dense.start_int8(), seldom))
    for k in sorted(set(ks)):
        behind = gate(model, ours, k, dense.start)
        found[f"B3 {k}"] = Candidate({**behind.what, **how}, behind.start)
        if k > 1:
            found[f"B2 warp {k}"] = Candidate({"every": k, **how}, partial(_warp, model, exact, k, dense))
    for name in ours.names:
        config = ours.configs[name]
        found[name] = Candidate({**config.result_keys(), **how}, partial(ByEngine, model, config))
    return found


def _warp(model: SceneModel, exact: Config, k: int, dense: Dense) -> Walker:
    return EveryKth(model, exact, k, warped=True, dense=dense.start())


def measure(
    clip: Clip, model: SceneModel, policies: Mapping[str, Candidate], records: Records, passes: int
) -> dict[str, float]:
    """Mean milliseconds of a frame by policy: those of the store, or all measured again if one is missing there."""
    times: dict[str, Columns] = {}
    for name, policy in policies.items():
        if (record := records.read(clip, f"{name} time", policy.what)) is not None:
            times[name] = record
    if passes and len(times) < len(policies):
        times = time_policies(clip, model, policies, records, passes)
    if len(times) < len(policies):
        return {}  # what there is may be of several walks
    return {name: 1e3 * float(error_of(add_up(record)["seconds"])) for name, record in times.items()}


def _losses(records: Mapping[str, Columns], name: str) -> dict[str, float]:
    mine, dense = add_up(records[name]), add_up(records[EXACT])
    return {region: float(loss_percent(mine, dense, region)) for region in REGIONS}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder of rendered clips; without it, the packaged demo clip")
    parser.add_argument("--part", nargs="+", choices=list(CLIPS), default=["val"], help="which clips of the folder")
    parser.add_argument("--only", nargs="+", help="names of some of them")
    parser.add_argument("--model", default="rooms", help="packaged bundle or folder")
    parser.add_argument(
        "--setting", action="append", default=[], help="NAME=key=value,… on top of balanced; NAME=fast,… of fast"
    )
    parser.add_argument("--frames", type=int, default=10_000, help="maximum number of each clip")
    parser.add_argument("--phases", type=int, default=PHASES, help="first frames from which each clip is run, 5 apart")
    parser.add_argument("--store", type=Path, help="folder where records are kept and found again")
    parser.add_argument("--passes", type=int, default=3, help="walks that are timed")
    parser.add_argument("--no-time", action="store_true", help="measure no times")
    parser.add_argument("--no-openvino", action="store_true", help="dense networks by this package")
    parser.add_argument("--int8", action="store_true", help="B2 in int8, too, with its own loss (nncf)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file for all numbers")
    return parser


if __name__ == "__main__":
    main()
