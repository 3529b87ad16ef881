"""What a day of a camera costs: `python benchmarks/day.py --clips CLIPS --mix val_idle=0.8,val_static=0.2`.

A day is made of stretches that the mix names with their shares of its 24 hours. A stretch is a rendered clip, or
several (`val_idle+val_clock=0.8`), shown again and again; at every repetition all policies begin anew, as with a
segment. As many repetitions are measured as `--minutes` of the mix have, all policies in one interleaved walk; the
time of each frame is its median over them. Core-hours are seconds times the number of threads, which are busy or
reserved all the time. Policies are those of `yardsticks.py`, whose k are chosen on each clip. Decoding, resizing and
writing are left out for all, as there.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deltascene import Engine  # before torch, so that its threads wait as they do in a run

# isort: split
import torch
from dense_networks import Dense
from records import Records
from yardsticks import PHASES, Ours, measure, score_clip, timed

from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.evaluation.clips import Clip, open_clip
from deltascene.pipeline.evaluation.walk import EXACT
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import probe

DAY_S = 24 * 3600.0
MIX = "val_idle=0.8,val_static=0.15,val_busy=0.05"
LEAST_MINUTES = 20.0
SELDOM = 25  # frames from one measurement of B1 and B2 to the next: they are all alike, and there are thousands


@dataclass(frozen=True)
class Stretch:
    """A clip and its part of the day.

    Attributes:
        name: of the clip.
        share: of the day.
    """

    name: str
    share: float


@dataclass(frozen=True)
class Measured:
    """A stretch as it was measured.

    Attributes:
        stretch: what it is.
        minutes: of video that were measured.
        fps: frames per second.
        ms: mean time of a frame by policy.
        ks: k of the yardsticks, by the policy of ours that they are compared with.
    """

    stretch: Stretch
    minutes: float
    fps: float
    ms: Mapping[str, float]
    ks: Mapping[str, int]

    def hours(self, policy: str) -> float:
        """Hours that this part of a day takes."""
        return self.stretch.share * DAY_S * self.fps * self.ms[policy] / 1e3 / 3600


def read_mix(text: str) -> list[Stretch]:
    """Stretches of a mix, `CLIP=SHARE,CLIP+CLIP=SHARE`; clips that are joined have equal parts of the share.

    Raises:
        ValueError: the shares aren't numbers whose sum is 1.
    """
    found = []
    for part in text.split(","):
        names, _, share = part.partition("=")
        clips = names.split("+")
        found += [Stretch(name, float(share) / len(clips)) for name in clips]
    if not math.isclose(total := sum(stretch.share for stretch in found), 1.0, abs_tol=1e-6):
        raise ValueError(f"--mix: expected shares that add up to 1; found {total:g}")
    return found


def policies_of(ks: Mapping[str, int], ours: Ours) -> Iterator[tuple[str, str]]:
    """Names in the table and in the measured walk: yardsticks, those of each policy of ours, and ours."""
    yield from (("B1", "B1"), ("B2", "B2"))
    for name in ours.names:
        yield f"B2 + best k ({name})", "B2" if ks[name] == 1 else f"B2 warp {ks[name]}"
        yield f"B3 ({name})", f"B3 {ks[name]}"
    yield from ((name, name) for name in ours.names)


def measure_stretch(
    stretch: Stretch, clip: Clip, model: SceneModel, ours: Ours, records: Records, dense: Dense, minutes: float
) -> Measured:
    """Measures a clip, repeated until it has its share of the minutes, unless the store has it."""
    frames, fps = min(records.frames, len(clip.moving)), float(probe(find_sources([str(clip.path)])[0]).fps)
    repetitions = max(1, math.ceil(minutes * 60 * stretch.share * fps / frames))
    ks = score_clip(clip, model, ours, records, PHASES).ks
    candidates = {
        name: replace(one, what={**one.what, "repetitions": repetitions})
        for name, one in timed(model, ours, ks.values(), dense, SELDOM).items()
    }
    times = measure(clip, model, candidates, records.within("day"), repetitions)
    ms = {name: times[key] for name, key in policies_of(ks, ours)}
    return Measured(stretch, repetitions * frames / fps / 60, fps, ms, ks)


def table(measured: Sequence[Measured], threads: int) -> str:
    """Milliseconds of a frame by stretch, and core-hours of a day, by policy."""
    stretches = [f"{one.stretch.name}, {100 * one.stretch.share:.3g} % of the day" for one in measured]
    lines = [
        f"| ms a frame | {' | '.join(stretches)} | core-hours a day | of B2's |",
        "|---" * (len(stretches) + 3) + "|",
    ]
    hours = {name: threads * sum(one.hours(name) for one in measured) for name in measured[0].ms}
    for name, spent in hours.items():
        cells = [f"{one.ms[name]:.2f}" for one in measured]
        lines.append(f"| {name} | {' | '.join(cells)} | {spent:.2f} | {100 * spent / hours['B2']:.1f} % |")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    model, ours = Engine.load(options.model).model, Ours.of(options.model, options.setting)
    stretches = read_mix(options.mix)
    missing = [each.name for each in stretches if not (options.clips / f"{each.name}.mp4").is_file()]
    if missing:
        sys.exit(f"{options.clips}: expected the clips of the mix; {', '.join(missing)} not found")
    measured: list[Measured] = []
    with tempfile.TemporaryDirectory() as passing:
        records = Records.of(options.store or Path(passing), model, options.frames)
        for stretch in stretches:
            clip = open_clip(options.clips / f"{stretch.name}.mp4", model.bundle.kinds)
            dense = Dense.of(model, ours.configs[EXACT], clip, openvino=not options.no_openvino)
            measured.append(measure_stretch(stretch, clip, model, ours, records, dense, options.minutes))
            print(f"{stretch.name}: {measured[-1].minutes:.1f} minutes are measured", file=sys.stderr, flush=True)
    minutes, ks = sum(one.minutes for one in measured), {one.stretch.name: dict(one.ks) for one in measured}
    enough = "" if minutes >= LEAST_MINUTES else f": too few to be quoted, {LEAST_MINUTES:g} are asked for"
    print(f"{minutes:.1f} minutes of video measured{enough}; dense networks by {dense.what}; best k: {ks}\n")
    print(table(measured, options.threads))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder of rendered clips")
    parser.add_argument("--mix", default=MIX, help=f"clips and their shares of the day; default {MIX}")
    parser.add_argument("--minutes", type=float, default=LEAST_MINUTES, help="of video that are measured, in all")
    parser.add_argument("--model", default="rooms", help="packaged bundle or folder")
    parser.add_argument("--setting", action="append", default=[], help="as of yardsticks.py")
    parser.add_argument("--frames", type=int, default=10_000, help="maximum number of each clip")
    parser.add_argument("--store", type=Path, help="folder of the records of yardsticks.py")
    parser.add_argument("--no-openvino", action="store_true", help="dense networks by this package")
    parser.add_argument("--threads", type=int, default=2)
    return parser


if __name__ == "__main__":
    main()
