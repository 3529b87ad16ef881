"""A real Ray cluster: what its actors compute is what this process computes, byte for byte."""

import shutil

import numpy as np
import pytest
import ray

from deltascene import Engine, open_run
from deltascene.pipeline.actors import EngineActor, Seat
from deltascene.pipeline.config import load_config
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.jobs import plan_spans
from deltascene.pipeline.ledger import CLOCK_COLUMNS
from deltascene.pipeline.numerics import honour, numerics_record
from deltascene.pipeline.runner import RayRunner, _share_of_cpus

OPTIONS = ["--preset", "balanced", "--save", "arrays", "--set", "numerics.threads=1", "--set", "segment.frames=40"]


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def clip(make_clip):
    return make_clip(50)


@pytest.fixture(scope="module")
def local(deltascene, tiny_delta, clip, tmp_path_factory):
    out = tmp_path_factory.mktemp("local") / "out"
    assert deltascene("run", clip, "-o", out, "--model", tiny_delta, *OPTIONS)[0] == 0
    return out


def files_of(folder):
    """Every file of the archive by its name below it; seals say when, so they are left out."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "seal.json"
    }


def assert_runs_equal(one, other):
    ours, theirs = open_run(one)["clip"], open_run(other)["clip"]
    tables = [video.ledger().drop_columns([*CLOCK_COLUMNS]) for video in (ours, theirs)]
    assert tables[0].equals(tables[1])
    for task in ours.arrays.valid:
        for name in (task, f"age/{task}", f"valid/{task}", "change", "index", "pts_s"):
            assert ours.arrays._read(name).tobytes() == theirs.arrays._read(name).tobytes(), name
    assert files_of(ours.files.activations) == files_of(theirs.files.activations)


@pytest.fixture(scope="module")
def fused(cluster, deltascene, tiny_delta, clip, tmp_path_factory):
    """A run by actors, with an input that can't be read before the good one."""
    bad = tmp_path_factory.mktemp("bad") / "bad.mp4"
    bad.write_text("no video")
    out = tmp_path_factory.mktemp("fused") / "out"
    code, _, _ = deltascene("run", bad, clip, "-o", out, "--model", tiny_delta, "--executor", "ray", *OPTIONS)
    assert code == 3
    return out


def test_ray_gives_the_local_bytes(local, fused):
    assert [video.status for video in open_run(fused).videos] == ["failed", "done"]
    assert_runs_equal(local, fused)


def test_ray_with_sub_tasks_in_their_own_actors_gives_the_local_bytes(
    cluster, deltascene, tiny_delta, clip, local, tmp_path
):
    arguments = ["--executor", "ray", "--placement", "split", "--model", tiny_delta, *OPTIONS]
    code, text, error = deltascene("run", clip, "-o", tmp_path / "out", *arguments)
    assert code == 0, text + error
    assert_runs_equal(local, tmp_path / "out")


def test_a_sub_task_alone_in_its_actor_gives_the_local_bytes(cluster, deltascene, tiny_delta, clip, tmp_path):
    """The engine's actor predicts nothing then, but hands on what the task's needs; ages come along."""
    arguments = ["--model", tiny_delta, "--tasks", "height", *OPTIONS]
    assert deltascene("run", clip, "-o", tmp_path / "local", *arguments)[0] == 0
    split = ["--executor", "ray", "--placement", "split"]
    assert deltascene("run", clip, "-o", tmp_path / "split", *split, *arguments)[0] == 0
    assert_runs_equal(tmp_path / "local", tmp_path / "split")
    assert open_run(tmp_path / "local")["clip"].arrays.age("height", slice(None)).any()


