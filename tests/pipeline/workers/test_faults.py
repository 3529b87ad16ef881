"""What else goes wrong at night: machines, memory, disks, harmed bytes, stuck decoders, killed drivers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import cv2
import psutil
import pytest
import ray
from equal_runs import compare_runs
from ray.cluster_utils import Cluster

from deltascene import open_run
from deltascene.pipeline.batch import flow
from deltascene.pipeline.workers.finish import FinishProgress
from deltascene.pipeline.workers.worker_ray import RayWorker

NUMERICS = ["--set", "numerics.threads=1", "--set", "numerics.dtype=float32"]
OPTIONS = ["--preset", "balanced", "--save", "arrays", *NUMERICS, "--set", "segment.frames=8"]
RAY = ["--executor", "ray"]


@pytest.fixture(scope="module", autouse=True)
def _left_at_the_end():
    yield
    ray.shutdown()


@pytest.fixture
def cluster():
    """A cluster on this machine, the same for all tests that don't need one of their own."""
    if not ray.is_initialized():
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)


@pytest.fixture(scope="module")
def clips(make_clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("in")
    for name, frames in (("long", 60), ("short", 20)):
        shutil.copy(make_clip(frames, name=name), folder / f"{name}.avi")
    return folder


@pytest.fixture(scope="module")
def wanted(run_cli, tiny_delta, clips, tmp_path_factory):
    """What nothing disturbs; the segments that its arrays were joined from are still there."""
    out = tmp_path_factory.mktemp("wanted") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, "_tidy", lambda *_: None)
        assert run_cli("run", clips, "-o", out, "--model", tiny_delta, *OPTIONS)[0] == 0
    return out


