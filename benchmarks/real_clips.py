"""Hand-marked frames of real video against a model: `python benchmarks/real_clips.py --videos FOLDER`.

Each marked frame runs dense, as a stream of its own, and is asked: do the points on persons and on the ground get these
classes, and is the nearer point of each pair the nearer one? In nearly all pairs of near_far that is also the lower
one, in none of nearer_above. real_clips.json holds the marks, and which packages the clips are in; FOLDER holds the
clips themselves, as they are there (`.gz` too).

Intervals are 95 % by Wilson, as if the marks of a frame had nothing to do with each other; they have, so the last row
draws whole frames again (bootstrap).
"""

import argparse
import gzip
import hashlib
import json
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from math import sqrt
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from deltascene.errors import DeltasceneError
from deltascene.pipeline.drawing.panel import Panel, draw_ground, frame_tiles, label_tile, task_tile
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.evaluation.clip_scores import bootstrap, error_of
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import read_frames
from deltascene.stages.kinds import Array, Classes, Kind, Scalar
from deltascene.stages.resample import to_frame_size
from deltascene.stages.types import Image

MARKS = Path(__file__).with_name("real_clips.json")
ALL, REDRAWN = "all", "all, frames drawn again"
TILE_WIDTH, CELLS, LEGEND_HEIGHT = 240, 2, 40  # pixels; frames side by side, three tiles each
HIT, MISS, LINE = (255, 255, 255), (230, 0, 0), (0, 0, 0)
SHEET_BYTES = 900_000

Point = tuple[int, int]


@dataclass(frozen=True)
class Marks:
    """What a human saw in a frame; points are x, y in pixels of the frame.

    Attributes:
        index: number of the frame in its clip.
        size: height and width.
        points: points by the label that they should get.
        pairs: groups of pairs of a nearer and a farther point, by name.
    """

    index: int
    size: tuple[int, int]
    points: Mapping[str, Sequence[Point]]
    pairs: Mapping[str, Sequence[tuple[Point, Point]]]


@dataclass(frozen=True)
class MarkedClip:
    """A clip and its marked frames.

    Attributes:
        file: name of the unpacked file.
        origin: where to get it.
        sha256: of the unpacked file.
        frames: marks, by ascending index.
    """

    file: str
    origin: str
    sha256: str
    frames: Sequence[Marks]


@dataclass(frozen=True)
class Judged:
    """A frame that was run.

    Attributes:
        marks: of the frame.
        image: RGB [H, W, 3].
        values: predictions by task, at the frame's size.
        hits: for each measure one truth value per mark, in the order of the marks.
    """

    marks: Marks
    image: Image
    values: Mapping[str, Array]
    hits: Mapping[str, Sequence[bool]]


def main() -> None:
    """The command."""
    options = _parser().parse_args()
    clips = read_marks(MARKS)
    if options.videos is None:
        print("no --videos FOLDER, no numbers; it should hold")
        print(*(f"{clip.file}: {clip.origin}" for clip in clips), sep="\n")
        return
    try:
        engine = Engine.load(options.model)
        judged = judge_clips(engine, options.videos, clips)
    except DeltasceneError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"\nmodel {engine.model.bundle.name}\n\n{table(judged)}")
    if options.out is not None:
        options.out.write_text(json.dumps(plain(engine.model.bundle.name, judged), indent=1) + "\n")
    if options.sheet is not None and judged:
        options.sheet.write_bytes(encode(draw_sheet(judged, engine.model.bundle.kinds)))


