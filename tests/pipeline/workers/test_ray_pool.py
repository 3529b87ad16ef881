"""A real Ray cluster: what its actors compute is what this process computes, byte for byte."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import ray
from equal_runs import compare_runs, compare_task

from deltascene import Engine, open_run
from deltascene.pipeline.batch import flow
from deltascene.pipeline.bundles import scene_model, weight_files
from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine import engine
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.numerics.settle import numerics_record
from deltascene.pipeline.workers import worker
from deltascene.pipeline.workers.ray_pool import RayPool, _share_of_cpus
from deltascene.pipeline.workers.worker_ray import RayWorker

NUMERICS = ["--set", "numerics.threads=1", "--set", "numerics.dtype=float32"]  # a busy machine may measure otherwise
AUDITED = ["--set", "run.audit_seed=2"]  # draws a frame of the little clip, with its floor
OPTIONS = ["--preset", "balanced", "--save", "arrays", *NUMERICS, *AUDITED, "--set", "segment.frames=40"]


@pytest.fixture(scope="module")
def cluster():
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def clip(make_clip):
    return make_clip(50)


@pytest.fixture(scope="module")
def local(run_cli, tiny_delta, clip, tmp_path_factory):
    out = tmp_path_factory.mktemp("local") / "out"
    assert run_cli("run", clip, "-o", out, "--model", tiny_delta, *OPTIONS)[0] == 0
    return out


def assert_runs_equal(one, other, video="clip"):
    assert not (found := compare_runs(one, other, [video])), found


@pytest.fixture(scope="module")
def fused(cluster, run_cli, tiny_delta, clip, tmp_path_factory):
    """A run by actors, with an input that can't be read before the good one; its parts are still there."""
    bad = tmp_path_factory.mktemp("bad") / "bad.mp4"
    bad.write_text("no video")
    out = tmp_path_factory.mktemp("fused") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, "_tidy", lambda *_: None)
        code, _, _ = run_cli("run", bad, clip, "-o", out, "--model", tiny_delta, "--executor", "ray", *OPTIONS)
    assert code == 3
    return out


def test_ray_gives_the_local_bytes(local, fused):
    assert [video.status for video in open_run(fused).videos] == ["failed", "done"]
    assert_runs_equal(local, fused)
    audits = [row for row in open_run(fused)["clip"].ledger().to_pylist() if row["macs_audit"]]
    assert audits
    for row in audits:
        assert row["macs_audit"] == row["macs_dense"] * (1 if row["floor"] is None else 2)


def test_the_driver_of_ray_actors_reads_no_weights(cluster, run_cli, tiny_delta, clip, local, tmp_path, monkeypatch):
    """Actors are processes of their own, where nothing is patched."""
    read = []
    for module, name in ((weight_files, "read_weights"), (scene_model, "read_weights"), (engine, "prepare_model")):
        monkeypatch.setattr(module, name, lambda *about, name=name: read.append((name, *about)))
    arguments = ["--executor", "ray", "--model", tiny_delta, *OPTIONS]
    code, text, error = run_cli("run", clip, "-o", tmp_path / "out", *arguments)
    assert (code, read) == (0, []), text + error
    assert_runs_equal(local, tmp_path / "out")


def test_ray_with_sub_tasks_in_their_own_actors_gives_the_local_bytes(
    cluster, run_cli, tiny_delta, clip, local, tmp_path
):
    arguments = ["--executor", "ray", "--placement", "split", "--model", tiny_delta, *OPTIONS]
    code, text, error = run_cli("run", clip, "-o", tmp_path / "out", *arguments)
    assert code == 0, text + error
    assert_runs_equal(local, tmp_path / "out")


def test_a_sub_task_alone_in_its_actor_gives_the_local_bytes(cluster, run_cli, tiny_delta, clip, tmp_path):
    """The engine's actor predicts nothing then, but hands on what the task's needs; ages come along."""
    arguments = ["--model", tiny_delta, "--tasks", "height", *OPTIONS]
    assert run_cli("run", clip, "-o", tmp_path / "local", *arguments)[0] == 0
    split = ["--executor", "ray", "--placement", "split"]
    assert run_cli("run", clip, "-o", tmp_path / "split", *split, *arguments)[0] == 0
    assert_runs_equal(tmp_path / "local", tmp_path / "split")
    assert open_run(tmp_path / "local")["clip"].arrays.age("height", slice(None)).any()


