"""The gate of `input.resize: aspect`: what counts as no worse, and that shifts are seen."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from deltascene.pipeline.evaluation.images import ImageScores
from deltascene.stages.kinds import Scalar
from deltascene.stages.metrics import METRICS

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def program() -> Iterator[ModuleType]:
    """The program, imported from its folder."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("aspect")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize(
    ("interval", "expected"),
    [((-3.0, -0.1), True), ((-1.0, 2.0), True), ((-1.0, 2.1), False), ((0.1, 0.5), False)],
)
def test_no_worse_is_better_or_not_told_from_equal_and_within_the_margin(program, interval, expected):
    assert program.holds({"interval": interval}) == expected


def test_the_loss_is_that_of_the_measure_over_the_same_rooms(program):
    kind, rng = Scalar("m"), np.random.default_rng(0)
    truth, noise = rng.uniform(1, 5, (6, 8, 8)), rng.normal(0, 0.1, (6, 8, 8))

    def scores(times):
        sums = []
        for true, wrong in zip(truth, noise, strict=True):
            counter = METRICS[kind.name]()
            counter.update(true, true + times * wrong)
            sums.append(counter.sums())
        return ImageScores({"far": kind}, {"far": np.stack(sums)}, 1, np.zeros(6))

    rows = program.compare({"stretch": scores(1.0), "aspect": scores(1.5)})
    assert rows["far/rmse"]["headline"]
    assert rows["far/rmse"]["loss_percent"] == pytest.approx(50)
    assert rows["far/rmse"]["interval"] == pytest.approx((50, 50))  # drawn together, rooms cancel out
    assert not rows["far/abs_rel"]["headline"]
    rows = program.compare({"stretch": scores(1.5), "aspect": scores(1.0)})
    assert rows["far/rmse"]["loss_percent"] == pytest.approx(-100 / 3)


def test_a_prediction_beside_the_truth_is_seen_by_its_shift(program):
    true = (np.random.default_rng(0).random((40, 50)) > 0.9).astype(np.float32)
    found = program.agreement(true, np.roll(true, (1, -2), (0, 1)))
    assert np.unravel_index(found.argmax(), found.shape) == (program.REACH_PX + 1, program.REACH_PX - 2)
