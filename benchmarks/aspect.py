"""Whether frames of another shape than the model's own are better kept in shape: `python benchmarks/aspect.py`.

Rendered rooms at 16:9 and at 9:16 (a camera turned by a quarter) with exact truth, from seeds that no other set has,
are predicted densely with `input.resize` stretch and aspect, and scored at the size of the frames. The loss of
aspect is how much worse it is than stretch, in percent of stretch's measure; intervals are 95 % over drawn rooms, the
same rooms for both. The gate holds if every headline measure is better, or has an interval with 0 in it that ends below
the margin. Offset: the shift by whole pixels with which predicted heatmaps lie best on the true ones (down, right).

    python benchmarks/aspect.py --data DATA --make --meshes MESHES    # renders the rooms; docs/rooms.md has the meshes
    python benchmarks/aspect.py --data DATA --out aspect.json
"""

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.evaluation.clip_scores import interval95
from deltascene.pipeline.evaluation.images import ImageScores, stacked
from deltascene.pipeline.training.data import LabelledFolder, open_labelled
from deltascene.pipeline.training.rooms.views import ViewConfig
from deltascene.pipeline.training.rooms.write import SetConfig, make_rooms
from deltascene.stages.kinds import Array
from deltascene.stages.metrics import METRICS
from deltascene.stages.resample import to_frame_size

WAYS = ("stretch", "aspect")
FIRST_SEED = 300_400  # of split `clip`; clips have seeds below 300_300
SPLIT = "clip"
MARGIN_PERCENT = 2.0
DRAWS = 2000
REACH_PX = 3
_ERRORS = ("rmse", "abs_rel", "mean_deg", "median_deg")  # measures that are better when lower


@dataclass(frozen=True)
class Shape:
    """A shape of frames.

    Attributes:
        name: of its folder.
        height: rows of a frame.
        width: columns of a frame.
        field_deg: minimum and maximum horizontal field of view of the cameras.
    """

    name: str
    height: int
    width: int
    field_deg: tuple[float, float]


def _turned(field_deg: tuple[float, float], aspect: float) -> tuple[float, float]:
    """Horizontal fields of view of cameras that are turned by a quarter."""
    low, high = (float(2 * np.degrees(np.arctan(np.tan(np.radians(deg) / 2) * aspect))) for deg in field_deg)
    return low, high


SHAPES = (
    Shape("16x9", 360, 640, ViewConfig.field_deg),
    Shape("9x16", 640, 360, _turned(ViewConfig.field_deg, 360 / 640)),
)


def make(data: Path, meshes: Path, rooms: int, views: int) -> None:
    """Renders the rooms of both shapes; those already there are skipped."""
    for shape in SHAPES:
        config = SetConfig(
            meshes_dir=meshes,
            cache_dir=data / "meshes",
            out_dir=data / shape.name,
            rooms={},
            views=views,
            height=shape.height,
            width=shape.width,
            field_deg=shape.field_deg,
        )
        make_rooms(config, list(range(FIRST_SEED, FIRST_SEED + rooms)), workers=1)


def score(engines: Mapping[str, Engine], data: LabelledFolder) -> dict[str, ImageScores]:
    """Scores of every way of resizing at the size of the frames, by room."""
    stems, found = data.stems(SPLIT), {}
    rooms = {room: place for place, room in enumerate(dict.fromkeys(data.group[stem] for stem in stems))}
    for way, engine in engines.items():
        kinds, stream = engine.model.bundle.kinds, engine.open_stream(way)
        counters = [{task: METRICS[kind.name]() for task, kind in kinds.items()} for _ in rooms]
        seconds, macs = np.zeros(len(stems)), 0
        for number, stem in enumerate(stems):
            stream.reset()
            image = data.image(stem)
            result, plan = stream(image), engine.plan(image.shape[:2])
            seconds[number], macs = result.cost.seconds, result.cost.macs_executed
            for task, prediction in result.predictions.items():
                value = to_frame_size(prediction.array, kinds[task], plan)
                counters[rooms[data.group[stem]]][task].update(kinds[task].decode(data.truth(task, stem)), value)
        sums = {task: stacked([each[task].sums() for each in counters]) for task in kinds}
        found[way] = ImageScores(kinds, sums, macs, seconds)
    return found


def offset(engine: Engine, data: LabelledFolder) -> tuple[int, int]:
    """Shift down and right, in pixels of the frame, of the true heatmaps that agrees best with the predicted ones."""
    stream, total = engine.open_stream("offset"), np.zeros((2 * REACH_PX + 1,) * 2)
    for stem in data.stems(SPLIT):
        stream.reset()
        image = data.image(stem)
        result, plan = stream(image), engine.plan(image.shape[:2])
        for task, made in result.predictions.items():
            if made.kind.name == "heatmaps":
                value = to_frame_size(made.array, made.kind, plan)
                total += agreement(made.kind.decode(data.truth(task, stem)), value)
    down, right = np.unravel_index(int(total.argmax()), total.shape)
    return int(down) - REACH_PX, int(right) - REACH_PX


