"""An input that fails ends alone; what concerns the whole run ends it."""

import json
import os
import shutil
import subprocess
import time
from errno import EDQUOT, EIO, ENOSPC
from pathlib import Path

import pytest

from deltascene import NotPredicted, open_run
from deltascene.pipeline.batch.failures import failing
from deltascene.pipeline.errors import DiskFull, NoCapacity, OutputError, WorkerLost
from deltascene.pipeline.runs.folder import RunFolder
from deltascene.pipeline.sources.errors import UnreadableSource
from deltascene.pipeline.sources.spec import SourceSpec

# float32, as on a busy machine two runs may not find the same type faster.
QUIET = ["--set", "save.video=false", "--set", "numerics.threads=1", "--dtype", "float32"]
SPEC = SourceSpec("clip", "video", (Path("/in/clip.avi"),))


@pytest.mark.parametrize(
    "error", [UnreadableSource("no\n\x1b[2J video"), WorkerLost("gone"), OSError(EIO, "input/output error")]
)
def test_an_error_of_one_input_is_its_record_and_a_line(tmp_path, error):
    records = []
    with failing(RunFolder(tmp_path), SPEC, records.append):
        raise error
    (record,) = records
    assert (record.id, record.source, record.status) == ("clip", "/in/clip.avi", "failed")
    assert record.cause.isprintable()
    (line,) = (tmp_path / "errors.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert found == found | {"id": "clip", "error": record.cause, "type": type(error).__name__}


@pytest.mark.parametrize("error", [OutputError("other"), DiskFull("full"), NoCapacity("no room"), KeyError("x")])
def test_an_error_of_the_whole_run_is_raised(tmp_path, error):
    records = []
    with pytest.raises(type(error)), failing(RunFolder(tmp_path), SPEC, records.append):
        raise error
    assert not records
    assert not (tmp_path / "errors.jsonl").exists()


@pytest.mark.parametrize("number", [ENOSPC, EDQUOT])
def test_a_write_without_room_is_a_full_disk(tmp_path, number):
    with (
        pytest.raises(DiskFull, match="no room left on the disk; finished segments are kept"),
        failing(RunFolder(tmp_path), SPEC, lambda record: None),
    ):
        raise OSError(number, "no room")


def test_an_input_that_does_not_fail_leaves_no_line(tmp_path):
    records = []
    with failing(RunFolder(tmp_path), SPEC, records.append):
        pass
    assert not records
    assert not (tmp_path / "errors.jsonl").exists()


def test_one_bad_file_does_not_stop_the_rest(run_cli, tiny, make_clip, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(make_clip(3), folder / "good.avi")
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no video\n" * 99)
    shutil.copy(make_clip(3, size=(14, 14), name="small"), folder / "small.avi")
    code, text, error = run_cli("run", folder, "-o", tmp_path / "out", "--model", tiny, *QUIET)
    assert code == 3
    assert "Traceback" not in text + error
    statuses = {video.id: video.status for video in open_run(tmp_path / "out").videos}
    assert statuses == {"good": "done", "empty": "failed", "text": "failed", "small": "failed"}
    lines = [json.loads(line) for line in (tmp_path / "out/errors.jsonl").read_text().splitlines()]
    assert {line["id"] for line in lines} == {"empty", "text", "small"}
    assert all("\n" not in line["error"] for line in lines)
    assert "at least one patch, 16x16 pixels; found 14x14" in text
    with pytest.raises(NotPredicted, match="its status is failed"):
        open_run(tmp_path / "out")["text"].frame(0) if len(open_run(tmp_path / "out")["text"]) else open_run(
            tmp_path / "out"
        )["text"].arrays


def test_one_failed_input_alone_is_exit_3(run_cli, tiny, tmp_path):
    (tmp_path / "empty.mp4").touch()
    assert run_cli("run", tmp_path / "empty.mp4", "-o", tmp_path / "out", "--model", tiny)[0] == 3


@pytest.mark.skipif(os.geteuid() != 0 if hasattr(os, "geteuid") else True, reason="a small disk needs mount rights")
def test_a_full_disk_is_exit_4_and_loses_no_sealed_segment(run_cli, tiny, make_clip, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("mount isn't allowed here")
    try:
        clip, options = make_clip(160), ["--model", tiny, "--preset", "exact", "--set", "segment.frames=16", *QUIET]
        code, text, error = run_cli("run", clip, "-o", small / "out", *options)
        assert (code, error.count("\n")) == (4, 1), text + error
        assert "its archive takes" in error
        options.append("--no-archive")
        code, text, error = run_cli("run", clip, "-o", small / "out", *options)
        assert (code, error.count("\n")) == (4, 1), text + error
        assert "no room left" in error
        seals = list((small / "out/videos/clip/segments").glob("*.zip"))
        assert 1 <= len(seals) < 10
        shutil.copytree(small / "out", tmp_path / "roomy")
        _, text, _ = run_cli("run", clip, "-o", tmp_path / "roomy", "--json", *options)
        assert json.loads(text.splitlines()[0])["sealed"] >= 16 * (len(seals) - 1)
        assert len(open_run(tmp_path / "roomy")["clip"]) == 160
    finally:
        deadline = time.monotonic() + 20
        while subprocess.run(["umount", small], capture_output=True).returncode and time.monotonic() < deadline:
            time.sleep(0.2)


def test_nothing_between_start_and_end_is_a_failed_input_and_json_says_why(run_cli, tiny, make_clip, tmp_path):
    code, text, _ = run_cli("run", make_clip(3), "-o", tmp_path / "out", "--model", tiny, "--start", "99", "--json")
    events = [json.loads(line) for line in text.splitlines()]
    assert code == 3
    assert events[0]["status"] == "failed"
    assert "0.3 s long" in events[0]["cause"]