def read_marks(path: Path) -> list[MarkedClip]:
    """Marks of a file.

    Raises:
        UsageError: a point lies outside of its frame.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    return [
        MarkedClip(
            file=clip["file"],
            origin=f"{clip['path']} of {clip['package']}",
            sha256=clip["sha256"],
            frames=[_marks(frame, data["labels"], data["orders"]) for frame in clip["frames"]],
        )
        for clip in data["clips"]
    ]


def judge_clips(engine: Engine, folder: Path, clips: Sequence[MarkedClip]) -> dict[str, list[Judged]]:
    """Judged frames by clip; a missing clip is named and left out.

    Raises:
        UsageError: a clip isn't the marked one, or the model lacks a label or a kind of task.
        SourceError: a clip can't be read.
    """
    judged = {}
    with tempfile.TemporaryDirectory() as scratch:
        for clip in clips:
            path = find_clip(folder, clip, Path(scratch))
            if path is None:
                print(f"{clip.file}: not in {folder}, left out; it is {clip.origin}")
            else:
                judged[clip.file] = [judge(engine, marks, image) for marks, image in read_clip(path, clip)]
    return judged


def find_clip(folder: Path, clip: MarkedClip, scratch: Path) -> Path | None:
    """The unpacked file of a clip, or None if there is none.

    Raises:
        UsageError: its content isn't what was marked.
    """
    plain, packed = folder / clip.file, folder / f"{clip.file}.gz"
    if not plain.exists() and not packed.exists():
        return None
    content = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    found = hashlib.sha256(content).hexdigest()
    if found != clip.sha256:
        raise UsageError(f"{clip.file}: expected sha256 {clip.sha256}; found {found}")
    if plain.exists():
        return plain
    (scratch / clip.file).write_bytes(content)
    return scratch / clip.file


def read_clip(path: Path, clip: MarkedClip) -> Iterator[tuple[Marks, Image]]:
    """Marked frames with their pictures.

    Raises:
        UsageError: a frame isn't there, or of another size.
    """
    wanted = {marks.index: marks for marks in clip.frames}
    with read_frames(find_sources([str(path)])[0], end_frame=max(wanted) + 1) as frames:
        for frame in frames:
            marks = wanted.pop(frame.index, None)
            if marks is None:
                continue
            if frame.image is None or frame.image.shape[:2] != marks.size:
                found = frame.cause if frame.image is None else frame.image.shape[:2]
                raise UsageError(f"{clip.file} #{marks.index}: expected a picture of {marks.size}; found {found}")
            yield marks, frame.image
    if wanted:
        raise UsageError(f"{clip.file}: expected frames {', '.join(map(str, wanted))}; found the end before them")


def judge(engine: Engine, marks: Marks, image: Image) -> Judged:
    """Runs a frame as a stream of its own, and compares.

    Raises:
        UsageError: the model lacks a label or a kind of task.
    """
    kinds = engine.model.bundle.kinds
    labelling, ranging = find_task(kinds, Classes, marks.points), find_task(kinds, Scalar)
    stream = engine.open_stream(f"frame {marks.index}", [labelling, ranging])
    result = stream(image)
    values = {task: to_frame_size(result[task].array, kinds[task], stream.plan) for task in (labelling, ranging)}
    ids, far, classes = values[labelling], values[ranging], kinds[labelling]
    assert isinstance(classes, Classes)
    hits = {
        label: [bool(ids[y, x] == classes.labels.index(label)) for x, y in points]
        for label, points in marks.points.items()
    }
    for name, pairs in marks.pairs.items():
        hits[name] = [bool(far[near[1], near[0]] < far[other[1], other[0]]) for near, other in pairs]
    return Judged(marks, image, values, hits)


def find_task(kinds: Mapping[str, Kind], kind: type, labels: Collection[str] = ()) -> str:
    """Name of the first task of a kind that has some labels.

    Raises:
        UsageError: there is none.
    """
    for task, each in kinds.items():
        if isinstance(each, kind) and set(labels) <= set(getattr(each, "labels", ())):
            return task
    wanted = " ".join([kind.__name__.lower(), *(["with", *labels] if labels else [])])
    raise UsageError(f"model: expected a task of kind {wanted}; found {', '.join(kinds)}")


def table(judged: Mapping[str, Sequence[Judged]]) -> str:
    """Hits by clip and overall, markdown; empty if nothing was judged."""
    frames = [frame for clip in judged.values() for frame in clip]
    if not frames:
        return "no clip, no numbers"
    rows = {**judged, ALL: frames}
    names = list(frames[0].hits)
    lines = [f"| clip | frames | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for row, of in rows.items():
        lines.append(f"| {row} | {len(of)} | {' | '.join(_cell(*count(of, name)) for name in names)} |")
    spans = [_span(*redrawn(frames, name)) if count(frames, name)[1] else "–" for name in names]
    return "\n".join([*lines, f"| {REDRAWN} | {len(frames)} | {' | '.join(spans)} |"])


def plain(model: str, judged: Mapping[str, Sequence[Judged]]) -> dict[str, Any]:
    """All numbers, for JSON; the hits mark by mark, so that two models can be compared on the same ones."""
    frames = [frame for clip in judged.values() for frame in clip]
    names = list(frames[0].hits) if frames else []
    summary = {}
    for row, of in {**judged, ALL: frames}.items():
        counts = {name: count(of, name) for name in names}
        summary[row] = {
            name: {"hits": hits, "marks": marks, "interval": wilson(hits, marks) if marks else None}
            for name, (hits, marks) in counts.items()
        }
    each = {
        clip: {frame.marks.index: {name: [*map(int, hits)] for name, hits in frame.hits.items()} for frame in of}
        for clip, of in judged.items()
    }
    again = {name: redrawn(frames, name) for name in names if count(frames, name)[1]}
    return {"model": model, "summary": summary, REDRAWN: again, "frames": each}


def count(frames: Sequence[Judged], name: str) -> tuple[int, int]:
    """Hits and marks of a measure."""
    return sum(sum(frame.hits[name]) for frame in frames), sum(len(frame.hits[name]) for frame in frames)


def wilson(hits: int, marks: int, z: float = 1.96) -> tuple[float, float]:
    """Interval of a share.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    rate, slack = hits / marks, z * z / marks
    half = z * sqrt(rate * (1 - rate) / marks + slack / (4 * marks))
    return max(0.0, (rate + slack / 2 - half) / (1 + slack)), min(1.0, (rate + slack / 2 + half) / (1 + slack))


