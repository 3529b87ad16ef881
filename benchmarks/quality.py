"""Loss against truth and time of reuse, on clips with truth: `python benchmarks/quality.py`.

Compares dense prediction, dense prediction of every k-th frame with outputs held or warped in between, and the
presets, on the same frames. The default clip is the packaged demo clip. The clips of docs/quality.md are rendered and
scored by

    python benchmarks/quality.py --make --meshes MESHES --clips CLIPS --part test
    python benchmarks/quality.py --clips CLIPS --part test --store RECORDS

and timed, on an otherwise idle machine, by the second command with `--timing 3`. Records in `--store` are reused, also
after changes of the code. `loss` is the mean over tasks of error / error of dense prediction - 1; bootstrap intervals
draw blocks of frames, those of means also clips. With `--phases 2`, clips are also begun 5 frames later, and scores are
sums over both passes: much of the loss is the luck of which frame is kept.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from deltascene import Engine  # before torch, so that its threads wait as they do in a run

# isort: split
import numpy as np
import torch
from baselines import Precision, by_openvino, by_torch, networks
from clip_sets import CLIPS, rendered
from quality_tables import markdown, overview, plain
from records import Records
from walkers import ByNetworks, Eager, EveryKth

from deltascene.pipeline.bundles.scene_model import SceneModel, load_model
from deltascene.pipeline.config import Config, load_config
from deltascene.pipeline.engine.step import plan_geometry
from deltascene.pipeline.evaluation.clip_scores import Columns
from deltascene.pipeline.evaluation.clips import Clip, open_clip
from deltascene.pipeline.evaluation.phases import APART, over_phases, passes, phases_that_fit, since
from deltascene.pipeline.evaluation.walk import EXACT, ByEngine, Walker, walk
from deltascene.pipeline.numerics.settle import settle
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import read_frames

DEMO = Path(__file__).resolve().parent.parent / "configs" / "demo"
EVERY_KTH = (2, 3, 4, 6, 8)
WAYS = ("hold", "warp")
PRESETS = ("balanced", "fast")
EAGER = "timm"
WARPED = (2, 3)  # the k of flow-warp within the bounds of balanced and fast


def main() -> None:
    """The command."""
    options = _parser().parse_args()
    part, folder = ("demo", DEMO) if options.clips is None else (options.part, options.clips)
    if options.make:
        make_clips(part, folder, options.meshes)
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    model = Engine.load(options.model).model
    configs = settings(options.model, options.setting)
    records = Records.of(options.store, model, options.frames)
    specs = [spec for spec in rendered(folder, part) if options.only is None or spec.name in options.only]
    if not specs:
        known = ", ".join(spec.name for spec in rendered(folder, part)) or "none"
        sys.exit(f"{folder}: expected clips of part {part}, there are {known}; found none of those asked for")
    print(
        f"{len(specs)} clips, torch {torch.__version__}, {torch.get_num_threads()} threads, model {model.bundle.name},"
        f" all in {configs[EXACT].numerics.dtype}, ours with kernel {configs[EXACT].numerics.kernel}"
    )
    clips: dict[str, dict[str, Columns]] = {}
    for spec in specs:
        clip = open_clip(folder / f"{spec.name}.mp4", model.bundle.kinds)
        policies = candidates(model, configs)
        phases = phases_that_fit(clip, options.frames, options.phases)
        found = score(clip, model, policies, records, phases)
        others = {EAGER: eager(model, configs)}
        if options.timing and options.baselines:
            others |= baselines(model, configs[EXACT], clip)
        times = time_policies(clip, model, {**others, **policies}, records, options.timing)
        seconds = {name: since(record, APART * (phases - 1)) for name, record in times.items()}
        clips[spec.name] = {name: {**record, **seconds.get(name, {})} for name, record in found.items()}
        clips[spec.name] |= {EAGER: times[EAGER]} if times else {}
        if times:
            print_times(times)
        print(f"\n### {spec.name}\n\n{markdown([clips[spec.name]], EAGER)}", flush=True)
    still = [clips[spec.name] for spec in specs if spec.still]
    if len(still) > 1:
        print(f"\n### Mean of {len(still)} clips: camera still, no cut\n\n{markdown(still, EAGER)}")
    print(f"\n### Loss whole % / loss moving % @ MACs %\n\n{overview(clips, 'hold')}")
    if options.out is not None:
        options.out.write_text(
            json.dumps({name: plain([clip], EAGER) for name, clip in clips.items()}, indent=1) + "\n"
        )


@dataclass(frozen=True)
class Candidate:
    """A policy to compare.

    Attributes:
        what: everything that its record depends on, besides clip and weights.
        start: creates the policy before its first frame.
        reuses: whether it needs the dense outputs of each frame.
    """

    what: Mapping[str, Any]
    start: Callable[[], Walker]
    reuses: bool = False


def settings(model: str, texts: Sequence[str]) -> dict[str, Config]:
    """Configs to compare, by name: the presets, and `NAME:key=value,key=value` on top of `balanced`.

    With the name of another preset among the changes, as in `NAME:fast,key=value`, they are on top of that one.
    """
    found = {name: settle(load_config(name, values={"model": model})) for name in (EXACT, *PRESETS)}
    for text in texts:
        name, base, overrides = read_setting(text)
        found[name] = settle(load_config(base, overrides=overrides, values={"model": model}))
    return found


def read_setting(text: str) -> tuple[str, str, list[str]]:
    """Name, preset and changes of a setting: `NAME:key=value` or `NAME=key=value`."""
    name, *rest = re.split("[:=]", text, maxsplit=1)
    changes = [change for part in rest for change in part.split(",") if change]
    bases = [change for change in changes if "=" not in change]
    return name, bases[-1] if bases else PRESETS[0], [change for change in changes if "=" in change]


def candidates(
    model: SceneModel, configs: Mapping[str, Config], every: Sequence[int] = EVERY_KTH, ways: Sequence[str] = WAYS
) -> dict[str, Candidate]:
    """Policies to compare, by name, in the order of the table; dense prediction is first."""
    dense = configs[EXACT]
    found = {EXACT: Candidate(dense.result_keys(), partial(ByEngine, model, dense))}
    for k, way in product(every, ways):
        start = partial(EveryKth, model, dense, k, warped=way == "warp")
        found[f"{way} {k}"] = Candidate({"every": k, "warped": way == "warp", **dense.result_keys()}, start, True)
    for name, config in configs.items():
        if name != EXACT:
            found[name] = Candidate(config.result_keys(), partial(ByEngine, model, config))
    return found


def eager(model: SceneModel, configs: Mapping[str, Config]) -> Candidate:
    """timm's forward and the heads."""
    return Candidate({"eager": True}, partial(Eager, load_model(model.bundle, model.tasks), configs[EXACT]))