@pytest.mark.nightly
def test_with_the_compiled_kernel_actors_and_a_backfill_give_the_local_bytes(
    cluster, run_cli, tiny_delta, clip, built_kernel, user_cache, tmp_path
):
    """Actors find it where this user keeps it, as on a machine where it was built."""
    arguments = ["--model", tiny_delta, "--set", "numerics.kernel=compiled", *OPTIONS]
    shutil.copytree(built_kernel, user_cache, dirs_exist_ok=True)
    try:
        assert run_cli("run", clip, "-o", tmp_path / "local", *arguments)[0] == 0
        split = ["--executor", "ray", "--placement", "split"]
        assert run_cli("run", clip, "-o", tmp_path / "split", *split, *arguments)[0] == 0
        assert_runs_equal(tmp_path / "local", tmp_path / "split")
        assert run_cli("run", clip, "-o", tmp_path / "later", "--tasks", "parts,flow", *arguments)[0] == 0
        assert run_cli("backfill", tmp_path / "later", "--task", "height")[0] == 0
    finally:
        shutil.rmtree(user_cache / "deltascene")
    assert not (found := compare_task(tmp_path / "local", tmp_path / "later", "height")), found
    assert open_run(tmp_path / "local").config["key"]["numerics.kernel"].startswith("rows-")
    code, _, error = run_cli("backfill", tmp_path / "later", "--task", "hands")
    assert code == 2
    assert "numerics.kernel: expected a compiled kernel; found none" in error


def test_what_actors_began_is_finished_here(run_cli, tiny_delta, clip, local, fused, tmp_path):
    out = shutil.copytree(fused, tmp_path / "out")
    files = open_run(out)["clip"].files
    files.done.unlink()
    files.part(40).unlink()
    assert run_cli("run", clip, "-o", out, "--model", tiny_delta, *OPTIONS)[0] == 0
    assert_runs_equal(local, out)


def test_an_error_in_an_actor_is_raised_here(cluster, tiny_delta, monkeypatch):
    config = load_config("balanced", overrides=["numerics.threads=1"], values={"model": tiny_delta})
    engine = Engine.from_config(config)
    real = numerics_record(engine.config)
    monkeypatch.setattr("deltascene.pipeline.workers.ray_pool.numerics_record", lambda config: real | {"timm": "0.0"})
    with pytest.raises(UsageError, match=r"expected timm = 0\.0"):
        RayPool(engine.model, engine.config)


@pytest.fixture(scope="module")
def long_clip(make_clip):
    return make_clip(90, name="long")


SEGMENTS_OF_8 = [*OPTIONS[:-1], "segment.frames=8"]


