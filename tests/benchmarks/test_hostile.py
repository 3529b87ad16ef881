"""Every twenty-third of the two hundred hostile cases; `python benchmarks/hostile.py` meets all."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def hostile() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("hostile")
    sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("every", [47, pytest.param(23, marks=pytest.mark.nightly)])
def test_nothing_hostile_does_harm(hostile, tmp_path, every):
    chosen = hostile.choose(200, 0)[::every]
    assert {case.kind for case in chosen} == {"video", "bundle", "out", "name"}
    with hostile.Arena(tmp_path) as arena:
        verdicts = [arena.meet(case) for case in chosen]
    assert not [(v.case.kind, v.case.name, problem) for v in verdicts for problem in v.wrong]
    assert {code for v in verdicts for code in v.codes} >= {0, 2}


def test_cases_are_the_same_for_the_same_seed(hostile):
    names = [[(case.name, case.seed) for case in hostile.choose(60, seed)] for seed in (0, 0, 1)]
    assert names[0] == names[1]
    assert names[0] != names[2]


def test_violations_are_seen(hostile):
    case = importlib.import_module("hostile_case")
    good = case.Answer(2, "", "deltascene: x: expected y; found z\n", 1.0)
    assert case.problems(good) == []
    bad = ({"code": 1}, {"code": -11}, {"code": None}, {"seconds": 31.0}, {"peak_bytes": 4 << 30}, {"error": "a\nb"})
    for change in bad:
        assert case.problems(replace(good, **change))
    assert "traceback" in case.problems(case.Answer(0, "", "Traceback (most recent call last):\nKeyError", 1.0))[0]
    assert "control character" in case.problems(case.Answer(0, "\x1b[2J", "", 1.0))[0]