def precision_of(config: Config) -> Precision:
    """Precision of the baselines: the dtype that the engine has chosen as the faster one."""
    return "bf16" if config.numerics.dtype == "bfloat16" else "f32"


def baselines(model: SceneModel, dense: Config, clip: Clip) -> dict[str, Candidate]:
    """B1 (a network per task) and B2 (the bundle's dense one) in eager PyTorch and OpenVINO, the latter also warped."""
    with read_frames(find_sources([str(clip.path)])[0]) as reader:
        first = next(iter(reader)).image
    assert first is not None
    geometry, bundle, threads = plan_geometry(model, dense, first.shape[:2]), model.bundle, torch.get_num_threads()
    image = torch.zeros(1, 3, *geometry.plan.model_size)
    best, found = precision_of(dense), dict[str, Candidate]()
    for name, single in (("B1", True), ("B2", False)):
        for engine in ("eager", "OpenVINO"):
            nets = networks(bundle, model.tasks, geometry.grid, single_task=single)
            best = precision_of(dense)
            ready = [
                by_torch(net, best) if engine == "eager" else by_openvino(net, image, threads, best) for net in nets
            ]
            start = partial(ByNetworks, model, dense, ready)
            found[f"{name} {engine}"] = Candidate({name: engine}, start)
    for name, k in product(("B1", "B2"), WARPED):
        start = partial(EveryKth, model, dense, k, warped=True, dense=found[f"{name} OpenVINO"].start())
        found[f"{name} OpenVINO, warp {k}"] = Candidate({name: "OpenVINO", "every": k}, start)
    return found


