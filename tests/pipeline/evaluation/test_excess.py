"""Drift, floor and excess of frames that all run in full beside: those that the audits of a run report."""

from dataclasses import replace

import numpy as np
import pytest

from deltascene import Engine
from deltascene.pipeline.config import load_config
from deltascene.pipeline.evaluation.bounds import MEAN
from deltascene.pipeline.evaluation.clip_scores import MOVING, WHOLE
from deltascene.pipeline.evaluation.excess import Excess, Measured, add_up, compare
from deltascene.pipeline.numerics.settle import settle
from deltascene.pipeline.report.audits import estimates
from deltascene.pipeline.runs.reader import open_run
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import read_frames

pytestmark = pytest.mark.usefixtures("one_thread")


OVERRIDES = ["segment.frames=12"]


@pytest.fixture(scope="module")
def path(make_clip):
    return make_clip(24, fps=15.0)


@pytest.fixture(scope="module")
def measured(path, tiny):
    """A model, the configs of dense prediction and of a preset, and frames."""
    model = Engine.load(tiny, "exact").model
    dense, base = (settle(load_config(name, None, OVERRIDES, {"model": tiny})) for name in ("exact", "balanced"))
    with read_frames(find_sources([str(path)])[0]) as reader:
        return model, dense, base, list(reader)


@pytest.mark.nightly
def test_drift_is_that_of_audits(measured, path, tiny, run_cli, tmp_path):
    model, dense, base, frames = measured
    settings = ("--model", tiny, "--set", *OVERRIDES, "--set", "run.audit=1000", "--no-archive", "--save", "arrays")
    code, _, error = run_cli("run", path, "-o", tmp_path / "out", *settings)
    assert code == 0, error
    audited = estimates(open_run(tmp_path / "out")["clip"].ledger())
    (found,) = compare(model, [base], dense, frames)
    excess = found.excess(model.bundle.kinds)
    for task, each in audited.items():
        all_wrong = 90 if model.bundle.kinds[task].name == "vector" else 1
        assert each["audits"] == found.sums[task][0, 1]
        assert excess[WHOLE][task].drift * all_wrong == pytest.approx(each["drift"]["mean"], rel=1e-6)
        assert excess[MOVING][task].drift * all_wrong == pytest.approx(each["drift_moved"]["mean"], rel=1e-6)
    assert excess[WHOLE][MEAN].drift == pytest.approx(np.mean([excess[WHOLE][task].drift for task in audited]))


def test_the_floor_is_dense_predictions_own_change(measured):
    model, dense, base, frames = measured
    still = [replace(frames[0], index=index, pts_s=index / 15) for index in range(3)]
    (found,) = compare(model, [base], dense, still)
    assert found.excess(model.bundle.kinds)[WHOLE][MEAN] == Excess(0, 0, 0)


def test_more_compute_drifts_less_and_passes_add_up(measured):
    model, dense, base, frames = measured
    configs = [base.model_copy(update={"policy": base.policy.model_copy(update={"max_age_s": s})}) for s in (0.05, 0.4)]
    both = compare(model, configs, dense, frames, (0, 5))
    strict, loose = (each.excess(model.bundle.kinds)[WHOLE][MEAN] for each in both)
    assert strict.drift < loose.drift
    assert both[1].macs < both[0].macs < both[0].macs_dense
    assert both[0].frames == 24 + 19
    parts = [compare(model, configs[:1], dense, frames[start:])[0] for start in (0, 5)]
    total = add_up(parts)
    assert (total.macs, total.frames) == (both[0].macs, both[0].frames)


def test_excess_is_a_difference_of_means_and_dense_frames_count_as_zero():
    class Angles:
        name = "vector"

    sums = {"a": np.array([[9.0, 3, 1.5, 3, 3], [0.0, 0, 0, 0, 0]])}
    found = Measured(sums, 1, 1, 0.0, 6).excess({"a": Angles()})
    assert found[WHOLE]["a"] == Excess(*(pytest.approx(value / 90) for value in (1.5, 0.25, 1.25)))
    assert all(np.isnan(value) for value in (found[MOVING]["a"].drift, found[MOVING]["a"].excess))