def until(what, seconds=120.0):
    """Waits for a condition."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.01)


def after_span(monkeypatch, number, do):
    """Calls `do(worker)` once, when so many spans of 4 frames are done."""
    real_run, count = RayWorker.run, iter(range(1_000_000))

    def run(self, job, segment):
        for done in real_run(self, job, segment):
            yield done
            if next(count) == number:
                do(self)

    monkeypatch.setattr(RayWorker, "run", run)
    monkeypatch.setattr(RayWorker, "span_frames", 4)


def kill(*pids):
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.nightly
def test_all_actors_of_a_worker_die_at_once(cluster, run_cli, tiny_delta, clips, wanted, tmp_path, monkeypatch, pids):
    after_span(monkeypatch, 5, lambda worker: kill(*pids[worker].values()))
    arguments = ["--workers", 1, "--model", tiny_delta, *RAY, *OPTIONS]
    code, text, error = run_cli("run", clips, "-o", tmp_path / "out", *arguments)
    assert code == 0, text + error
    assert "a worker was lost" in text
    assert not (found := compare_runs(wanted, tmp_path / "out")), found


@pytest.mark.nightly
def test_a_kill_while_a_worker_is_restored_and_one_while_workers_start(
    cluster, run_cli, tiny_delta, clips, wanted, tmp_path, monkeypatch, pids
):
    real_ready, due = RayWorker.ready, [True]

    def engine_dies(worker):
        kill(pids[worker]["engine"])
        due.append(True)

    def ready(self):
        asked = self._actors["writer"].__ray_call__.remote(lambda self: os.getpid())
        if due:  # at the start, and when the engine is replaced
            due.pop()
            kill(ray.get(asked))
        real_ready(self)

    after_span(monkeypatch, 5, engine_dies)
    monkeypatch.setattr(RayWorker, "ready", ready)
    arguments = ["--workers", 1, "--model", tiny_delta, *RAY, *OPTIONS]
    code, text, error = run_cli("run", clips, "-o", tmp_path / "out", *arguments)
    assert code == 0, text + error
    assert not due
    assert not (found := compare_runs(wanted, tmp_path / "out")), found


@pytest.mark.nightly
def test_a_span_that_runs_out_of_memory_is_done_again_then_its_file_fails_and_says_so(
    cluster, run_cli, tiny_delta, clips, wanted, tmp_path, monkeypatch, pids
):
    """The engine stays alive, and spans after the failed one reach the writer: they may not seal anything."""

    real_ready = RayWorker.ready

    def ready(self):
        real_ready(self)
        ray.get(self._actors["engine"].__ray_call__.remote(starve))

    def starve(actor):
        real = actor._part.run

        def run(job, read):
            if job.id == "long" and read.span.segment.start == 16 and read.span.first:
                raise MemoryError
            return real(job, read)

        actor._part.run = run

    monkeypatch.setattr(RayWorker, "ready", ready)
    monkeypatch.setattr(RayWorker, "span_frames", 2)
    out, arguments = tmp_path / "out", ["--workers", 1, "--model", tiny_delta, *RAY, *OPTIONS]
    code, text, _ = run_cli("run", clips, "-o", out, *arguments)
    assert code == 3
    assert {video.id: video.status for video in open_run(out).videos} == {"long": "failed", "short": "done"}
    assert "ran out of memory; take fewer --workers" in " ".join(text.split())
    assert not (found := compare_runs(wanted, out, ["short"])), found
    assert not (out / "videos/long/segments/00000016.zip").exists()
    monkeypatch.undo()
    assert run_cli("run", clips, "-o", out, "--model", tiny_delta, *OPTIONS)[0] == 0
    assert not (found := compare_runs(wanted, out)), found


@contextmanager
def small_disk(folder, size):
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mount isn't allowed here")
    try:
        yield folder
    finally:
        until(lambda: subprocess.run(["umount", folder], capture_output=True).returncode == 0, 20)


@pytest.mark.skipif(os.geteuid() != 0 if hasattr(os, "geteuid") else True, reason="a small disk needs mount rights")
def test_a_disk_that_a_writer_fills_is_exit_4_and_the_same_command_goes_on(
    cluster, run_cli, tiny_delta, clips, wanted, tmp_path
):
    with small_disk(tmp_path / "small", "100m") as small:
        out, ballast = small / "out", small / "ballast"
        arguments = ["run", clips, "-o", out, "--workers", 1, "--model", tiny_delta, *RAY, *OPTIONS]
        ballast.write_bytes(bytes((100 << 20) - (1200 << 10)))
        code, text, error = run_cli(*arguments)
        assert (code, error.count("\n")) == (4, 1), text + error
        assert "no room left" in error
        sealed = list(out.glob("videos/*/segments/*.zip"))
        assert sealed
        ballast.unlink()
        code, text, error = run_cli(*arguments, "--json")
        assert code == 0, text + error
        events = [json.loads(line) for line in text.splitlines()]
        started = [event for event in events if event["event"] == "video_started"]
        assert sum(event["sealed"] for event in started) >= 8 * (len(sealed) - 1)
        assert not (found := compare_runs(wanted, out)), found


def test_a_changed_byte_anywhere_is_noticed_and_its_segment_alone_is_done_again(
    cluster, run_cli, tiny_delta, clips, wanted, tmp_path, harm
):
    """In a ledger, in predictions, in an archived segment: three segments of eight, of a run that was cut off."""
    out = shutil.copytree(wanted, tmp_path / "out")
    files = open_run(out)["long"].files
    files.done.unlink()
    harm(files.part(8), "ledger.parquet")
    harm(files.part(24), "height/c/0/0/0")
    harm(files.activations / "segments/00000040.zip", "rows_3/c/0/0")
    arguments = ["run", clips, "-o", out, "--workers", 1, "--model", tiny_delta, "--json", *RAY, *OPTIONS]
    code, text, error = run_cli(*arguments)
    assert code == 0, text + error
    events = [json.loads(line) for line in text.splitlines()]
    done = sorted(event["index"] for event in events if event["event"] == "frame")
    assert done == [*range(8, 16), *range(24, 32), *range(40, 48)]
    assert not (found := compare_runs(wanted, out)), found


def decoders_below(pid):
    """Asked of the system itself: `ps` cuts its lines at the width of a terminal, and paths may be long."""
    return [child.pid for child in psutil.Process(pid).children() if "sources.decoding" in " ".join(child.cmdline())]


def test_a_stuck_decoder_fails_its_file_and_the_others_go_on(
    cluster, run_cli, tiny_delta, make_clip, wanted, tmp_path, monkeypatch, pids
):
    """Its process is stopped for real, in the middle of a file that its pipe can't hold."""
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(make_clip(400, name="stuck"), folder / "a_stuck.avi")
    shutil.copy(make_clip(20, name="short"), folder / "short.avi")

    def stop(worker):
        (decoder,) = decoders_below(pids[worker]["reader"])
        os.kill(decoder, signal.SIGSTOP)

    after_span(monkeypatch, 3, stop)
    arguments = ["--workers", 1, "--model", tiny_delta, "--set", "source.timeout_s=5", *RAY, *OPTIONS]
    code, text, _ = run_cli("run", folder, "-o", tmp_path / "out", *arguments)
    assert code == 3
    assert "decoder was stuck after frame" in " ".join(text.split())
    assert {video.id: video.status for video in open_run(tmp_path / "out").videos} == {
        "a_stuck": "failed", "short": "done",
    }  # fmt: skip


