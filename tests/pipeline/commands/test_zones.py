"""`--ignore`: what moves in a zone costs nothing, and results say where that is."""

import json

import numpy as np
import yaml

from deltascene.pipeline.cli.values import read_zones
from deltascene.pipeline.config import load_config
from deltascene.pipeline.evaluation.what_if import replay
from deltascene.pipeline.runs.reader import open_run
from deltascene.pipeline.sources.find import find_sources

ZONES = """
zones:
- {polygon: [[0, 0], [96, 0], [96, 72], [0, 72]], source: clip}
- {polygon: [[0, 0], [0.1, 0], [0, 0.1]], source: x}
"""


def test_a_run_with_zones_marks_them_and_what_if_knows_them(tiny, make_clip, run_cli, tmp_path):
    clip, out, zones = make_clip(6), tmp_path / "out", tmp_path / "zones.yaml"
    zones.write_text(ZONES)
    overrides = ["numerics.dtype=float32", "policy.refresh=1000"]
    rules = ["--model", tiny, "--preset", "balanced", *(part for each in overrides for part in ("--set", each))]
    code, _, error = run_cli("run", clip, "-o", out, *rules, "--ignore", zones)
    assert (code, error) == (0, "")
    video = open_run(out)["clip"]
    policies = video.ledger().group_by(["index", "policy"], use_threads=False).aggregate([])["policy"].to_pylist()
    assert policies == ["dense", *["held"] * 5]
    assert video.arrays.attributes["ignored_patches"] == list(range(np.prod(video.arrays.change(0).shape)))
    assert yaml.safe_load((out / "run.yaml").read_text())["config"]["change"]["ignore"][1]["source"] == "x"
    assert json.loads((out / "report.json").read_text())["videos"][0]["ignored"] == 1.0
    assert "of the picture are ignored" in (out / "report.html").read_text()
    config = load_config("balanced", None, overrides, {"model": tiny, "change.ignore": read_zones(zones)})
    assert [each.policy for each in replay(config, find_sources([str(clip)])[0])] == policies
    zones.write_text("zones: [{polygon: [[0, 0], [1, 0], [1, 1]]}]")
    code, _, error = run_cli("run", clip, "-o", out, *rules, "--ignore", zones)
    assert code == 2
    assert error.startswith(f"deltascene: --ignore {zones}: {out} has ")
