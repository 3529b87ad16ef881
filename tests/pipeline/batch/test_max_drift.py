"""`run --max-drift`: a pilot chooses the policy's numbers; they and the pilot are on record."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from deltascene.pipeline.commands.max_drift import TIGHTEN, audited
from deltascene.pipeline.config import load_config
from deltascene.pipeline.evaluation.bounds import MEAN, Goal
from deltascene.pipeline.evaluation.clip_scores import MOVING, WHOLE
from deltascene.pipeline.evaluation.excess import Measured
from deltascene.pipeline.evaluation.ladder import Step
from deltascene.pipeline.evaluation.pilot import judge, plan_pilot
from deltascene.pipeline.report.bound import bound_report
from deltascene.pipeline.runs.folder import RunFolder, read_run_yaml
from deltascene.pipeline.sources.find import find_sources
from deltascene.stages.kinds import Scalar

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def clip(make_clip):
    return make_clip(frames=12, fps=15.0)


@pytest.fixture(scope="module")
def begun(run_cli, tiny, clip, tmp_path_factory):
    """Folder of a run with a loose bound, and what the command said."""
    out = tmp_path_factory.mktemp("bound") / "out"
    code, _, error = run_cli("run", clip, "-o", out, *OPTIONS, "--model", tiny, "--max-drift", "90%")
    assert code == 0, error
    return out, " ".join(error.split())


OPTIONS = ("--no-archive", "--save", "arrays", "--set", "run.audit=off")


def record_of(out):
    return read_run_yaml(RunFolder(out))


def test_a_pilot_chooses_the_numbers_and_both_are_on_record(begun):
    out, said = begun
    record = record_of(out)
    pilot, policy, shipped = record["pilot"], record["config"]["policy"], load_config("balanced").policy
    assert pilot["max_drift"] == {MEAN: 0.9}
    assert pilot["windows"] == [{"source": "clip", "first": 0, "frames": 12}]
    assert "pilot on 12 of 12 frames (100.0 %) in 1 window, more than 2 % as the inputs are short" in said
    assert pilot["kept"]
    chosen = pilot["steps"][-1]  # nothing is cheaper
    assert pilot["chosen"] == chosen["scale"] > 1
    numbers = chosen["numbers"]
    assert policy["max_age_s"] == numbers["policy.max_age_s"] == shipped.max_age_s * chosen["scale"]
    assert policy["camera_price"] == numbers["policy.camera_price"]
    assert record["config"]["change"]["threshold"] == numbers["change.threshold"]
    assert record["key"]["config.policy.max_age_s"] == policy["max_age_s"]
    macs = [step["macs"] for step in pilot["steps"]]
    assert macs == sorted(set(macs), reverse=True)
    for step in pilot["steps"]:
        for region in ("moved", "whole"):
            mean = step[region][MEAN]
            assert mean["excess"] <= mean["drift"]
            assert mean["excess"] == pytest.approx(mean["at_most"])  # all frames were in the pilot
    told = json.loads((out / "report.json").read_text())["bound"]
    assert [{**step, "chosen": step["scale"] == pilot["chosen"]} for step in pilot["steps"]] == told["steps"]
    assert [limit["audited"] for limit in told["limits"]] == [None, None]  # audits are off
    assert told["macs"] == pytest.approx(chosen["macs"], abs=1e-5)  # the pilot saw all that the run did


def test_a_resume_takes_the_record_and_another_bound_is_refused(run_cli, tiny, clip, begun, monkeypatch, tmp_path):
    out, _ = begun
    before = record_of(out)
    monkeypatch.setattr("deltascene.pipeline.commands.run.choose_by_pilot", None)  # no second pilot
    for bound in (("--max-drift", "0.9"), ()):
        code, _, error = run_cli("run", clip, "-o", out, *OPTIONS, "--model", tiny, *bound)
        assert code == 0, error
    assert record_of(out) == before
    for dry in ((), ("--dry-run",)):
        code, _, error = run_cli("run", clip, "-o", out, "--max-drift", "parts=3%", *dry)
        assert code == 2
        assert f"--max-drift parts=3%: {out} has --max-drift 90%; leave it out to go on" in " ".join(error.split())
    code, _, error = run_cli("run", clip, "-o", tmp_path, "--max-drift", "5%", "--set", "policy.max_age_s=1")
    assert code == 2
    assert "--max-drift: chooses policy.max_age_s; expected no value for it" in " ".join(error.split())


@pytest.mark.nightly
def test_an_unreachable_bound_is_announced_and_the_strictest_step_runs(run_cli, tiny, clip, begun, tmp_path):
    out = tmp_path / "out"
    options = ("--model", tiny, "--max-drift", "parts=0.0001%,height=80%")
    code, said, error = run_cli("run", clip, "-o", out, "--dry-run", *options)
    assert code == 0, error
    assert "pilot for --max-drift parts=0.0001%,height=80%: 12 of 12 frames" in said
    assert not out.exists()
    code, said, error = run_cli("run", clip, "-o", out, *options, *OPTIONS)
    assert code == 0, error
    error = " ".join(error.split())
    assert "--max-drift parts=0.0001%,height=80% isn't reachable here; the nearest that is: parts=" in error
    pilot = record_of(out)["pilot"]
    assert not pilot["kept"]
    assert pilot["chosen"] == pilot["steps"][0]["scale"] == min(step["scale"] for step in pilot["steps"])
    code, _, error = run_cli("run", clip, "-o", out, "--tighten", "--force")
    assert code == 2
    assert "was computed by the strictest step already" in " ".join(error.split())


def test_with_a_bound_on_time_the_strictest_step_that_keeps_to_it_runs(run_cli, tiny, clip, begun, tmp_path):
    out = tmp_path / "out"
    code, said, error = run_cli("run", clip, "-o", out, *OPTIONS, "--model", tiny, "--max-ms", "60000")
    assert code == 0, error
    pilot = record_of(out)["pilot"]
    assert pilot["max_ms"] == 60000
    assert pilot["kept"]
    assert pilot["chosen"] == pilot["steps"][0]["scale"] == min(step["scale"] for step in pilot["steps"])
    assert all(step["ms"] > 0 for step in pilot["steps"])
    assert re.search(r"computed [\d.]+ ms a frame without audits, of at most 60000", said)
    code, _, error = run_cli("run", clip, "-o", out, "--target-fps", "5")
    assert code == 2
    assert f"--max-ms 200: {out} has --max-ms 60000; leave it out to go on" in " ".join(error.split())


@pytest.mark.nightly
def test_a_time_that_no_step_keeps_to_is_announced_and_the_cheapest_runs(run_cli, tiny, clip, tmp_path):
    out = tmp_path / "out"
    code, said, error = run_cli("run", clip, "-o", out, *OPTIONS, "--model", tiny, "--target-fps", "1000000")
    assert code == 0, error
    assert "--max-ms 0.001 isn't reachable here; the nearest that is: --max-ms" in " ".join(error.split())
    pilot = record_of(out)["pilot"]
    assert not pilot["kept"]
    assert pilot["chosen"] == pilot["steps"][-1]["scale"]
    assert "of at most 0.001: over it" in said


def test_time_of_a_frame_counts_one_opening_a_segment():
    measured = Measured({}, 0, 0, seconds=0.9, frames=11, resizing_s=0.2, opening_s=0.1, opening=1)
    assert measured.ms_per_frame(1) == pytest.approx(100)
    assert measured.ms_per_frame(100) == pytest.approx(100)
    costly = replace(measured, opening_s=0.6)
    assert costly.ms_per_frame(11) == pytest.approx(100)
    assert costly.ms_per_frame(1) == pytest.approx(600)
    assert replace(measured, frames=1).ms_per_frame(256) == pytest.approx(100)  # it is all that is known
    assert math.isnan(Measured({}, 0, 0, 0.0, 0).ms_per_frame(256))


@pytest.mark.nightly
def test_tighten_computes_by_the_next_stricter_step(run_cli, tiny, clip, begun, tmp_path):
    out = tmp_path / "out"
    code, _, error = run_cli("run", clip, "-o", out, "--model", tiny, *OPTIONS)
    assert code == 0, error
    for options, why in ((("--force",), "expected a run with --max-drift"), ((), "found no --force")):
        code, _, error = run_cli("run", clip, "-o", out, "--tighten", *options)
        assert code == 2
        assert why in " ".join(error.split())
    out, _ = begun
    before = record_of(out)["pilot"]
    code, _, error = run_cli("run", clip, "-o", out, "--tighten", "--force")
    assert code == 0, error
    record = record_of(out)
    assert record["pilot"]["chosen"] == before["steps"][-2]["scale"] < before["chosen"]
    assert record["pilot"]["tightened"]
    assert record["config"]["policy"]["max_age_s"] == before["steps"][-2]["numbers"]["policy.max_age_s"]
    assert record["config"]["save"]["video"] is False  # as the run was begun


def test_what_audits_say_of_the_bound(tmp_path):
    kinds, path = {"depth": "scalar", "normals": "vector"}, tmp_path / "report.json"

    def say(excess, moved, chosen=1.0, low=0.0):
        pilot = {"max_drift": {MEAN: 0.05}, "chosen": chosen, "steps": [{"scale": 0.5}, {"scale": 1.0}]}
        parts = {"depth": (excess, moved), "normals": (90 * excess, 90 * moved)}
        audits = {
            task: dict.fromkeys(("drift", "floor", "drift_moved", "floor_moved"))
            | {
                name: {"mean": mean, "low": low, "high": mean}
                for name, mean in (("excess", whole), ("excess_moved", inside))
            }
            for task, (whole, inside) in parts.items()
        }
        totals = {"audits": audits, "macs_executed": 1, "macs_audit": 0, "macs_dense": 2, "frames": 1, "invalid": 1}
        path.write_text(json.dumps({"bound": bound_report(pilot, totals, kinds)}))
        return audited(path)

    kept = "audited excess drift: moved 4.0 % of at most 5.0 %, whole 0.9 % of at most 1.0 %"
    assert say(0.009, 0.04) == kept
    assert say(0.011, 0.04).endswith("over the bound of --max-drift; " + f"{TIGHTEN} takes the next stricter step")
    assert say(0.0, 0.06, chosen=0.5).endswith("no step is stricter; --preset exact loses nothing")
    assert say(0.5, 0.5, low=None) == ""  # too few audits for an interval
    path.write_text(json.dumps({"bound": None}))
    assert audited(path) == ""


def test_windows_are_a_share_of_the_frames_spread_over_all_inputs(make_clip, tiny):
    paths = [make_clip(frames=frames, fps=2.0, name=name, size=(32, 32)) for name, frames in (("a", 250), ("b", 350))]
    specs = find_sources([str(path) for path in paths])
    config = load_config("balanced", values={"model": tiny})
    plan = plan_pilot(config, specs)
    assert (plan.of, plan.frames, len(plan.windows), plan.fps) == (600, 12, 3, 2.0)
    assert [window.spec.id for window in plan.windows].count("a") in (1, 2)
    assert places(plan_pilot(config, specs)) == places(plan)
    seeded = config.model_copy(update={"run": config.run.model_copy(update={"audit_seed": 1})})
    assert places(plan_pilot(seeded, specs)) != places(plan)
    later = config.model_copy(update={"source": config.source.model_copy(update={"start_s": 100.0, "stride": 2})})
    assert all(window.first >= 200 and window.first % 2 == 0 for window in plan_pilot(later, specs).windows)


def places(plan):
    return [(window.spec.id, window.first, window.frames) for window in plan.windows]


def test_few_windows_have_a_margin_and_all_frames_none():
    def window(excess):
        return Measured({"depth": np.array([[excess, 1, 0.0, 1, 0]] * 2)}, 1, 2, 0.0, 1)

    def upper(excesses, left):
        judged = judge(Step(1.0, load_config("balanced")), [window(each) for each in excesses], kinds, left, 256)
        assert judged.excess[MOVING][MEAN].excess == pytest.approx(np.mean(excesses))
        return judged

    kinds = {"depth": Scalar()}
    assert upper([0.04], 0.0).upper[MOVING][MEAN] == pytest.approx(0.04)
    assert upper([0.04], 1.0).upper[MOVING][MEAN] == pytest.approx(0.04 * (1 + 1.2816 / 2), rel=1e-3)
    even, uneven = upper([0.04] * 16, 1.0), upper([0.0] * 8 + [0.08] * 8, 1.0)
    assert even.upper[MOVING][MEAN] == pytest.approx(0.04 + 1.3406 * 0.02 / 4, rel=1e-3)
    assert uneven.upper[MOVING][MEAN] == pytest.approx(0.04 + 1.3406 * np.std([0, 0.08] * 8, ddof=1) / 4, rel=1e-3)
    assert even.reached(MEAN) == pytest.approx(5 * even.upper[WHOLE][MEAN])
    assert not even.keeps(Goal({MEAN: 0.2}))
    assert even.keeps(Goal({MEAN: 5 * 0.0468}))
    assert math.isnan(judge(Step(1.0, load_config("balanced")), [none()], kinds, 1.0, 256).upper[MOVING][MEAN])


def none():
    """A window in which nothing moved."""
    return Measured({"depth": np.array([[0.0, 1, 0.0, 1, 0], [0.0, 0, 0, 0, 0]])}, 1, 2, 0.0, 1)


@pytest.mark.nightly
def test_a_single_frame_has_a_time_too(run_cli, tiny, make_clip, tmp_path):
    clip = make_clip(frames=1, name="single")
    for number, bound in enumerate((("--max-ms", "0.0001"), ("--max-drift", "5%"))):
        code, _, error = run_cli("run", clip, "-o", tmp_path / str(number), *OPTIONS, "--model", tiny, *bound)
        assert code == 0, error
        assert "nan" not in error
        assert " ms a frame" in " ".join(error.split())
