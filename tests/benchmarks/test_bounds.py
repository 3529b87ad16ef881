"""Whether a bound on drift is kept: a clip under two bounds, by the steps that its pilot chose."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.numerics.settle import settle

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bounding() -> Iterator[ModuleType]:
    """The program, imported from its folder."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("bounds")
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_the_step_of_the_looser_bound_computes_less_and_both_are_kept(bounding, tiny, make_clip, monkeypatch):
    """The pilot sees all of so short a clip, so that what it calls reachable is kept to the letter."""
    monkeypatch.setattr(bounding, "LEAST_S", 1.0)
    clip, spec = make_clip(frames=20, fps=15.0), bounding.CLIPS["demo"][0]
    config = settle(load_config("balanced", values={"model": tiny}))
    strict, loose = bounding.judge_clip(spec, clip, Engine.load(tiny), config, [0.01, 0.9])
    assert (strict.bound, loose.bound) == (0.01, 0.9)
    assert strict.scale < loose.scale
    assert strict.macs > loose.macs
    assert loose.kept
    assert loose.part <= 1
    assert strict.part <= 1 or not strict.kept
    assert (loose.under, loose.windows) == (1, 1)
    assert bounding._line(loose).startswith(f"| {spec.name} | 90 | yes | {loose.scale:g} |")
