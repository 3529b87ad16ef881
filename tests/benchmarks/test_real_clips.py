"""The check on real clips: marks in, hits out, on a made-up clip that answers as it was told to."""

import gzip
import hashlib
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import read_frames
from deltascene.stages.resample import to_frame_size

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SIZE = (72, 96)
POINTS = [(10, 10), (50, 30), (90, 60), (30, 65), (70, 5)]
INDICES = (2, 5)


@pytest.fixture(scope="module")
def checking() -> Iterator[SimpleNamespace]:
    """The modules of the benchmark, imported from their folder."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield SimpleNamespace(
            **{name: importlib.import_module(f"real_clips_{name}") for name in ("marks", "tables", "sheet")}
        )
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def clip(make_clip) -> Path:
    return make_clip(7)


@pytest.fixture(scope="module")
def engine(tiny) -> Engine:
    return Engine.load(tiny, "exact")


@pytest.fixture(scope="module")
def answers(engine, clip):
    """Labels and heights at the points of the marked frames, by frame, as the engine gives them."""
    found = {}
    with read_frames(find_sources([str(clip)])[0]) as frames:
        for frame in frames:
            if frame.index in INDICES:
                stream = engine.open_stream("alone")
                result = stream(frame.image)
                parts, height = (
                    to_frame_size(result[task].array, result[task].kind, stream.plan) for task in ("parts", "height")
                )
                labels = result["parts"].kind.labels
                found[frame.index] = [(labels[parts[y, x]], height[y, x]) for x, y in POINTS]
    return found


@pytest.fixture
def marks(clip, answers, tmp_path) -> Path:
    """In each frame a point for its own label, one for a wrong label, and a pair both ways round."""
    frames = []
    for index, points in answers.items():
        order = sorted(range(len(points)), key=lambda number: points[number][1])
        low, high = POINTS[order[0]], POINTS[order[-1]]
        assert points[order[0]][1] < points[order[-1]][1]
        frame = {"sky": [], "road": [], "car": [], "index": index, "size": SIZE, "order": [[low, high], [high, low]]}
        frame[points[0][0]].append(POINTS[0])
        frame[next(label for label in ("sky", "road", "car") if label != points[1][0])].append(POINTS[1])
        frames.append(frame)
    digest = hashlib.sha256(clip.read_bytes()).hexdigest()
    entry = {"file": clip.name, "package": "none", "path": "a/b", "sha256": digest, "licence": "none", "frames": frames}
    path = tmp_path / "marks.json"
    path.write_text(json.dumps({"labels": ["sky", "road", "car"], "orders": ["order"], "clips": [entry]}))
    return path


def test_hits_and_misses_are_counted_as_marked(checking, engine, marks, clip):
    judged = checking.marks.judge_clips(engine, clip.parent, checking.marks.read_marks(marks))
    frames = judged[clip.name]
    assert [frame.marks.index for frame in frames] == list(INDICES)
    assert all(frame.hits["order"] == [True, False] for frame in frames)
    by_label = [checking.tables.count(frames, label) for label in ("sky", "road", "car")]
    assert [sum(column) for column in zip(*by_label, strict=True)] == [2, 4]
    lines = checking.tables.table(judged).splitlines()
    assert lines[0] == "| clip | frames | sky | road | car | order |"
    assert lines[2].startswith(f"| {clip.name} | 2 |")
    assert lines[3].endswith("| 2/4 50 % [15, 85] |")
    assert lines[4].startswith("| all, frames drawn again | 2 |")
    numbers = checking.tables.plain("tiny", judged)
    assert numbers["frames"][clip.name][5]["order"] == [1, 0]
    assert json.loads(json.dumps(numbers))["summary"]["all"]["order"]["marks"] == 4


def test_a_packed_clip_is_unpacked_and_a_missing_one_named(checking, engine, marks, clip, tmp_path, capsys):
    folder = tmp_path / "videos"
    folder.mkdir()
    wanted = checking.marks.read_marks(marks)
    assert checking.marks.judge_clips(engine, folder, wanted) == {}
    assert capsys.readouterr().out == f"{clip.name}: not in {folder}, left out; it is a/b of none\n"
    (folder / f"{clip.name}.gz").write_bytes(gzip.compress(clip.read_bytes()))
    assert list(checking.marks.judge_clips(engine, folder, wanted)) == [clip.name]


def test_another_clip_of_the_same_name_is_refused(checking, engine, marks, clip, tmp_path):
    (tmp_path / clip.name).write_bytes(clip.read_bytes() + b"more")
    with pytest.raises(UsageError, match=rf"^{clip.name}: expected sha256 \w+; found \w+$"):
        checking.marks.judge_clips(engine, tmp_path, checking.marks.read_marks(marks))


def test_a_model_without_the_labels_is_refused(checking, engine):
    frame = checking.marks.Marks(0, SIZE, {"person": [(1, 1)]}, {})
    with pytest.raises(UsageError, match="expected a task of kind classes with person; found parts, height"):
        checking.marks.judge(engine, frame, np.zeros((*SIZE, 3), np.uint8))


def test_the_sheet_shows_every_frame(checking, engine, marks, clip):
    judged = checking.marks.judge_clips(engine, clip.parent, checking.marks.read_marks(marks))
    picture = cv2.imdecode(
        np.frombuffer(checking.sheet.encode(checking.sheet.draw_sheet(judged, engine.model.bundle.kinds)), "u1"), 1
    )
    assert picture.shape == (180 + checking.sheet.LEGEND_HEIGHT, 2 * 3 * 240, 3)
    assert picture[:180].std(axis=(0, 1)).min() > 10


def test_wilson_by_hand(checking):
    assert checking.tables.wilson(8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)
    assert checking.tables.wilson(0, 5) == pytest.approx((0, 0.434), abs=1e-3)
    assert checking.tables.wilson(5, 5)[1] == 1


def test_the_packaged_marks_are_whole(checking):
    clips = checking.marks.read_marks(checking.marks.MARKS)
    frames = [frame for clip in clips for frame in clip.frames]
    assert len(frames) == 20
    assert all([frame.index for frame in clip.frames] == sorted(frame.index for frame in clip.frames) for clip in clips)
    counted = {name: sum(len(frame.points[name]) for frame in frames) for name in ("person", "floor")}
    counted |= {name: sum(len(frame.pairs[name]) for frame in frames) for name in ("near_far", "nearer_above")}
    assert counted == {"person": 146, "floor": 114, "near_far": 118, "nearer_above": 48}
    assert all(near[1] < far[1] for frame in frames for near, far in frame.pairs["nearer_above"])
    assert not any(
        PurePosixPath(clip["path"]).is_absolute() for clip in json.loads(checking.marks.MARKS.read_text())["clips"]
    )


def test_a_point_outside_of_its_frame_is_refused(checking, marks):
    data = json.loads(marks.read_text())
    data["clips"][0]["frames"][0]["sky"] = [[96, 3]]
    marks.write_text(json.dumps(data))
    with pytest.raises(UsageError, match="expected a point inside 72x96; found x 96, y 3"):
        checking.marks.read_marks(marks)
