"""Where a run computes when that is left open."""

import shutil

import pytest
from safetensors.torch import load_file, save_file

from deltascene import open_run
from deltascene.pipeline.batch import choose_executor
from deltascene.pipeline.batch.choose_executor import settle_executor
from deltascene.pipeline.bundles import scene_model, weight_files
from deltascene.pipeline.config import load_config
from deltascene.pipeline.errors import BundleError
from deltascene.pipeline.numerics import dtype
from deltascene.pipeline.numerics.settle import numerics_record, settle
from deltascene.pipeline.report.facts import decoder_timeout_s
from deltascene.pipeline.sources import reader
from deltascene.pipeline.sources.find import find_sources

QUIET = ["--save", "arrays"]


@pytest.fixture
def config(tiny):
    return lambda *overrides: settle(load_config(overrides=overrides, values={"model": tiny}))


@pytest.fixture
def no_weights(monkeypatch):
    """No weights can be read; headers and hashes can."""

    def refuse(path, names=None):
        raise AssertionError(f"weights of {path} are read")

    monkeypatch.setattr(weight_files, "read_weights", refuse)
    monkeypatch.setattr(scene_model, "read_weights", refuse)


def test_an_address_is_ray_with_a_thread_for_each_engine(config, monkeypatch, no_weights):
    settled, model = settle_executor(config("run.address=127.0.0.1:6379"), [])
    assert (settled.run.executor, settled.numerics.threads) == ("ray", 1)
    assert all(parameter.is_meta for parameter in model.backbone.parameters())
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert settle_executor(config("numerics.threads=2"), [])[0].run.executor == "ray"


def test_short_work_stays_here(config, make_clip):
    settled, model = settle_executor(config(), find_sources([str(make_clip(12))]))
    assert settled.run.executor == "local"
    assert not any(parameter.is_meta for parameter in model.backbone.parameters())


@pytest.mark.parametrize(("worth", "chosen"), [(0.0, "ray"), (1e9, "local")])
def test_long_work_goes_where_it_measures_faster(config, make_clip, monkeypatch, worth, chosen):
    monkeypatch.setattr(choose_executor, "LONG_S", 1e-9)
    monkeypatch.setattr(choose_executor, "SMALL_BYTES", 1)
    monkeypatch.setattr(choose_executor, "WORTH", worth)
    monkeypatch.setattr(choose_executor.os, "sched_getaffinity", lambda _: {0, 1})
    specs = find_sources([str(make_clip(12))])
    settled, model = settle_executor(config("numerics.threads=1"), specs)
    assert settled.run.executor == chosen
    assert all(parameter.is_meta for parameter in model.backbone.parameters()) == (chosen == "ray")


def test_a_type_that_is_left_open_is_measured_by_the_driver_of_actors_too(config, monkeypatch, no_weights):
    monkeypatch.setattr(dtype, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(dtype, "_times_as_fast", lambda _: 2.0)
    settled, _ = settle_executor(config("run.executor=ray", "numerics.dtype=auto", "numerics.kernel=torch"), [])
    assert numerics_record(settled)["dtype"] == "bfloat16"


@pytest.mark.parametrize("file", ["base.safetensors", "parts.safetensors"])
def test_weights_that_no_actor_could_load_are_refused_before_actors_start(tiny, tmp_path, file, no_weights):
    folder = shutil.copytree(tiny, tmp_path / "model")
    weights = load_file(folder / file)
    name = next(iter(weights))
    save_file({**weights, name: weights[name][..., :-1].contiguous()}, folder / file)
    asked = load_config(overrides=["run.executor=ray"], values={"model": str(folder)})
    with pytest.raises(BundleError, match=f"{file}.*{name}: expected shape"):
        settle_executor(settle(asked), [])


@pytest.fixture
def patience(monkeypatch):
    """How long each decoder that was opened may give nothing, in seconds."""
    found, real = [], reader.DecoderProcess

    def opened(request, timeout_s):
        found.append(timeout_s)
        return real(request, timeout_s)

    monkeypatch.setattr(reader, "DecoderProcess", opened)
    return found


def test_every_decoder_of_a_run_and_of_its_report_has_the_config_s_patience(
    run_cli, tiny, make_clip, tmp_path, monkeypatch, patience
):
    for name, value in {"LONG_S": 1e-9, "SMALL_BYTES": 1, "WORTH": 1e9}.items():
        monkeypatch.setattr(choose_executor, name, value)
    monkeypatch.setattr(choose_executor.os, "sched_getaffinity", lambda _: {0, 1})
    arguments = ["--model", tiny, "--set", "numerics.threads=1", "--set", "source.timeout_s=77", *QUIET]
    clip, outs = make_clip(12), [tmp_path / "a", tmp_path / "b"]
    assert run_cli("run", clip, "-o", outs[0], *arguments, "--dry-run")[0] == 0
    assert run_cli("run", clip, "-o", outs[0], *arguments, "--preset", "exact")[0] == 0
    assert run_cli("run", clip, "-o", outs[1], *arguments, "--preset", "balanced")[0] == 0
    before = len(patience)
    assert run_cli("report", outs[0])[0] == 0
    assert len(patience) > before
    before = len(patience)
    assert run_cli("report", "diff", *outs, "--html", tmp_path / "diff.html")[0] == 0
    assert len(patience) > before
    assert set(patience) == {77}


@pytest.mark.parametrize("recorded", [None, "soon", -1, float("nan"), 1e9])
def test_a_report_s_decoder_has_the_default_patience_where_none_was_recorded(recorded):
    assert decoder_timeout_s({"config": {"source": {"timeout_s": recorded}}}) == reader.TIMEOUT_S
    assert decoder_timeout_s({}) == reader.TIMEOUT_S


def test_a_run_goes_on_with_the_arithmetic_that_it_began_with(run_cli, tiny, make_clip, tmp_path):
    arguments = [make_clip(12), "-o", tmp_path / "out", "--model", tiny, *QUIET]
    began = ["--set", "numerics.threads=1", "--set", "numerics.kernel=torch", "--dtype", "float32"]
    assert run_cli("run", *arguments, *began)[0] == 0
    code, text, _ = run_cli("run", *arguments)
    assert code == 0
    assert "by an earlier run" in text
    assert open_run(tmp_path / "out").config["key"]["numerics.threads"] == 1
