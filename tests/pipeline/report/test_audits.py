"""What a report says of audits: means over all frames, by hour and at worst, and their words."""

import pyarrow as pa
import pytest

from deltascene.pipeline.report.audits import by_hour, drift_over_time, estimates, worst_frames
from deltascene.pipeline.report.facts import money
from deltascene.pipeline.report.sentences import cost_line
from deltascene.pipeline.report.totals import totals
from deltascene.pipeline.runs.ledger import SCHEMA

UNITS = {"parts": "share of pixels", "flow": "degrees"}


def ledger_of(*frames, tasks=("parts",), every_s=1.0):
    """A ledger of reused frames but for what is said of each."""
    about = {
        "source": "a", "valid": True, "cause": "", "predicted": True, "policy": "warped", "reason": "between",
        "rows": 10, "rows_computed": 0, "macs_executed": 10, "macs_audit": 0, "macs_dense": 100, "seconds": 1.0,
        "audit_p": 0.5, "patches_moved": 2,
    }  # fmt: skip
    return pa.Table.from_pylist(
        [
            about | {"index": at, "pts_s": at * every_s, "task": task} | frame
            for task in tasks
            for at, frame in enumerate(frames)
        ],
        schema=SCHEMA,
    )


DENSE = {"policy": "dense", "reason": "reset", "audit_p": None, "macs_executed": 100}


def audit(drift, floor=None, **more):
    passes = 1 if floor is None else 2
    about = {"drift": drift, "drift_moved": 2 * drift, "floor": floor}
    return about | {"macs_audit": 100 * passes, "macs_executed": 10 + 100 * passes, **more}


def test_means_are_over_all_frames_and_dense_ones_count_as_zero():
    whole = totals(ledger_of(DENSE, audit(0.1, 0.04), {}, audit(0.3), {"patches_moved": 0}))
    found = whole["audits"]["parts"]
    assert {name: found[name] for name in ("audits", "floors", "frames", "dense")} == {
        "audits": 2, "floors": 1, "frames": 5, "dense": 1,
    }  # fmt: skip
    assert found["drift"] == {"mean": pytest.approx(0.2 * 4 / 5), "low": None, "high": None}
    assert found["floor"]["mean"] == pytest.approx(0.04 * 4 / 5)
    assert found["excess"]["mean"] == pytest.approx(0.16 * 4 / 5)
    assert found["drift_moved"]["mean"] == pytest.approx(0.4 * 3 / 4)  # of the frames where a patch moved
    assert (whole["macs_executed"], whole["macs_audit"]) == (100 + 210 + 10 + 110 + 10, 300)
    assert whole["saved"] == pytest.approx(1 - 440 / 500)
    assert whole["saved_unaudited"] == pytest.approx(1 - 140 / 500)


def test_an_excess_is_not_below_zero_while_drift_and_floor_stay_as_they_are():
    found = estimates(ledger_of(DENSE, *[audit(0.01 + at / 1e4, 0.05) for at in range(9)], {}))["parts"]
    assert found["excess"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert found["drift"]["low"] < found["drift"]["mean"] < found["drift"]["high"] < found["floor"]["mean"]


def test_videos_in_which_nothing_could_be_drawn_count_for_nothing():
    off = {"audit_p": None}
    assert totals(ledger_of(DENSE, off, off))["audits"] == {}
    assert totals(ledger_of(DENSE, off | {"drift": 0.2}, off))["audits"] == {}  # every n-th frame: no probabilities
    assert totals(ledger_of(DENSE, {}, {}))["audits"] == {}  # none was drawn


def test_what_a_saving_cost_in_words():
    whole = totals(ledger_of(DENSE, *[audit(0.02, 0.01) if at % 2 else audit(0.04) for at in range(8)]))
    assert cost_line(whole, UNITS).startswith("Mean drift from dense prediction, with 95 % interval: parts 2.67 % (")
    assert "1.78 % in excess of the floor of 0.89 %)" in cost_line(whole, UNITS)
    assert cost_line(whole, UNITS).endswith(
        " Measured by 8 audits, 87.0 % of the MACs executed; without them 80.0 % were saved."
    )
    few = totals(ledger_of(DENSE, audit(1.5), {}, tasks=("flow",)))
    assert cost_line(few, UNITS).startswith("Mean drift from dense prediction: flow 1.00°. Measured by ")
    assert ", too few for an interval, " in cost_line(few, UNITS)
    assert "no frame was audited" in cost_line(totals(ledger_of(DENSE, {}, {})), UNITS)
    assert "no frame was audited" in cost_line(totals(ledger_of(DENSE, {"audit_p": None})), UNITS)
    steps = totals(ledger_of(DENSE, {"audit_p": None, "drift": 0.2}))
    assert cost_line(steps, UNITS).endswith("on 1 audited frame, at fixed steps: parts 20.0 %.")
    identical = {"policy": "held", "audit_p": None, "patches_moved": None}  # the same picture, in the preset exact
    assert cost_line(totals(ledger_of(DENSE, identical)), UNITS).startswith("Nothing is lost")
    older = identical | {"macs_audit": None}
    assert "no frame was audited" in cost_line(totals(ledger_of(DENSE, older)), UNITS)


def test_hours_points_and_the_worst_frames():
    frames = [DENSE, *[audit(0.01 * at, patches_moved=at) if at % 3 == 1 else {} for at in range(1, 12)]]
    ledger = ledger_of(*frames, tasks=("parts", "flow"), every_s=600.0)
    hours = by_hour(ledger)
    assert [hour["start_s"] for hour in hours] == [0.0, 3600.0]
    assert [hour["tasks"]["parts"]["audits"] for hour in hours] == [2, 2]
    assert hours[1]["tasks"]["parts"]["drift"]["mean"] == pytest.approx(0.085)
    assert by_hour(ledger_of(*frames)) == []
    plotted = drift_over_time(ledger, starts=[0, 4, 8])
    assert plotted["flow"] == {"values": pytest.approx([0.01, 0.07, 0.1]), "top": pytest.approx(0.1)}
    worst = worst_frames(ledger, 3)
    assert [(each["place"], each["task"]) for each in worst] == [(10, "parts"), (7, "flow"), (4, "parts")]
    assert [each["place"] for each in worst_frames(ledger_of(*frames, every_s=0.3), 5)] == [10, 4]
    assert worst_frames(ledger, 0) == worst_frames(ledger_of(DENSE, {}), 3) == []


def test_money_is_measured_time_and_nothing_else(monkeypatch):
    monkeypatch.setattr("deltascene.pipeline.report.totals.FEWEST_DENSE", 1)
    whole = totals(ledger_of(DENSE, audit(0.1, seconds=3.0, seconds_audit=2.0), {})) | {"media_seconds": 3.0}
    found = money(whole, {"numerics": {"threads": 2}}, 3600.0)
    assert found == {
        "per_core_hour": 3600.0, "threads": 2, "core_hours": pytest.approx(10 / 3600), "total": pytest.approx(10),
        "audits": pytest.approx(4), "dense": pytest.approx(6), "per_video_hour": pytest.approx(12_000),
    }  # fmt: skip
    assert money(whole, {"numerics": {}}, None) is None
