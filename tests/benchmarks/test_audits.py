"""Trials of audits: what is recorded of a clip, and that intervals contain the true drift."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from deltascene.pipeline.config import load_config


@pytest.fixture
def audits(monkeypatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).resolve().parents[2] / "benchmarks"), *sys.path])
    return importlib.import_module("audits")


def test_a_clip_is_recorded_forth_and_back(audits, tiny, make_clip, tmp_path):
    config = load_config("balanced", overrides=["numerics.threads=1"], values={"model": tiny})
    columns = audits.record(make_clip(12), config, 30)
    np.savez_compressed(tmp_path / "a.balanced.npz", **columns)
    series = audits.read_series(tmp_path / "a.balanced.npz", 60)
    assert series.policy == columns["policy"].tolist() * 2
    dense = np.array(series.policy) == "dense"
    assert set(series.drift) == {"parts", "height", "flow", "hands"}
    assert series.units["flow"] == "degrees"
    for task, drift in series.drift.items():
        assert (drift[dense] == 0).all()
        assert (drift[~dense] > 0).any()
        assert np.isfinite(series.floor[task][1:30]).any()


def test_trials_draw_as_a_run_does_and_their_intervals_hold(audits, tmp_path, capsys):
    rng, frames = np.random.default_rng(2), 900
    for number in range(3):
        policy = np.where(np.arange(frames) % 12 == 0, "dense", np.where(np.arange(frames) % 2, "warped", "rows"))
        drift = 0.03 * np.exp(0.5 * np.sin(np.arange(frames) / 40 + number) + 0.3 * rng.standard_normal(frames))
        np.savez(
            tmp_path / f"clip{number}.balanced.npz",
            **{
                "policy": policy,
                "reason": np.where(np.arange(frames) % 256, "between", "reset"),
                "executed": np.select([policy == "dense", policy == "rows"], [1.0, 0.15], 0.0),
                "drift/parts": drift,
                "floor/parts": np.full(frames, 0.01),
                "unit/parts": np.array("share of pixels"),
            },
        )
    audits.main(["--store", str(tmp_path), "--trials", "24"])
    *rows, together = capsys.readouterr().out.splitlines()[2:]
    assert [int(row.split("|")[4]) >= 20 for row in rows] == [True] * 3
    assert [int(row.split("|")[6]) for row in rows] == [24] * 3
    assert together.startswith("| all 3 | parts | | ")