@pytest.mark.nightly
def test_a_killed_decoder_is_a_lost_worker(cluster, run_cli, tiny_delta, make_clip, tmp_path, monkeypatch, pids):
    clip = make_clip(200, name="killed")
    assert run_cli("run", clip, "-o", tmp_path / "wanted", "--model", tiny_delta, *OPTIONS)[0] == 0
    after_span(monkeypatch, 3, lambda worker: kill(*decoders_below(pids[worker]["reader"])))
    arguments = ["--workers", 1, "--model", tiny_delta, *RAY, *OPTIONS]
    code, text, error = run_cli("run", clip, "-o", tmp_path / "out", *arguments)
    assert code == 0, text + error
    assert "a worker was lost" in text
    assert not (found := compare_runs(tmp_path / "wanted", tmp_path / "out")), found


@pytest.mark.parametrize("what", ["killed", pytest.param("stopped", marks=pytest.mark.nightly)])
def test_a_worker_that_draws_is_killed_or_the_run_is_stopped(
    cluster, run_cli, tiny_delta, make_clip, tmp_path, monkeypatch, pids, what
):
    frames, drew = 60 if what == "killed" else 500, []  # a stop takes a while to arrive
    clip = make_clip(frames, name="drawn")
    options = ["--workers", 1, "--model", tiny_delta, *RAY, "--preset", "balanced", "--save", "video,png", *NUMERICS]
    real_finish, real_ready = RayWorker.finish, RayWorker.ready

    def ready(self):
        real_ready(self)
        ray.get(self._actors["writer"].__ray_call__.remote(in_short_calls))

    def in_short_calls(actor):  # by default they take as long as all of this clip
        from deltascene.pipeline.workers.finish import FinisherPart

        FinisherPart.call_s = 0.01

    def finish(self, finish_job):
        for step in real_finish(self, finish_job):
            yield step
            if isinstance(step, FinishProgress) and step.what == "png" and step.share > 0 and not drew:
                drew.append(step)
                kill(pids[self]["writer"]) if what == "killed" else os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(RayWorker, "ready", ready)
    monkeypatch.setattr(RayWorker, "finish", finish)
    code, text, error = run_cli("run", clip, "-o", tmp_path / "out", *options)
    assert drew[0].share < 1
    if what == "stopped":
        assert code == 130, text + error
        assert open_run(tmp_path / "out")["drawn"].status == "partial"
        code, text, error = run_cli("run", clip, "-o", tmp_path / "out", *options)
    assert code == 0, text + error
    assert "computed again" not in text
    video = open_run(tmp_path / "out")["drawn"]
    assert (video.status, len(video), video.record.retries) == ("done", frames, 0)
    capture = cv2.VideoCapture(str(video.files.overlay))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == frames
    assert not list(video.folder.glob("unfinished/*"))


@pytest.mark.nightly
def test_an_actor_that_is_stopped_is_replaced(cluster, run_cli, tiny_delta, clips, wanted, tmp_path, monkeypatch, pids):
    """One that neither works nor dies: the engine, in the middle of a segment."""
    stopped = []

    def stop(worker):
        stopped.append(pids[worker]["engine"])
        os.kill(stopped[0], signal.SIGSTOP)

    after_span(monkeypatch, 3, stop)
    arguments = ["--workers", 2, "--model", tiny_delta, *RAY, *OPTIONS, "--set", "run.silent_s=20"]
    code, text, error = run_cli("run", clips, "-o", tmp_path / "out", *arguments)
    assert code == 0, text + error
    assert "a worker was lost" in text
    assert not (found := compare_runs(wanted, tmp_path / "out")), found
    until(lambda: not psutil.pid_exists(stopped[0]))


