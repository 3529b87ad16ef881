"""What lies in a run's folder and isn't as a run writes it: one clear error, no hang, nothing made up."""

import json
import os
import shutil
import socket
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.runs.folder import RunFolder, read_run_yaml
from deltascene.pipeline.runs.lock import locked, writing
from deltascene.pipeline.runs.reader import open_run
from deltascene.pipeline.runs.videos_table import VideoRecord, record_of

QUIET = ["--set", "save.video=false", "--set", "numerics.threads=1", "--dtype", "float32"]
RECORD = VideoRecord("clip", "clip.avi", "done", frames=4, fps=10.0)


@pytest.mark.parametrize(
    "change",
    [
        {"frames": "4"},
        {"frames": -1},
        {"frames": True},
        {"id": None},
        {"fps": float("nan")},
        {"status": "x"},
    ],
)
def test_a_record_is_as_a_run_writes_it(change):
    assert record_of(asdict(RECORD)) == RECORD
    with pytest.raises(ValueError, match=r"expected .*; found "):
        record_of(asdict(RECORD) | change)


def test_a_table_with_other_columns_is_refused(tmp_path):
    (tmp_path / "run.yaml").write_text("key: {}\n")
    pq.write_table(pa.Table.from_pylist([{"id": "clip", "frames": 1}]), tmp_path / "videos.parquet")
    with pytest.raises(OutputError, match=r"videos\.parquet: source: expected"):
        _ = open_run(tmp_path).videos


@pytest.mark.parametrize("text", ["[" * 100_000, "a: &a [x]\nb: *a\n", "!!python/name:os.system", "a: \x00", "1"])
def test_run_yaml_of_a_stranger(tmp_path, text):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(OutputError, match=r"run\.yaml: ") as caught:
        read_run_yaml(RunFolder(tmp_path))
    assert len(str(caught.value)) < 400


def test_run_yaml_that_is_a_pipe_is_none(tmp_path):
    os.mkfifo(tmp_path / "run.yaml")
    with pytest.raises(OutputError, match=r"found no run\.yaml"):
        read_run_yaml(RunFolder(tmp_path))


def test_a_lock_that_is_a_pipe_is_nobodys(tmp_path):
    (tmp_path / "locks").mkdir()
    os.mkfifo(tmp_path / "locks/00000003.json")
    assert not writing(tmp_path)
    with pytest.raises(OutputError, match=r"found a pipe or a device; remove it"), locked(tmp_path):
        pass


@pytest.mark.parametrize("pid", [-1, 0, None, [1], "1", 10**30])
def test_a_lock_of_no_process_is_taken_over(tmp_path, pid):
    note = {"token": "x", "pid": pid, "host": socket.gethostname()}
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks/00000003.json").write_text(json.dumps(note | {"beat_s": 1e12}))
    with locked(tmp_path):
        assert json.loads((tmp_path / "locks/00000004.json").read_text())["pid"] == os.getpid()


@pytest.fixture(scope="module")
def finished(run_cli, tiny, make_clip, tmp_path_factory) -> tuple[list[object], Path]:
    out = tmp_path_factory.mktemp("finished") / "out"
    call = ["run", make_clip(4), "--model", tiny, *QUIET]
    assert run_cli(*call, "-o", out)[0] == 0
    return call, out


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("videos/clip/done.json", "[" * 100_000),
        ("videos/clip/done.json", '{"frames": 1e99}'),
        ("videos/clip/done.json", '{"format": 2, "segments": [[0, -1]], "files": {"../x": [0, "0"]}}'),
        ("videos/clip/predictions.zarr/zarr.json", "\x00"),
        ("videos/clip/predictions.zarr/parts/zarr.json", "{}"),
        ("videos/clip/activations.zarr/segments/00000000.zip", "[]"),
        ("videos/clip/frames.parquet", "PAR1"),
        ("videos.parquet", ""),
    ],
)
def test_commands_on_a_damaged_run_end_with_a_line(run_cli, finished, tmp_path, name, text):
    call, first = finished
    out = tmp_path / "out"
    shutil.copytree(first, out)
    (out / name).write_text(text)
    for command in (["report", out], ["cache", "verify", out], [*call, "-o", out]):
        code, _, error = run_cli(*command)
        assert code in (0, 2, 3), error
        assert error.count("\n") == (code == 2)
    assert run_cli(*call, "-o", out, "--force")[0] == 0


def test_file_names_that_are_not_utf8(run_cli, tiny, make_clip, tmp_path):
    """OpenCV takes none of them by name: they are read by their descriptors, and told with their bytes spelled out."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in (b"\xff\xfe.avi", b"\xff!.avi", b"\xff\x1b[2J.avi", b"good.avi"):
        shutil.copy(make_clip(2), os.fsencode(folder) + b"/" + name)
    code, out, error = run_cli("run", folder, "-o", tmp_path / "out", "--model", tiny, *QUIET)
    assert code == 0, error
    assert "\x1b" not in out + error
    videos = open_run(tmp_path / "out").videos
    assert [video.status for video in videos] == ["done"] * 4
    assert sum("\\xff" in video.source for video in videos) == 3
