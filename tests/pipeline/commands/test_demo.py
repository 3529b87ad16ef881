"""The packaged model on the packaged clip: what `make demo` shows, with its MACs as golden integers."""

import json
from collections import Counter
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from deltascene import Engine, open_run
from deltascene.pipeline.config import load_config
from deltascene.pipeline.evaluation.what_if import replay
from deltascene.pipeline.runs.accuracy import read_truth
from deltascene.pipeline.sources.find import find_sources

DEMO = Path(str(resources.files("deltascene.configs"))) / "demo"
FRAMES = 12

# What `balanced` does with the clip's 150 frames. They change with its thresholds, and only then.
DENSE_MACS = 16_282_804_736
GOLDEN_POLICIES = {"dense": 1, "rows": 74, "warped": 75}
GOLDEN_ROWS = 7_038
GOLDEN_MACS = 324_573_148_416

# ViT-S/14 at 224x308: 352 patches + 1 class token, width 384, 12 blocks, MLP ratio 4; heads read 2 taps (edges 3)
# through 256. Depth has blocks of its own from the 11th on, normals and edges from the 9th.
TOKENS, EMBED_PATCH = 353, (3 * 14 * 14) * 384
BLOCK_ROW = (3 + 1 + 4 + 4) * 384 * 384 + 2 * TOKENS * 384
OWN_BLOCKS = {"seg": 12, "depth": 2, "normals": 4, "edges": 4}
HEAD_PATCH = {
    "seg": 2 * 384 * 256 + 256 * 24 * 4 * 4,
    "depth": 2 * 384 * 256 + 256 * 1 * 4 * 4,
    "normals": 2 * 384 * 256 + 256 * 3 * 4 * 4,
    "edges": 3 * 384 * 256 + 256 * 1 * 7 * 7,
}


def macs_by_hand(task, rows):
    """A task's MACs on a frame that computes some rows, the class token among them; none computes nothing."""
    if not rows:
        return 0
    embed = (rows - 1) * EMBED_PATCH if task == "seg" else 0
    return embed + OWN_BLOCKS[task] * rows * BLOCK_ROW + (rows - 1) * HEAD_PATCH[task]


def single_task_by_hand(task):
    """A frame's MACs in a network of this task alone."""
    return 352 * EMBED_PATCH + 12 * TOKENS * BLOCK_ROW + 352 * HEAD_PATCH[task]


@pytest.fixture(scope="module")
def demo(run_cli, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    arguments = ["--preset", "exact", "--end", FRAMES / 15, "--truth", DEMO / "room.truth.npz"]
    assert run_cli("run", DEMO / "room.mp4", "-o", out, *arguments)[0] == 0
    return out


def test_golden_macs(demo):
    assert EMBED_PATCH * 352 == 79_478_784
    assert BLOCK_ROW * TOKENS * 12 == 8_643_879_936
    rows = open_run(demo)["room"].ledger().to_pylist()
    assert len(rows) == FRAMES * len(OWN_BLOCKS)
    for row in rows:
        assert row["macs_executed"] == row["macs_dense"] == macs_by_hand(row["task"], TOKENS)
        assert row["rows_computed"] == TOKENS
        assert row["macs_single_task"] == single_task_by_hand(row["task"])
    assert sum(row["macs_executed"] for row in rows) == FRAMES * DENSE_MACS
    report = json.loads((demo / "report.json").read_text())
    assert report["format"] == 1
    assert report["totals"]["sharing"] == pytest.approx(sum(map(single_task_by_hand, OWN_BLOCKS)) / DENSE_MACS)


def test_golden_rows_of_balanced():
    """Policies, rows and MACs of all 150 frames: the decisions of a run, replayed without weights."""
    (spec,) = find_sources([str(DEMO / "room.mp4")])
    frames = list(replay(load_config("balanced"), spec))
    assert dict(Counter(frame.policy for frame in frames)) == GOLDEN_POLICIES
    assert sum(frame.rows for frame in frames) == GOLDEN_ROWS
    by_hand = [sum(macs_by_hand(task, frame.rows) for task in OWN_BLOCKS) for frame in frames]
    assert [frame.macs_executed for frame in frames] == by_hand
    assert sum(by_hand) == GOLDEN_MACS
    assert {frame.macs_dense for frame in frames} == {DENSE_MACS}


def test_balanced_runs_as_replayed(tmp_path, run_cli):
    arguments = ["--preset", "balanced", "--end", FRAMES / 15, "--save", "arrays", "--set", "numerics.threads=1"]
    assert run_cli("run", DEMO / "room.mp4", "-o", tmp_path / "out", *arguments)[0] == 0
    (spec,) = find_sources([str(DEMO / "room.mp4")])
    replayed = [next_ for next_, _ in zip(replay(load_config("balanced"), spec), range(FRAMES), strict=False)]
    ledger = open_run(tmp_path / "out")["room"].ledger().to_pylist()
    for row in ledger:
        frame = replayed[row["index"]]
        assert (row["policy"], row["reason"]) == (frame.policy, frame.reason)
        assert row["macs_executed"] == macs_by_hand(row["task"], frame.rows)


def test_it_is_accurate_where_the_truth_is_known(demo):
    accuracy = open_run(demo)["room"].accuracy
    assert accuracy is not None
    assert accuracy["seg"]["pixel_accuracy"] > 0.6
    assert accuracy["depth"]["abs_rel"] < 0.35
    assert accuracy["normals"]["mean_deg"] < 35
    assert accuracy["edges"]["f_ods"] > 0.3


def test_the_clip_is_what_it_says(demo):
    truth = read_truth(DEMO / "room.truth.npz")
    assert truth["seg"].shape == (224, 308, 150)
    frames = [next(iter(Engine.load(tasks=["depth"]).run(DEMO / "room.mp4"))).frame.image]
    assert frames[0].shape == (480, 640, 3)
    assert np.isfinite(truth["depth"].astype(np.float32)).all()