def agreement(true_HW: Array, predicted_HW: Array) -> Array:
    """Sum of predictions where the truth is, shifted by up to REACH_PX pixels down and right [shifts, shifts]."""
    inner = slice(REACH_PX, -REACH_PX)
    shifts = range(-REACH_PX, REACH_PX + 1)
    true = [[np.roll(true_HW, (down, right), (0, 1))[inner, inner] for right in shifts] for down in shifts]
    return np.array([[float((each * predicted_HW[inner, inner]).sum()) for each in row] for row in true])


def compare(scores: Mapping[str, ImageScores]) -> dict[str, dict[str, Any]]:
    """Every measure of every task: both values, the loss of aspect in percent, and its interval over drawn rooms."""
    stretch, aspect = (scores[way] for way in WAYS)
    rooms, rows = len(next(iter(aspect.sums.values()))), dict[str, dict[str, Any]]()
    weights = np.random.default_rng(0).multinomial(rooms, np.full(rooms, 1 / rooms), size=DRAWS).astype(np.float64)
    for task, kind in aspect.kinds.items():
        metric, values = METRICS[kind.name], [each.measures(task) for each in (stretch, aspect)]
        drawn = [[each.measures(task, weights_G) for each in (stretch, aspect)] for weights_G in weights]
        for name in values[0]:
            if name == "threshold":
                continue
            worse = -1 if name not in _ERRORS else 1
            losses = [100 * worse * (new[name] / old[name] - 1) for old, new in (values, *drawn)]
            rows[f"{task}/{name}"] = {
                "headline": name == metric.headline,
                "stretch": values[0][name],
                "aspect": values[1][name],
                "loss_percent": losses[0],
                "interval": interval95(losses[1:]),
            }
    return rows


def holds(row: Mapping[str, Any]) -> bool:
    """Whether a measure passes: better, or not told from equal and within the margin."""
    low, high = row["interval"]
    return bool(high <= 0 or (low <= 0 and high <= MARGIN_PERCENT))


def main() -> None:
    """Renders the rooms, or prints the tables and writes the JSON file."""
    options = _parser().parse_args()
    if options.make:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        make(options.data, options.meshes, options.rooms, options.views)
        return
    plain = ["numerics.dtype=float32"]  # the same for both, whatever a measurement of the moment says
    engines = {way: Engine.load(options.model, "exact", overrides=[f"input.resize={way}", *plain]) for way in WAYS}
    report: dict[str, Any] = {"model": options.model, "margin_percent": MARGIN_PERCENT, "shapes": {}}
    for shape in SHAPES:
        data = open_labelled(options.data / shape.name)
        scores = score(engines, data)
        rows = compare(scores)
        report["shapes"][shape.name] = {
            "rooms": len({data.group[stem] for stem in data.stems(SPLIT)}),
            "frames": len(data.stems(SPLIT)),
            "frame_size": [shape.height, shape.width],
            "model_size": {way: engine.plan((shape.height, shape.width)).model_size for way, engine in engines.items()},
            "offset_px": {way: offset(engine, data) for way, engine in engines.items()},
            "gmac": {way: each.macs / 1e9 for way, each in scores.items()},
            "measures": rows,
        }
        _print_shape(shape.name, report["shapes"][shape.name])
    report["holds"] = all(holds(row) for each in report["shapes"].values() for row in _headlines(each).values())
    print(f"\nThe gate {'holds' if report['holds'] else 'does not hold'}.")
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def _headlines(shape: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row for name, row in shape["measures"].items() if row["headline"]}


def _print_shape(name: str, shape: Mapping[str, Any]) -> None:
    sizes = ", ".join(f"{way} {size[0]}x{size[1]}" for way, size in shape["model_size"].items())
    offsets = ", ".join(f"{way} {down:+d} {right:+d}" for way, (down, right) in shape["offset_px"].items())
    print(f"\n{name}: {shape['rooms']} rooms, {shape['frames']} frames; input: {sizes}; offset in pixels: {offsets}\n")
    print("| measure | stretch | aspect | loss of aspect, % | 95 % | holds |")
    print("|---|---|---|---|---|---|")
    for measure, row in shape["measures"].items():
        shown = f"**{measure}**" if row["headline"] else measure
        low, high = row["interval"]
        verdict = ("yes" if holds(row) else "no") if row["headline"] else ""
        print(
            f"| {shown} | {row['stretch']:.4f} | {row['aspect']:.4f} | {row['loss_percent']:+.2f} |"
            f" [{low:+.2f}, {high:+.2f}] | {verdict} |"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the rendered rooms")
    parser.add_argument("--make", action="store_true", help="render them, instead of scoring")
    parser.add_argument("--meshes", type=Path, help="folder with the .sh3f furniture libraries, for --make")
    parser.add_argument("--rooms", type=int, default=40, help="rooms to render")
    parser.add_argument("--views", type=int, default=2, help="views of each room")
    parser.add_argument("--model", default="rooms", help="packaged bundle or folder")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="all numbers")
    return parser


if __name__ == "__main__":
    main()