def print_times(times: Mapping[str, Columns]) -> None:
    """Prints mean milliseconds of a frame, measured in the same pass."""
    ms = {
        name: 1e3 * float(record["seconds"].sum(0)[0, 0] / record["seconds"].sum(0)[1, 0])
        for name, record in times.items()
    }
    print("\n| ms a frame | |\n|---|---|")
    for name, spent in ms.items():
        print(f"| {name} | {spent:.1f} |", flush=True)


def score(
    clip: Clip, model: SceneModel, policies: Mapping[str, Candidate], records: Records, phases: int = 1
) -> dict[str, Columns]:
    """Records of all policies on a clip, sums over phases; passes that aren't in the store are computed."""
    planned = passes(policies, phases)
    kept = {key: records.read(clip, key, policies[name].what) for key, (name, _) in planned.items()}
    missing = {key for key, record in kept.items() if record is None}
    if any(policies[planned[key][0]].reuses for key in missing):
        missing.add(EXACT)
    known = kept[EXACT]
    walkers = {key: policies[name].start() for key, (name, _) in planned.items() if key in missing}
    dense = None if known is None else known["classes"]
    starts = {key: start for key, (_, start) in planned.items()}
    found = walk(clip, model.bundle.kinds, walkers, dense, frames=records.frames, starts=starts) if walkers else {}
    for key, record in found.items():
        records.write(clip, key, policies[planned[key][0]].what, record)
    done = {key: found.get(key, record) for key, record in kept.items()}
    return over_phases(done, policies, phases)  # type: ignore[arg-type]


def time_policies(
    clip: Clip, model: SceneModel, policies: Mapping[str, Candidate], records: Records, times: int
) -> dict[str, Columns]:
    """Seconds of every frame by policy: medians of several passes without scoring; empty if none was ever measured.

    Args:
        clip: the clip.
        model: the loaded model.
        policies: by name.
        records: store of earlier times.
        times: number of passes now; 0 reads earlier times.
    """
    walks = []
    for _ in range(times):
        walkers = {name: policy.start() for name, policy in policies.items()}
        walks.append(walk(clip, model.bundle.kinds, walkers, frames=records.frames, judged=False))
    for name, policy in policies.items() if walks else ():
        seconds = np.median([each[name]["seconds"] for each in walks], axis=0)
        records.write(clip, f"{name} time", policy.what, {"seconds": seconds})
        walks[0][name] = {"seconds": seconds}
    if walks:
        return walks[0]
    kept = {name: records.read(clip, f"{name} time", policy.what) for name, policy in policies.items()}
    return {name: record for name, record in kept.items() if record is not None} if kept[EAGER] else {}


def make_clips(part: str, folder: Path, meshes: Path) -> None:
    """Renders the missing clips of a part; each takes minutes."""
    from deltascene.pipeline.training.rooms.__main__ import main as rooms

    folder.mkdir(parents=True, exist_ok=True)
    there = rendered(folder, part)
    for spec in CLIPS[part]:
        if spec not in there and rooms(spec.arguments(folder, meshes, folder / "meshes")):
            sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder of rendered clips; without it, the packaged demo clip")
    parser.add_argument("--part", choices=list(CLIPS), default="val", help="which clips of the folder")
    parser.add_argument("--only", nargs="+", help="names of some of them")
    parser.add_argument("--model", default="rooms", help="packaged bundle or folder")
    parser.add_argument("--setting", action="append", default=[], help="NAME:key=value,… on top of balanced")
    parser.add_argument("--frames", type=int, default=10_000, help="maximum number of each clip")
    parser.add_argument("--phases", type=int, default=1, help="first frames from which each clip is run, 5 apart")
    parser.add_argument("--store", type=Path, help="folder where records are kept and found again")
    parser.add_argument(
        "--timing", type=int, default=0, metavar="PASSES", help="measure times in this number of passes"
    )
    parser.add_argument("--baselines", action="store_true", help="with --timing: B1 and B2, too")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--out", type=Path, help="JSON file for all numbers")
    parser.add_argument("--make", action="store_true", help="render the clips that are missing, and end")
    parser.add_argument("--meshes", type=Path, help="with --make: folder of the furniture libraries (docs/rooms.md)")
    return parser


if __name__ == "__main__":
    main()