def test_with_the_compiled_kernel_actors_and_a_backfill_give_the_local_bytes(
    cluster, deltascene, tiny_delta, clip, built_kernel, user_cache, tmp_path
):
    """Actors find it where this user keeps it, as on a machine where it was built."""
    arguments = ["--model", tiny_delta, "--set", "numerics.kernel=compiled", *OPTIONS]
    shutil.copytree(built_kernel, user_cache, dirs_exist_ok=True)
    try:
        assert deltascene("run", clip, "-o", tmp_path / "local", *arguments)[0] == 0
        split = ["--executor", "ray", "--placement", "split"]
        assert deltascene("run", clip, "-o", tmp_path / "split", *split, *arguments)[0] == 0
        assert_runs_equal(tmp_path / "local", tmp_path / "split")
        assert deltascene("run", clip, "-o", tmp_path / "later", "--tasks", "parts,flow", *arguments)[0] == 0
        assert deltascene("backfill", tmp_path / "later", "--task", "height")[0] == 0
    finally:
        shutil.rmtree(user_cache / "deltascene")
    whole, later = (open_run(tmp_path / name)["clip"].arrays for name in ("local", "later"))
    assert whole._read("height").tobytes() == later._read("height").tobytes()
    assert open_run(tmp_path / "local").config["key"]["numerics.kernel"].startswith("rows-")
    code, _, error = deltascene("backfill", tmp_path / "later", "--task", "hands")
    assert code == 2
    assert "numerics.kernel: expected a compiled kernel; found none" in error


def test_what_actors_began_is_finished_here(deltascene, tiny_delta, clip, local, fused, tmp_path):
    out = shutil.copytree(fused, tmp_path / "out")
    files = open_run(out)["clip"].files
    files.done.unlink()
    files.seal(40).unlink()
    assert deltascene("run", clip, "-o", out, "--model", tiny_delta, *OPTIONS)[0] == 0
    assert_runs_equal(local, out)


def test_an_actor_honours_the_numerics_or_fails_by_name(tiny_delta):
    config = load_config("balanced", overrides=["numerics.threads=1"], values={"model": tiny_delta})
    engine = Engine.from_config(config)
    config, record = engine.config, numerics_record(engine.config)
    honour(config, record)
    seat = Seat(config, engine.model.bundle.folder, record | {"torch": "0.1"}, False)
    with pytest.raises(UsageError, match=r"expected torch = 0\.1"):
        EngineActor().load(seat, ["parts"], ())


def test_an_error_in_an_actor_is_raised_here(cluster, tiny_delta, monkeypatch):
    config = load_config("balanced", overrides=["numerics.threads=1"], values={"model": tiny_delta})
    engine = Engine.from_config(config)
    real = numerics_record(engine.config)
    monkeypatch.setattr("deltascene.pipeline.runner.numerics_record", lambda config: real | {"timm": "0.0"})
    with pytest.raises(UsageError, match=r"expected timm = 0\.0"):
        RayRunner(engine)


def test_audits_need_everything_in_one_place(cluster, deltascene, tiny_delta, clip, tmp_path):
    arguments = ["--executor", "ray", "--placement", "split", "--audit-every", "5", "--model", tiny_delta, *OPTIONS]
    code, _, error = deltascene("run", clip, "-o", tmp_path / "out", *arguments)
    assert (code, error.count("\n")) == (2, 1)


def test_spans_never_cross_a_segment():
    spans = list(plan_spans(frames=50, done_frames=40, segment_frames=40, span_frames=16))
    assert [(span.segment, span.frames) for span in spans] == [(40, 16), (40, 16), (40, 8), (80, 10)]
    assert [(span.first, span.last) for span in spans] == [(True, False), (False, False), (False, True), (True, True)]
    assert np.sum([span.frames for span in spans]) == 50


@pytest.mark.parametrize(
    ("cluster_cpus", "threads", "engines", "share"),
    [(8, 2, 3, 2.0), (2, 2, 1, 2.0), (2, 2, 3, 0.66), (4, 4, 2, 2.0), (1, 1, 4, 0.24)],
)
def test_actors_ask_for_what_there_is(cluster_cpus, threads, engines, share):
    assert _share_of_cpus(cluster_cpus, threads, engines) == pytest.approx(share, abs=0.011)
    assert _share_of_cpus(cluster_cpus, threads, engines) * engines <= max(cluster_cpus, engines * threads)
