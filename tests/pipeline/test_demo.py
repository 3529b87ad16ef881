"""The packaged model on the packaged clip: what `make demo` shows, with its MACs as golden integers."""

import json
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from deltascene import Engine, open_run
from deltascene.pipeline import cli
from deltascene.pipeline.accuracy import read_truth

DEMO = Path(str(resources.files("deltascene.configs"))) / "demo"
FRAMES = 12

# ViT-S/14 at 224x308: 352 patches + 1 class token, width 384, 12 blocks, MLP ratio 4; heads read 4 taps through 256.
EMBED = 352 * (3 * 14 * 14) * 384
BLOCKS = 12 * (353 * (3 + 1 + 4 + 4) * 384 * 384 + 2 * 353 * 353 * 384)
HEADS = {
    "seg": 352 * (4 * 384 * 256 + 256 * 24 * 4 * 4),
    "depth": 352 * (4 * 384 * 256 + 256 * 1 * 4 * 4),
    "normals": 352 * (4 * 384 * 256 + 256 * 3 * 4 * 4),
    "edges": 352 * (4 * 384 * 256 + 256 * 1 * 7 * 7),
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    arguments = ["run", DEMO / "room.mp4", "-o", out, "--end", FRAMES / 15, "--truth", DEMO / "room.truth.npz"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["deltascene", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
    assert not exit_.value.code
    return out


def test_golden_macs(demo):
    assert (EMBED, BLOCKS) == (79_478_784, 8_643_879_936)
    assert HEADS == {"seg": 173_015_040, "depth": 139_853_824, "normals": 142_737_408, "edges": 142_827_520}
    rows = open_run(demo)["room"].ledger().to_pylist()
    assert len(rows) == FRAMES * len(HEADS)
    for row in rows:
        shared = EMBED + BLOCKS if row["task"] == "seg" else 0
        assert row["macs_executed"] == row["macs_dense"] == shared + HEADS[row["task"]]
        assert row["rows_computed"] == (353 if row["task"] == "seg" else 0)
    assert sum(row["macs_executed"] for row in rows) == FRAMES * 9_321_792_512
    report = json.loads((demo / "report.json").read_text())
    assert report["format"] == 1


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
