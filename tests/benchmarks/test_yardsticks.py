"""The yardsticks of the benchmarks, on films small enough to do by hand, and the day that is made of them."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.evaluation.clips import Clip
from deltascene.stages.types import Frame

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FRAMES = 20

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def programs() -> Iterator[SimpleNamespace]:
    """The programs and their parts, imported from their folder as they import each other."""
    names = ("yardsticks", "dense_networks", "yardstick_tables", "day", "quality", "walkers", "records")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def model(tiny):
    return Engine.load(tiny).model


@pytest.fixture(scope="module")
def ours(programs, tiny):
    return programs.yardsticks.Ours.of(tiny, ["often=fast,policy.every=1"])


@pytest.fixture(scope="module")
def clip(make_clip) -> Clip:
    truth = {"parts": np.zeros((FRAMES, 48, 64), np.uint8), "height": np.ones((FRAMES, 48, 64), np.float16)}
    moving = np.zeros((FRAMES, 48, 64), bool)
    moving[1:, 10:30] = True
    return Clip("square", make_clip(FRAMES), truth, moving)


def test_k_is_the_largest_that_loses_no_more_than_ours_or_the_bound(programs):
    nan, bounds = float("nan"), {"whole": 1.0, "moving": 5.0}
    losses = {2: {"whole": 0.2, "moving": 2.0}, 3: {"whole": 0.9, "moving": 6.0}, 4: {"whole": 1.5, "moving": 4.0}}

    def best(whole, moving, of=losses):
        return programs.yardsticks.best_k(of, {"whole": whole, "moving": moving}, bounds)

    assert best(-3.0, -1.0) == 2
    assert best(0.0, 6.0) == 3
    assert best(1.6, 6.0) == 4
    assert best(1.6, nan) == 4
    assert best(0.0, 0.0, {2: {"whole": 1.1, "moving": nan}}) == 1
    assert best(0.0, nan, {2: {"whole": 0.5, "moving": nan}}) == 2


def test_a_gate_holds_while_nothing_moves_and_is_due_by_age(programs, model, ours):
    still = np.random.default_rng(0).integers(60, 180, (48, 64, 3), np.uint8)
    there, gone = still.copy(), still.copy()
    there[:16, :16] = 255 - there[:16, :16] // 2
    gone[32:, 32:] = 255 - gone[32:, 32:] // 2
    film = [still, still, there, there, there, there, there, gone, gone]
    gate = programs.yardsticks.gate(model, ours, 3).start()
    said, number = [], 0
    for number, image in enumerate(film):
        outcome = gate(Frame("film", number, number / 10, image), None)
        said.append((outcome.policy, outcome.macs > 0))
    held, warped, dense = ("held", False), ("warped", False), ("dense", True)
    assert said == [dense, held, warped, dense, held, held, held, dense, held]
    gate.reset()
    assert gate(Frame("film", number + 1, 9.0, gone), None).policy == "dense"


def test_settings_stand_on_a_preset_and_its_bounds(programs, ours):
    assert ours.names == ["balanced", "fast", "often"]
    assert ours.bounds["often"] == ours.bounds["fast"]
    assert ours.configs["often"].policy.every == 1
    assert ours.configs["often"].policy.refresh == ours.configs["fast"].policy.refresh
    assert programs.quality.read_setting("a:policy.every=1") == ("a", "balanced", ["policy.every=1"])
    with pytest.raises(Exception, match="--setting a: expected one of balanced, fast as its base; found exact"):
        programs.yardsticks.Ours.of("tiny", ["a=exact,policy.every=1"])


def row_of(programs, clip, ours_ms, warp_ms, gate_ms, moving=2.0):
    def scored(macs, ms):
        return programs.yardstick_tables.Scored({"whole": 0.5, "moving": moving}, macs, ms)

    others = scored(25.0, warp_ms), scored(5.0, gate_ms), scored(100.0, 60.0), scored(216.0, 120.0)
    return programs.yardstick_tables.Row(clip, "still", "fast", 4, scored(10.0, ours_ms), *others)


def test_tables_by_hand(programs):
    rows = [row_of(programs, "one", 5.0, 20.0, 10.0), row_of(programs, "two", 10.0, 10.0, 40.0, float("nan"))]
    tables = programs.yardstick_tables
    losses = "+0.5 / +2.0 @ 10.0 | +0.5 / +2.0 @ 25.0 | +0.5 / +2.0 @ 5.0"
    times = "5.0 | 20.0 | 10.0 | 60.0 | 120.0 | 0.40 | 4.00× | 2.00× | 12.00×"
    assert f"| one | fast | 4 | {losses} | {times} |" in tables.table(rows)
    faster = "2.00×, 1.00× (two) | 2.83×, 2.00× (one) | 1.41×, 1.00× (two) | 8.49×"
    assert f"| still | 2 | fast | {losses} | 0.40, 0.40 (one) | {faster} |" in tables.means(rows)
    for text in (tables.table(rows), tables.means(rows)):
        assert len({line.count("|") for line in text.splitlines()}) == 1
    quantised = tables.int8_table([replace(row, int8=row.gate) for row in (rows[0], *rows)])
    assert quantised.splitlines()[2:] == [
        "| one | +0.5 / +2.0 | 10.0 | 60.0 |",
        "| two | +0.5 / – | 40.0 | 60.0 |",
    ]
    untimed = row_of(programs, "one", None, None, None)
    assert "+0.5 / +2.0 @ 5.0 |  |  |  | 60.0 | 120.0 | 0.40 |  |  |  |" in tables.table([untimed])
    assert "| 0.40, 0.40 (one) |  |  |  |  |" in tables.means([untimed])


@pytest.mark.nightly
def test_a_clip_is_judged_once(programs, model, ours, clip, tmp_path, monkeypatch):
    yardsticks, records = programs.yardsticks, programs.records.Records.of(tmp_path, model, FRAMES)
    monkeypatch.setattr(yardsticks, "KS", (2, 4))
    dense = programs.dense_networks.Dense.of(model, ours.configs["exact"], clip, openvino=False)
    assert 100 < dense.macs_single < 400
    rows = yardsticks.judge_clip(clip, "still", model, ours, records, 2, dense, 1)
    assert [row.name for row in rows] == ours.names
    for row in rows:
        assert row.warp.macs == pytest.approx({1: 100.0, 2: 50.0, 4: 25.0}[row.k], abs=4)
        assert row.gate.macs <= row.warp.macs + 1e-9
        assert row.times_faster(row.dense) == row.dense.ms / row.ours.ms > 0
        assert row.better().ms == min(row.warp.ms, row.gate.ms)
        assert row.single.ms > 0

    measured = programs.day.measure_stretch(
        programs.day.Stretch("square", 0.5), clip, model, ours, records, dense, minutes=0.1
    )
    assert measured.minutes == pytest.approx(FRAMES / 10 / 60 * 2)  # three seconds: two passes
    assert measured.hours("B2") == pytest.approx(12 * 3600 * 10 * measured.ms["B2"] / 1e3 / 3600)
    table = programs.day.table([measured, measured], 2)
    assert (
        f"| B2 | {measured.ms['B2']:.2f} | {measured.ms['B2']:.2f} | {4 * measured.hours('B2'):.2f} | 100.0 % |"
        in table
    )
    assert list(measured.ms)[:3] == ["B1", "B2", "B2 + best k (balanced)"]

    for program in (programs.quality, yardsticks):
        monkeypatch.setattr(program, "time_policies", None)
    monkeypatch.setattr(programs.quality, "walk", None)
    assert yardsticks.judge_clip(clip, "still", model, ours, records, 2, dense, 1) == rows


def test_a_mix_is_a_whole_day(programs):
    stretches = programs.day.read_mix("a+b=0.8,c=0.2")
    assert [(one.name, one.share) for one in stretches] == [("a", 0.4), ("b", 0.4), ("c", 0.2)]
    with pytest.raises(ValueError, match=r"expected shares that add up to 1; found 0\.9"):
        programs.day.read_mix("a=0.8,c=0.1")
