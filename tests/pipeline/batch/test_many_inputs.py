"""Folders of many inputs, and of few that failed: what a job shows, and doing again what went wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from deltascene import open_run
from deltascene.pipeline.errors import WorkerLost
from deltascene.pipeline.report import build
from deltascene.pipeline.runs import videos_table
from deltascene.pipeline.sources import decoder
from deltascene.pipeline.workers import overlay_piece
from deltascene.pipeline.workers.worker_local import LocalWorker

QUIET = ["--set", "save.video=false", "--set", "numerics.threads=1", "--no-archive"]
# The command with a table that is written at every event, in a process of its own.
EAGER = (
    "from deltascene.pipeline.runs.videos_table import VideosTable; VideosTable.every_s, VideosTable.share = 0.0, 1e9;"
    "from deltascene.pipeline.cli.app import main; main()"
)


def test_ten_thousand_broken_files_are_told_soon_and_briefly(run_cli, tiny, tmp_path, monkeypatch):
    """Each is opened once and costs no process; the table is written by the clock, not by the input."""
    writes, processes, real = [], [], videos_table.write_records
    monkeypatch.setattr(videos_table, "write_records", lambda *call: (writes.append(1), real(*call)))
    monkeypatch.setattr(decoder, "start_child", lambda *_: processes.append(1))
    (tmp_path / "in").mkdir()
    for number in range(10_000):
        (tmp_path / f"in/clip{number}.mp4").touch()
    began = time.monotonic()
    options = ["--model", tiny, "--preset", "exact", *QUIET]
    code, text, error = run_cli("run", tmp_path / "in", "-o", tmp_path / "out", *options)
    took = time.monotonic() - began
    assert code == 3
    assert not processes
    assert len(writes) <= 3 + took / videos_table.VideosTable.every_s
    assert len(text.splitlines()) < 120, text
    assert not error
    assert "0 of 10000 inputs done, 0 frames" in text
    assert "… and 9\u202f960 more; all in" in text
    run = open_run(tmp_path / "out")
    assert {video.status for video in run.videos} == {"failed"}
    assert len(run.videos) == 10_000
    assert len((tmp_path / "out/errors.jsonl").read_text().splitlines()) == 10_000
    data = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    assert sum(video["totals"]["frames"] == 0 for video in data["videos"]) == 10_000
    html = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert len(html) < 2_000_000
    assert html.count("<tr data-status=") == 1000
    assert "1\u202f000 of 10\u202f000 inputs are listed" in html


def test_only_failed_does_those_and_no_others(run_cli, tiny, make_clip, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(make_clip(3), folder / "good.avi")
    for name in ("empty.avi", "sub/late.avi"):
        (folder / name).touch()
    options = ["-o", out, "--model", tiny, *QUIET]
    assert run_cli("run", folder, *options)[0] == 3
    shutil.copy(make_clip(4), folder / "sub/late.avi")
    (folder / "new.avi").touch()  # not of that run
    code, text, _ = run_cli("run", "--only-failed", "--json", *options)
    ended = {event["id"]: event for event in map(json.loads, text.splitlines()) if event["event"] == "video_ended"}
    assert (code, {id_: event["status"] for id_, event in ended.items()}) == (
        3,
        {"empty": "failed", "sub_late": "done"},
    )
    statuses = {video.id: (video.status, len(video)) for video in open_run(out).videos}
    assert statuses == {"good": ("done", 3), "empty": ("failed", 0), "sub_late": ("done", 4)}
    shutil.copy(make_clip(5), folder / "empty.avi")
    code, text, _ = run_cli("run", folder / "good.avi", folder / "sub", "--only-failed", *options)
    assert (code, text) == (0, f"{out}: none of these inputs failed in it; nothing to do\n")
    assert run_cli("run", folder / "empty.avi", folder / "good.avi", "--only-failed", *options)[0] == 0
    assert len(open_run(out)["empty"]) == 5
    code, text, _ = run_cli("run", "--only-failed", *options)
    assert (code, text) == (0, f"{out}: none of its inputs failed; nothing to do\n")
    code, text, _ = run_cli("run", "--only-failed", "--json", *options)
    assert (code, json.loads(text)["event"]) == (0, "run_ended")


def test_only_failed_goes_on_where_it_was_stopped(run_cli, tiny, make_clip, tmp_path, monkeypatch):
    def stopped(path, drawn_by, parts, video):
        yield 0.0
        os.kill(os.getpid(), signal.SIGINT)
        yield 0.5

    (tmp_path / "bad.avi").touch()
    options = ["-o", tmp_path / "out", "--model", tiny]
    assert run_cli("run", tmp_path / "bad.avi", *options)[0] == 3
    shutil.copy(make_clip(4), tmp_path / "bad.avi")
    with monkeypatch.context() as patch:
        patch.setattr(overlay_piece, "join_pieces", stopped)
        assert run_cli("run", "--only-failed", *options)[0] == 130
    assert open_run(tmp_path / "out")["bad"].status == "partial"
    assert run_cli("run", "--only-failed", *options)[0] == 0
    video = open_run(tmp_path / "out")["bad"]
    assert (video.status, video.files.overlay.is_file()) == ("done", True)


def test_only_failed_knows_an_input_by_its_path_where_its_id_came_from_a_collision(run_cli, tiny, tmp_path):
    for name in ("a/clip.avi", "b/clip.avi"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    options = ["-o", tmp_path / "out", "--model", tiny, *QUIET]
    run_cli("run", tmp_path / "a/clip.avi", tmp_path / "b/clip.avi", *options)
    ids = [video.id for video in open_run(tmp_path / "out").videos]
    assert len(set(ids)) == 2
    run_cli("run", tmp_path / "b/clip.avi", "--only-failed", *options)
    assert [video.id for video in open_run(tmp_path / "out").videos] == [ids[1], ids[0]]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only-failed"], "--only-failed: expected -o with the folder of an earlier run; found none"),
        (["--only-failed", "-o", "OUT"], "expected a run's folder; found no run.yaml in it"),
        (["--only-failed", "-o", "OUT", "--force"], "found --force, which would run the other inputs, too"),
        (["-o", "OUT"], "expected at least one SOURCE; found none"),
    ],
)
def test_wrong_use_is_one_clear_line(run_cli, tiny, tmp_path, arguments, says):
    call = [str(tmp_path / "out") if argument == "OUT" else argument for argument in arguments]
    code, _, error = run_cli("run", *call, "--model", tiny)
    assert (code, error.count("\n")) == (2, 1), error
    assert says in error
    assert not (tmp_path / "out").exists()


def test_a_failed_image_sequence_wants_its_source_named(run_cli, tiny, tmp_path):
    (tmp_path / "shots").mkdir()
    (tmp_path / "shots/1.png").write_bytes(b"no picture")
    options = ["-o", tmp_path / "out", "--model", tiny, *QUIET]
    assert run_cli("run", tmp_path / "shots", *options)[0] == 3
    code, _, error = run_cli("run", "--only-failed", *options)
    assert (code, error) == (
        2, "deltascene: --only-failed: shots is an image sequence; name its SOURCE again to have it done\n",
    )  # fmt: skip
    assert run_cli("run", tmp_path / "shots", "--only-failed", *options)[0] == 3


def test_jobs_of_a_finished_run(run_cli, tiny, make_clip, tmp_path):
    (tmp_path / "empty.mp4").touch()
    code, told, _ = run_cli("run", make_clip(6), tmp_path / "empty.mp4", "-o", tmp_path / "out", "--model", tiny)
    code, text, _ = run_cli("jobs", tmp_path / "out")
    assert code == 0
    assert text.splitlines()[-1] == "not under way: 1 failed, 1 done"
    assert text.splitlines()[:-1] == [line for line in told.splitlines() if line in text]  # the run ended with it
    assert [line.split()[0] for line in text.splitlines()[:-1]] == ["id", "clip", "empty"]
    code, text, _ = run_cli("jobs", tmp_path / "out", "--json")
    data = json.loads(text)
    assert (data["running"], data["inputs"]["done"], data["inputs"]["failed"]) == (False, 1, 1)
    done, failed = data["jobs"]
    assert (done["frames"], done["computed"], done["selected"], done["retries"]) == (6, 6, 6, 0)
    assert done["fps"] == pytest.approx(6 / done["seconds"])
    assert (failed["status"], failed["fps"]) == ("failed", None)
    assert "found an empty file" in failed["cause"]
    assert run_cli("jobs", tmp_path)[0] == 2


def test_jobs_of_a_run_that_is_under_way_then_killed(run_cli, tiny, make_clip, tmp_path):
    """Another terminal sees what is sealed, what waits and how long it will take; after the kill it isn't running."""
    out, clip = tmp_path / "out", make_clip(2000, name="long")
    (tmp_path / "empty.mp4").touch()
    command = ["run", tmp_path / "empty.mp4", clip, make_clip(3, name="next"), "-o", out, "--model", tiny, *QUIET]
    command = [str(argument) for argument in [*command, "--set", "segment.frames=8"]]
    process = subprocess.Popen([sys.executable, "-c", EAGER, *command], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline
            data = json.loads(text) if (text := run_cli("jobs", out, "--json")[1]) else {"jobs": []}
            jobs = {job["id"]: job for job in data["jobs"]}
            if jobs.get("long", {}).get("left_s") and jobs["long"]["sealed"]:
                break
        assert {id_: job["status"] for id_, job in jobs.items()} == {
            "empty": "failed", "long": "running", "next": "waiting",
        }  # fmt: skip
        long = jobs["long"]
        assert data["running"]
        assert long["selected"] == 2000
        assert 0 < long["sealed"] < 2000
        assert long["left_s"] == pytest.approx((2000 - long["sealed"]) / long["fps"])
        assert data["left_s"] > long["left_s"]
        table = run_cli("jobs", out)[1]
        assert "under way: 1 failed, 1 running, 1 waiting; about " in table
        assert " of 2000 " in table
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    data = json.loads(run_cli("jobs", out, "--json")[1])
    assert not data["running"]
    assert data["left_s"] is None
    statuses = {job["id"]: job["status"] for job in data["jobs"]}
    assert statuses == {"empty": "failed", "long": "partial", "next": "waiting"}


@pytest.mark.nightly
def test_a_stopped_run_says_what_still_waits(run_cli, tiny, make_clip, tmp_path):
    out = tmp_path / "out"
    command = ["run", make_clip(2000, name="long"), make_clip(3, name="next"), "-o", out, "--model", tiny, *QUIET]
    command = [str(argument) for argument in [*command, "--json", "--set", "segment.frames=8"]]
    process = subprocess.Popen([sys.executable, "-m", "deltascene", *command], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if json.loads(line)["event"] == "frame" and (out / "videos/long/segments/00000008.zip").exists():
            process.send_signal(signal.SIGINT)
            break
    process.communicate(timeout=60)
    assert process.returncode == 130
    text = run_cli("jobs", out)[1]
    assert text.splitlines()[-1] == "not under way: 1 partial, 1 waiting"
    data = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert [video["status"] for video in data["videos"]] == ["partial", "waiting"]


def test_resume_of_many_done_inputs_is_brief(run_cli, tiny, make_clip, tmp_path, monkeypatch):
    """More inputs than are told one by one: all done by an earlier run, told in the total and the table alone."""
    monkeypatch.setattr(build, "DETAILED_CAP", 3)  # pictures of a section cost a process each
    clip, folder, out = make_clip(2), tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    shutil.copy(clip, folder / "v0.avi")
    options = ["-o", out, "--model", tiny, *QUIET]
    assert run_cli("run", folder, *options)[0] == 0
    done = (out / "videos/v0/done.json").read_text(encoding="utf-8")
    for number in range(1, 60):
        shutil.copy(clip, folder / f"v{number}.avi")
        shutil.copytree(out / "videos/v0", out / f"videos/v{number}")
        (out / f"videos/v{number}/done.json").write_text(done.replace('"id": "v0"', f'"id": "v{number}"'))
    code, text, _ = run_cli("run", folder, *options)
    assert code == 0
    assert not any(line.startswith("v1: ") for line in text.splitlines())
    assert "60 of 60 inputs done, 120 frames" in text
    assert len(text.splitlines()) < 50
    html = (out / "report.html").read_text(encoding="utf-8")
    assert html.count('<details class="video"') == 3
    assert "3 of 60 have a section below" in html


def test_segments_done_again_are_counted_and_a_video_that_loses_every_worker_says_so(
    run_cli, tiny, make_clip, tmp_path, monkeypatch
):
    """A worker whose worker goes in the middle of a segment, as one of actors tells it; all else is the real run."""
    real_run, losses = LocalWorker.run, {("twice", 8): 2, ("always", 0): 99}

    def run(self, job, segment):
        for place, done in enumerate(real_run(self, job, segment)):
            if place == 3 and losses.get((job.id, segment.start), 0):
                losses[job.id, segment.start] -= 1
                raise WorkerLost("a worker of the run died")
            yield done

    monkeypatch.setattr(LocalWorker, "run", run)
    clips = [make_clip(20, name=name) for name in ("twice", "always", "never")]
    options = ["-o", tmp_path / "out", "--model", tiny, "--set", "segment.frames=8", *QUIET]
    code, text, _ = run_cli("run", *clips, *options)
    assert code == 3
    records = {video.id: video.record for video in open_run(tmp_path / "out").videos}
    assert {id_: (each.status, each.retries) for id_, each in records.items()} == {
        "twice": ("done", 2), "always": ("failed", 2), "never": ("done", 0),
    }  # fmt: skip
    assert {id_: each.computed for id_, each in records.items()} == {"twice": 20, "always": 3, "never": 20}
    assert all(each.seconds > 0 and each.selected == 20 for each in records.values())
    assert "twice: done, 20 frames, a segment computed again 2 times" in text
    assert "4 segments computed again after a worker was lost" in text
    monkeypatch.undo()
    code, text, _ = run_cli("run", "--only-failed", "--json", *options)
    events = [json.loads(line) for line in text.splitlines()]
    assert (code, events[-1]["retries"], events[-1]["computed"]) == (0, 0, 20)