@pytest.mark.parametrize(
    "step",
    [
        pytest.param("assemble", marks=pytest.mark.nightly),
        "join_pieces",
        pytest.param("write_done", marks=pytest.mark.nightly),
    ],
)
def test_a_driver_killed_while_it_finishes_a_video_goes_on(run_cli, tiny_delta, make_clip, tmp_path, step):
    """SIGKILL after its arrays were joined, in the middle of its overlay, and before the video is marked as done."""
    clip = make_clip(20)
    options = ["--model", tiny_delta, *OPTIONS[:2], *OPTIONS[4:]]
    program = f"""
import os, signal, sys
from deltascene.pipeline.workers import finish
from deltascene.pipeline.workers import overlay_piece
from deltascene.pipeline.batch import flow
from deltascene.pipeline.cli import app
def dies(where, name, real):
    def call(*arguments):
        if name != "write_done":
            made = real(*arguments)
        if name == "join_pieces":
            while next(made) < 0.3:
                pass
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(where, name, call)
where = dict(assemble=finish, join_pieces=overlay_piece, write_done=flow)[{step!r}]
dies(where, {step!r}, getattr(where, {step!r}))
sys.argv = ["deltascene", "run", *{[str(clip), "-o", str(tmp_path / "out"), *options]!r}]
app.main()
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == -signal.SIGKILL
    code, text, error = run_cli("run", clip, "-o", tmp_path / "out", "--json", *options)
    assert code == 0, text + error
    assert not any(json.loads(line)["event"] == "frame" for line in text.splitlines())
    assert run_cli("run", clip, "-o", tmp_path / "wanted", *options)[0] == 0
    assert not (found := compare_runs(tmp_path / "wanted", tmp_path / "out")), found
    assert open_run(tmp_path / "out")["clip"].files.overlay.stat().st_size > 0


@contextmanager
def machines(*cpus):
    """A cluster of simulated machines, the first of which is its head; yields it and the others."""
    ray.shutdown()
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus[0], "include_dashboard": False})
    try:
        yield nodes, [nodes.add_node(num_cpus=count) for count in cpus[1:]]
    finally:
        ray.shutdown()
        nodes.shutdown()


@pytest.mark.nightly
def test_workers_have_a_cluster_of_their_own_beside_another(run_cli, tiny_delta, clips, tmp_path, monkeypatch):
    """The other has no processor to give, and Ray by itself would join it."""
    monkeypatch.setattr(RayWorker, "placed_s", 3.0)
    arguments = ["run", clips, "-o", tmp_path / "out", "--workers", 1, "--model", tiny_delta, *RAY, *OPTIONS]
    with machines(0):
        code, text, error = run_cli(*arguments)
    assert code == 0, text + error


@pytest.mark.nightly
def test_a_machine_that_vanishes_takes_its_workers_and_the_others_do_their_segments(
    run_cli, tiny_delta, clips, wanted, tmp_path, monkeypatch
):
    """Two machines of one processor with a worker each: one goes, the other's worker does everything."""
    with machines(1, 1) as (nodes, [other]):
        after_span(monkeypatch, 3, lambda worker: nodes.remove_node(other, allow_graceful=False))
        monkeypatch.setattr(RayWorker, "placed_s", 3.0)
        arguments = ["--address", nodes.address, "--workers", 2, "--model", tiny_delta, *RAY, *OPTIONS]
        code, text, error = run_cli("run", clips, "-o", tmp_path / "out", *arguments)
    assert code == 0, text + error
    assert "a worker was lost" in text
    assert not (found := compare_runs(wanted, tmp_path / "out")), found


@pytest.mark.nightly
def test_where_no_worker_has_a_place_any_more_the_run_ends_and_says_so(
    run_cli, tiny_delta, clips, wanted, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    with machines(0, 1) as (nodes, [other]):
        after_span(monkeypatch, 8, lambda worker: nodes.remove_node(other, allow_graceful=False))
        monkeypatch.setattr(RayWorker, "placed_s", 3.0)
        arguments = ["run", clips, "-o", out, "--workers", 1, "--model", tiny_delta, *RAY, *OPTIONS]
        code, _, error = run_cli(*arguments, "--address", nodes.address)
        assert (code, error.count("\n")) == (3, 1), error
        assert "expected a machine with 1 free processors for each computing actor of a worker (engine)" in error
    monkeypatch.undo()
    assert run_cli("run", clips, "-o", out, "--model", tiny_delta, *OPTIONS)[0] == 0
    assert not (found := compare_runs(wanted, out)), found


@pytest.mark.nightly
def test_what_rays_memory_monitor_kills_says_that_memory_was_the_cause(run_cli, tiny_delta, clips, tmp_path):
    """A real monitor, told that next to nothing is already too much."""
    ray.shutdown()
    greedy = {"memory_usage_threshold": 0.001, "memory_monitor_refresh_ms": 50}
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, _system_config=greedy)
    try:
        arguments = ["--workers", 1, "--model", tiny_delta, *RAY, *OPTIONS]
        code, text, error = run_cli("run", clips, "-o", tmp_path / "out", *arguments)
    finally:
        ray.shutdown()
    assert (code, error.count("\n")) == (3, 1), text + error
    assert "ran out of memory; take fewer --workers" in error