def redrawn(frames: Sequence[Judged], name: str) -> tuple[float, float]:
    """Interval of a share by drawing whole frames; those without such marks can't be drawn."""
    sums = np.array([[[hits], [marks]] for hits, marks in (count([each], name) for each in frames) if marks], float)
    return bootstrap([({name: sums},)], lambda drawn: error_of(drawn[name]), block=1)[0][0]


def draw_sheet(judged: Mapping[str, Sequence[Judged]], kinds: Mapping[str, Kind]) -> Image:
    """All frames, each as picture, classes with their points and distances with their pairs; and a legend."""
    rows = []
    pictures = [_cell_picture(clip, frame, kinds) for clip, frames in judged.items() for frame in frames]
    for _, alike in groupby(pictures, key=lambda picture: picture.shape):
        cells = list(alike)
        cells += [np.zeros_like(cells[0])] * (-len(cells) % CELLS)
        rows += [np.hstack(cells[start : start + CELLS]) for start in range(0, len(cells), CELLS)]
    panel = Panel((LEGEND_HEIGHT, rows[0].shape[1]), 0, 1, 1, 0)
    return np.vstack([*rows, draw_ground(panel, kinds)])


def encode(picture: Image) -> bytes:
    """A JPEG of at most `SHEET_BYTES`, as good as that allows."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    for quality in range(90, 20, -10):
        data: bytes = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= SHEET_BYTES:
            break
    return data


def _cell_picture(clip: str, frame: Judged, kinds: Mapping[str, Kind]) -> Image:
    height, width = frame.marks.size
    scale = TILE_WIDTH / width
    picture, grey = frame_tiles((round(height * scale), TILE_WIDTH), frame.image)
    classes, far_away = (task_tile(value, kinds[task], grey) for task, value in frame.values.items())
    tiles = [np.ascontiguousarray(tile) for tile in (picture, classes, far_away)]
    for name, points in frame.marks.points.items():
        for (x, y), hit in zip(points, frame.hits[name], strict=True):
            _draw_mark(tiles[1], (round(x * scale), round(y * scale)), hit)
    for name, pairs in frame.marks.pairs.items():
        for pair, hit in zip(pairs, frame.hits[name], strict=True):
            near, far = ((round(x * scale), round(y * scale)) for x, y in pair)
            for thickness, colour in ((3, LINE), (1, HIT if hit else MISS)):
                cv2.line(tiles[2], near, far, colour, thickness, cv2.LINE_AA)
            _draw_mark(tiles[2], near, hit)
    texts = {name: f"{name} {sum(hits)}/{len(hits)}" for name, hits in frame.hits.items() if hits}
    captions = (
        "  ".join(texts[name] for name in group if name in texts) for group in (frame.marks.points, frame.marks.pairs)
    )
    for tile, text in zip(tiles, (f"{clip} #{frame.marks.index}", *captions), strict=True):
        label_tile(tile, text, 0.34)
    return np.hstack(tiles)


def _draw_mark(tile: Image, at: Point, hit: bool) -> None:
    """Draws a mark into a tile: a ring for a hit, a cross for a miss."""
    for thickness, colour in ((3, LINE), (1, HIT if hit else MISS)):
        if hit:
            cv2.circle(tile, at, 3, colour, thickness, cv2.LINE_AA)
        else:
            cv2.drawMarker(tile, at, colour, cv2.MARKER_TILTED_CROSS, 7, thickness, cv2.LINE_AA)


def _cell(hits: int, marks: int) -> str:
    return f"{hits}/{marks} {100 * hits / marks:.0f} % {_span(*wilson(hits, marks))}" if marks else "–"


def _span(low: float, high: float) -> str:
    return f"[{100 * low:.0f}, {100 * high:.0f}]"


def _marks(frame: Mapping[str, Any], labels: Sequence[str], orders: Sequence[str]) -> Marks:
    points = {label: [(x, y) for x, y in frame[label]] for label in labels}
    pairs = {name: [((near[0], near[1]), (far[0], far[1])) for near, far in frame[name]] for name in orders}
    height, width = frame["size"]
    for x, y in chain(*points.values(), *chain(*pairs.values())):
        if not (0 <= x < width and 0 <= y < height):
            raise UsageError(f"frame {frame['index']}: expected a point inside {height}x{width}; found x {x}, y {y}")
    return Marks(frame["index"], (height, width), points, pairs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="folder of the clips; without it, says where they are from")
    parser.add_argument("--model", default="rooms", help="packaged bundle or folder")
    parser.add_argument("--sheet", type=Path, metavar="FILE.jpg", help="picture of all frames, answers and marks")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="all numbers, mark by mark")
    return parser


if __name__ == "__main__":
    main()
