"""Drift on real clips beside flow-warp: numbers of a walk are those of `compare`, and lines by hand."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import astuple
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.evaluation.bounds import MEAN
from deltascene.pipeline.evaluation.excess import Excess, compare
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import read_frames

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FRAMES = 8

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def drifting() -> Iterator[ModuleType]:
    """The program, imported from its folder."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("real_drift")
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_presets_are_measured_as_the_pilot_does(drifting, tiny, make_clip, monkeypatch):
    monkeypatch.setattr(drifting, "KS", (2,))
    monkeypatch.setattr(drifting, "bootstrap", partial(drifting.bootstrap, draws=10))
    path, model, configs = make_clip(FRAMES, fps=15.0), Engine.load(tiny).model, drifting.settings(tiny, [])
    found = drifting.judge_clip(path, model, configs, FRAMES, timed=False)
    with read_frames(find_sources([str(path)])[0]) as reader:
        measured = compare(model, [configs[name] for name in drifting.PRESETS], configs["exact"], reader)
    kinds = model.bundle.kinds
    for name, one in zip(drifting.PRESETS, measured, strict=True):
        assert found[name].macs == pytest.approx(100 * one.macs / one.macs_dense)
        for region, tasks in one.excess(kinds).items() if name == "balanced" else ():
            assert astuple(found[name].excess[region]) == pytest.approx(astuple(tasks[MEAN]))
    assert found["balanced"].excess["moving"].drift > 0
    warp = found["warp 2"]
    assert (warp.macs, warp.ms) == (50.0, None)
    assert warp.excess["whole"].floor > 0
    assert all(low == high == warp.excess[region].excess for region, (low, high) in warp.interval.items())  # one block
    assert [line.count("|") for line in drifting.lines("clip", found)] == 2 * [drifting.HEAD.count("|")]


@pytest.mark.nightly
def test_the_time_of_flow_warp_is_that_of_its_frames(drifting, tiny, make_clip, monkeypatch):
    monkeypatch.setattr(drifting, "KS", (2, 4))
    found = drifting.judge_clip(make_clip(FRAMES), Engine.load(tiny).model, drifting.settings(tiny, []), FRAMES)
    assert found["B2"].ms > 0
    assert all(found[f"warp {k}"].ms > found["B2"].ms / k for k in (2, 4))
    assert all(found[name].ms > 0 for name in drifting.PRESETS)


def test_lines_by_hand(drifting):
    def made(whole, moving, macs, ms):
        excess = {"whole": Excess(whole + 0.01, 0.01, whole), "moving": Excess(moving + 0.01, 0.01, moving)}
        return drifting.Found(excess, dict.fromkeys(excess, (0.0, 0.2)), macs, ms)

    found = {f"warp {k}": made(0.002 * k, 0.01 * k, 100 / k, 64.0 / k) for k in drifting.KS}
    found |= {"balanced": made(0.009, 0.05, 20.0, 8.0), "fast": made(0.05, 0.015, 10.0, 4.0)}
    found["B2"] = made(0.0, 0.0, 100.0, 60.0)
    balanced, fast = drifting.lines("clip", found)
    ours = "1.9 / 1.0 / 0.9 [0.0, 20.0] | 6.0 / 1.0 / 5.0 [0.0, 20.0] | 20.0 | 8.0"
    warp = "4 | 0.8 [0.0, 20.0] | 4.0 [0.0, 20.0] | 25.0 | 16.0 | 1.25× | 2.00× | 60.0"
    assert balanced == f"| clip | balanced | {ours} | {warp} |"
    assert fast.endswith("| dense | 0.0 [0.0, 20.0] | 0.0 [0.0, 20.0] | 100.0 | 60.0 | 10.00× | 15.00× | 60.0 |")
    assert "| clip | 0.4 / 2.0 | 0.6 / 3.0 |" in drifting.table_of_warps({"clip": found})
