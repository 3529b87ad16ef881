"""What is judged is what runs: `tune` counts and `eval` walks a clip with the segments of `deltascene run`."""

import numpy as np
import pyarrow.compute as pc
import pytest
from equal_runs import without_audits

from deltascene import Engine, open_run
from deltascene.pipeline.bundles.bundle import read_bundle
from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.replay import decide_frames
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.evaluation.clips import Clip
from deltascene.pipeline.evaluation.ladder import Step
from deltascene.pipeline.evaluation.tune import TuneRequest, rows_computed
from deltascene.pipeline.evaluation.walk import ByEngine, walk
from deltascene.pipeline.numerics.settle import settle
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.reader import read_frames

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def engine(tiny):
    return Engine.load(tiny)


def without_truth(path, frames):
    return Clip(path.stem, path, {}, np.zeros((frames, 1, 1), bool))


@pytest.fixture(scope="module", params=[("segment.frames=20", 50), (None, 270)], ids=["short segments", "as they are"])
def judged(request, run_cli, make_clip, tiny, tmp_path_factory):
    """A clip of some segments: its path, its frames, the config, and the ledger of a run."""
    override, frames = request.param
    path, out = make_clip(frames, fps=25.0), tmp_path_factory.mktemp("run") / "out"
    overrides = [] if override is None else [override]
    settings = [word for text in ("run.audit=off", *overrides) for word in ("--set", text)]
    options = ("--model", tiny, "--preset", "balanced", "--no-archive", "--save", "arrays", *settings)
    code, _, error = run_cli("run", path, "-o", out, *options)
    assert code == 0, error
    config = settle(load_config("balanced", overrides=overrides, values={"model": tiny}))
    table = without_audits(open_run(out)["clip"].ledger())
    base = table.filter(pc.equal(table["task"], "parts"))
    resets = [row["index"] for row in base.to_pylist() if row["reason"] == "reset"]
    assert resets == list(range(0, frames, config.segment.frames))
    assert len(resets) > 1
    return path, frames, config, table


def test_tune_counts_the_rows_of_a_run(judged, engine, tmp_path):
    path, frames, config, table = judged
    base = table.filter(pc.equal(table["task"], "parts"))
    (spec,) = find_sources([str(path)])
    with read_frames(spec) as reader:
        decisions = [(each.grid, each.decisions[0]) for each in decide_frames(engine.model, [config], reader)]
    counted = [grid.tokens if decision.rows is None else len(decision.rows) for grid, decision in decisions]
    assert counted == base["rows_computed"].to_pylist()
    assert [decision.policy for _, decision in decisions] == base["policy"].to_pylist()

    asked = TuneRequest([str(path)], tmp_path / "new.yaml", "", {}, "macs", frames=frames)
    assert rows_computed(asked, [Step(1.0, config)], engine, [path]) == [sum(counted)]


def test_eval_walks_a_clip_as_it_is_run(judged, engine):
    path, frames, config, table = judged
    kinds, walkers = engine.model.bundle.kinds, {"balanced": ByEngine(engine.model, config)}
    walked = walk(without_truth(path, frames), kinds, walkers, frames=frames, judged=False)["balanced"]
    frame = table.group_by("index").aggregate([("macs_executed", "sum"), ("macs_dense", "sum")]).sort_by("index")
    assert walked["macs"][:, 0, 0].tolist() == frame["macs_executed_sum"].to_pylist()
    assert walked["macs"][:, 1, 0].tolist() == frame["macs_dense_sum"].to_pylist()
    base = table.filter(pc.equal(table["task"], "parts"))
    assert walked["policy"].tolist() == base["policy"].to_pylist()
    assert walked["reason"].tolist() == base["reason"].to_pylist()


def test_truth_of_another_size_than_the_predictions_is_refused_by_both(make_clip, tiny):
    path, kinds = make_clip(3, size=(54, 96)), read_bundle(tiny).kinds
    config = settle(load_config("exact", overrides=["input.resize=aspect"], values={"model": tiny}))
    clip = Clip(path.stem, path, {"parts": np.zeros((3, 48, 64), np.uint8)}, np.zeros((3, 48, 64), bool))
    with pytest.raises(UsageError, match=r"parts: expected truth of \(48, 80\), as predicted; found \(48, 64\)"):
        walk(clip, kinds, {"exact": ByEngine(Engine.load(tiny).model, config)}, frames=3)
