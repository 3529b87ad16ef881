"""What a report says of a run's bound: the pilot's numbers as they are on record, and audits as shares of all wrong."""

import pytest

from deltascene.pipeline.report.bound import bound_report
from deltascene.pipeline.runs.pilot_record import MEAN

STAGES = {"decode": 0.01, "blocks": 0.03, "audit": 0.02, "write": 0.015, "archive": 0.005}
TIMES = {"frames": 4, "invalid": 1, "seconds": 0.08, "seconds_by_stage": STAGES}
KINDS = {"depth": "scalar", "normals": "vector", "seg": "classes"}


def between(low, mean, high):
    return {"low": low, "mean": mean, "high": high}


def audits_of(excess, moved=None, floor=None):
    """A task's audits with these estimates of its excess, and drifts of twice as much."""
    whole = {"drift": between(0.1, 0.2, 0.3), "floor": floor, "excess": excess}
    return {**whole, **{f"{name}_moved": moved for name in whole}}


def totals_of(**audits):
    return {"audits": audits, "macs_executed": 300, "macs_audit": 100, "macs_dense": 800, **TIMES}


def step(scale, macs, excess):
    found = {"drift": 0.03, "floor": 0.02, "excess": excess, "at_most": excess and 2 * excess}
    return {"scale": scale, "numbers": {"policy.max_age_s": scale}, "macs": macs, "moved": {MEAN: found}, "whole": {}}


PILOT = {
    "max_drift": {MEAN: 0.05, "seg": 0.1}, "frames": 60, "of_frames": 3000, "windows": [{}, {}], "chosen": 0.5,
    "kept": True, "steps": [step(0.25, 0.5, 0.01), step(0.5, 0.3, 0.03)],
}  # fmt: skip


def test_audits_are_told_as_shares_and_their_mean_over_the_tasks_that_have_an_interval():
    depth, normals = between(0.01, 0.02, 0.04), between(0.9, 3.6, 9.0)
    seg = audits_of(between(None, 0.5, None))
    whole = totals_of(depth=audits_of(depth, depth), normals=audits_of(normals), seg=seg)
    found = bound_report(PILOT, whole, KINDS)
    audited = found["audited"]["whole"]
    assert audited["normals"]["excess"] == pytest.approx(between(0.01, 0.04, 0.1))
    assert audited[MEAN]["excess"] == pytest.approx(between(0.01, 0.03, 0.07))  # ends are means of ends
    assert audited[MEAN]["drift"] == pytest.approx(between(0.1 * 91 / 180, 0.2 * 91 / 180, 0.3 * 91 / 180))
    assert audited[MEAN]["floor"] is None
    assert found["audited"]["moved"][MEAN]["excess"] == depth  # nothing else moved
    assert found["audited"]["moved"]["seg"]["drift"] is None
    assert found["limits"] == [
        {"of": MEAN, "region": "moved", "at_most": 0.05, "audited": 0.02, "over": False},
        {"of": MEAN, "region": "whole", "at_most": pytest.approx(0.01), "audited": pytest.approx(0.03), "over": True},
        {"of": "seg", "region": "moved", "at_most": 0.1, "audited": None, "over": False},
        {"of": "seg", "region": "whole", "at_most": pytest.approx(0.02), "audited": None, "over": False},
    ]


def test_few_audits_have_a_mean_without_an_interval_and_say_nothing_of_the_bound():
    few = totals_of(depth=audits_of(between(None, 0.5, None)), seg=audits_of(None))
    found = bound_report(PILOT, few, KINDS)
    assert found["audited"]["whole"][MEAN]["excess"] == between(None, 0.5, None)
    assert found["audited"]["moved"][MEAN] == {"drift": None, "floor": None, "excess": None}
    assert {limit["audited"] for limit in found["limits"]} == {None}
    none_has_a_floor = bound_report(PILOT, totals_of(seg=audits_of(None)), KINDS)
    assert none_has_a_floor["audited"]["whole"][MEAN] == {
        "drift": between(0.1, 0.2, 0.3), "floor": None, "excess": None,
    }  # fmt: skip


def test_the_pilot_is_told_as_it_is_on_record():
    found = bound_report(PILOT, totals_of(), KINDS)
    assert [each.pop("chosen") for each in found["steps"]] == [False, True]
    assert found["steps"] == PILOT["steps"]
    assert (found["frames"], found["of_frames"], found["windows"], found["kept"]) == (60, 3000, 2, True)
    assert found["audited"] == {"moved": {}, "whole": {}}
    assert found["macs"] == 200 / 800  # without audits, as the pilot's
    assert found["plotted"] == [MEAN, "seg"]
    assert found["tops"] == {"macs": 0.5, "moved": pytest.approx(0.1), "whole": pytest.approx(0.02)}
    assert not found["tightened"]
    assert bound_report({**PILOT, "tightened": True}, totals_of(), KINDS)["tightened"]
    assert bound_report(None, totals_of(), KINDS) is bound_report({}, totals_of(), KINDS) is None


def test_a_pilot_without_a_bound_on_drift_has_no_limits():
    still = {**PILOT, "max_drift": None, "steps": [step(1.0, None, None), {"scale": 2.0}]}
    found = bound_report(still, totals_of() | {"macs_dense": 0}, KINDS)
    assert (found["max_drift"], found["limits"], found["plotted"], found["macs"]) == ({}, [], [MEAN], None)
    assert found["tops"] == {"macs": 1.0, "moved": 1.0, "whole": 1.0}


def test_a_bound_on_time_stands_beside_what_frames_took():
    found = bound_report({**PILOT, "max_drift": {}, "max_ms": 12.5}, totals_of(), KINDS)
    assert (found["max_ms"], found["ms"]) == (12.5, pytest.approx(10.0))
    assert found["limits"] == []
    assert bound_report(PILOT, {**totals_of(), "invalid": 4}, KINDS)["ms"] is None
