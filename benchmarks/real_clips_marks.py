"""Hand-marked frames of real clips: reading the marks and the clips, and comparing a model with the marks."""

import gzip
import hashlib
import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import read_frames
from deltascene.stages.kinds import Array, Classes, Kind, Scalar
from deltascene.stages.resample import to_frame_size
from deltascene.stages.types import Image

MARKS = Path(__file__).with_name("real_clips.json")

Point = tuple[int, int]


@dataclass(frozen=True)
class Marks:
    """Marks of a frame by a human; points are x, y in pixels of the frame.

    Attributes:
        index: number of the frame in its clip.
        size: height and width.
        points: points by their true label.
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
        origin: package of the clip.
        sha256: of the unpacked file.
        frames: marks, by ascending index.
    """

    file: str
    origin: str
    sha256: str
    frames: Sequence[Marks]


@dataclass(frozen=True)
class Judged:
    """A frame and its predictions.

    Attributes:
        marks: of the frame.
        image: RGB [H, W, 3].
        values: predictions by task, at the frame's size.
        hits: for each measure, whether each mark is a hit, in the order of the marks.
    """

    marks: Marks
    image: Image
    values: Mapping[str, Array]
    hits: Mapping[str, Sequence[bool]]


def read_marks(path: Path) -> list[MarkedClip]:
    """Reads a file of marks.

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
    """Judged frames by clip; a missing clip is reported and left out.

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
    """Path of a clip's unpacked file, or None if it is missing.

    Raises:
        UsageError: its content isn't that of the marked clip.
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
        UsageError: a frame is missing, or has another size.
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
    """Predicts a frame as a stream of its own, and compares it with its marks.

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
    """Name of the first task of a kind with certain labels.

    Raises:
        UsageError: there is none.
    """
    for task, each in kinds.items():
        if isinstance(each, kind) and set(labels) <= set(getattr(each, "labels", ())):
            return task
    wanted = " ".join([kind.__name__.lower(), *(["with", *labels] if labels else [])])
    raise UsageError(f"model: expected a task of kind {wanted}; found {', '.join(kinds)}")


def _marks(frame: Mapping[str, Any], labels: Sequence[str], orders: Sequence[str]) -> Marks:
    points = {label: [(x, y) for x, y in frame[label]] for label in labels}
    pairs = {name: [((near[0], near[1]), (far[0], far[1])) for near, far in frame[name]] for name in orders}
    height, width = frame["size"]
    for x, y in chain(*points.values(), *chain(*pairs.values())):
        if not (0 <= x < width and 0 <= y < height):
            raise UsageError(f"frame {frame['index']}: expected a point inside {height}x{width}; found x {x}, y {y}")
    return Marks(frame["index"], (height, width), points, pairs)