@pytest.fixture(scope="module")
def undisturbed(run_cli, tiny_delta, long_clip, clip, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert run_cli("run", long_clip, clip, "-o", out, "--model", tiny_delta, *SEGMENTS_OF_8)[0] == 0
    return out


@pytest.mark.nightly
def test_many_workers_give_the_bytes_of_one(cluster, run_cli, tiny_delta, undisturbed, long_clip, clip, tmp_path):
    arguments = ["--executor", "ray", "--workers", "3", "--model", tiny_delta, *SEGMENTS_OF_8]
    code, text, error = run_cli("run", long_clip, clip, "-o", tmp_path / "out", *arguments)
    assert code == 0, text + error
    assert [video.id for video in open_run(tmp_path / "out").videos] == ["long", "clip"]
    for name in ("long", "clip"):
        assert_runs_equal(undisturbed, tmp_path / "out", name)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_killed_actors_are_replaced_and_their_segments_done_again(
    cluster, run_cli, tiny_delta, undisturbed, long_clip, clip, tmp_path, monkeypatch, pids, seed
):
    """Each kind of actor once, at some span of some segment, by a real SIGKILL."""
    rng, real_run, killed = random.Random(seed), RayWorker.run, []
    victims = ["reader", "engine", "writer", "height", "flow"]
    rng.shuffle(victims)
    when = {rng.randrange(2, 30) for _ in victims}
    count = iter(range(1_000_000))

    def run(self, job, segment):
        for done in real_run(self, job, segment):
            yield done
            if next(count) in when and victims:
                victim = victims.pop()
                killed.append(victim)
                with suppress(ProcessLookupError):
                    os.kill(pids[self][victim], signal.SIGKILL)

    monkeypatch.setattr(RayWorker, "run", run)
    monkeypatch.setattr(RayWorker, "span_frames", 4)
    arguments = ["--executor", "ray", "--workers", "2", "--placement", "split", "--model", tiny_delta]
    code, text, error = run_cli("run", long_clip, clip, "-o", tmp_path / "out", *arguments, *SEGMENTS_OF_8)
    assert code == 0, text + error
    assert len(killed) >= 3
    assert "a worker was lost; its segment is computed again" in text
    retries = sum(video.record.retries for video in open_run(tmp_path / "out").videos)
    assert retries == text.count("a worker was lost; its segment is computed again") >= 3
    assert f"{retries} segments computed again after a worker was lost" in text
    for name in ("long", "clip"):
        assert_runs_equal(undisturbed, tmp_path / "out", name)


@pytest.mark.nightly
def test_a_video_that_kills_its_workers_is_given_up_and_the_others_go_on(
    cluster, run_cli, tiny_delta, undisturbed, long_clip, clip, tmp_path, monkeypatch, pids
):
    real_run = RayWorker.run

    def run(self, job, segment):
        if job.spec.id == "long" and segment.start == 16:
            os.kill(pids[self]["engine"], signal.SIGKILL)
        yield from real_run(self, job, segment)

    monkeypatch.setattr(RayWorker, "run", run)
    monkeypatch.setattr(RayWorker, "span_frames", 4)
    monkeypatch.setattr(worker, "TRIES", 2)  # each costs the start of an engine
    options = [long_clip, clip, "-o", tmp_path / "out", "--model", tiny_delta, *SEGMENTS_OF_8]
    code, text, _ = run_cli("run", *options, "--executor", "ray", "--workers", "1")
    assert code == 3
    assert {video.id: video.status for video in open_run(tmp_path / "out").videos} == {"long": "failed", "clip": "done"}
    assert "a worker of the run died" in text
    assert open_run(tmp_path / "out")["long"].record.retries == 2 - 1
    assert_runs_equal(undisturbed, tmp_path / "out", "clip")
    monkeypatch.undo()
    assert run_cli("run", *options)[0] == 0
    assert_runs_equal(undisturbed, tmp_path / "out", "long")


def test_a_killed_driver_goes_on_where_it_was(
    run_cli, tiny_delta, undisturbed, long_clip, clip, tmp_path, ray_settings
):
    """Its own cluster goes down with it; what was sealed, before a gap or behind it, isn't done again."""
    out = tmp_path / "out"
    arguments = ["run", long_clip, clip, "-o", out, "--executor", "ray", "--workers", "2", "--model", tiny_delta]
    arguments = [str(argument) for argument in [*arguments, *SEGMENTS_OF_8]]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | ray_settings
    driver = subprocess.Popen([sys.executable, "-m", "deltascene", *arguments], env=environment)
    segments, deadline = out / "videos" / "long" / "segments", time.monotonic() + 120
    while len(list(segments.glob("*.zip"))) < 3:
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    driver.kill()
    driver.wait()
    code, text, error = run_cli(*arguments, "--workers", 1)  # fewer workers to start
    assert code == 0, text + error
    kept = re.search(r"long: \d+ frames, (\d+) of them finished before", text)
    assert kept is not None
    assert int(kept[1]) >= 3 * 8
    for name in ("long", "clip"):
        assert_runs_equal(undisturbed, out, name)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:no", "127.0.0.1:99999"])
def test_no_cluster_at_an_address_is_one_clear_line(tiny_delta, address):
    overrides = ["run.executor=ray", f"run.address={address}"]
    engine = Engine.load(tiny_delta, overrides=overrides)
    with pytest.raises(
        UsageError, match=rf"^run.address: expected a Ray cluster at HOST:PORT; found none at {address} "
    ):
        RayPool(engine.model, engine.config)


@pytest.mark.parametrize("audits", [["--audit-every", "5"], ["--set", "run.audit=0.5"]])
def test_audits_need_everything_in_one_place(audits, cluster, run_cli, tiny_delta, clip, tmp_path):
    arguments = ["--executor", "ray", "--placement", "split", *audits, "--model", tiny_delta, *OPTIONS]
    code, _, error = run_cli("run", clip, "-o", tmp_path / "out", *arguments)
    assert (code, error.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("cluster_cpus", "threads", "engines", "share"),
    [(8, 2, 3, 2.0), (2, 2, 1, 2.0), (2, 2, 3, 0.66), (4, 4, 2, 2.0), (1, 1, 4, 0.24)],
)
def test_actors_ask_for_what_there_is(cluster_cpus, threads, engines, share):
    assert _share_of_cpus(cluster_cpus, threads, engines) == pytest.approx(share, abs=0.011)
    assert _share_of_cpus(cluster_cpus, threads, engines) * engines <= max(cluster_cpus, engines * threads)
