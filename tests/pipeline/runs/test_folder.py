"""What lies in a run's folder and isn't as a run writes it: one clear error, no hang, nothing made up."""

import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.runs.folder import RunFolder, read_run_yaml
from deltascene.pipeline.runs.reader import open_run

QUIET = ["--set", "save.video=false", "--set", "numerics.threads=1", "--dtype", "float32"]


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


def test_files_say_their_schema_and_a_newer_ledger_is_told_in_a_line(run_cli, finished, tmp_path):
    out = shutil.copytree(finished[1], tmp_path / "out")
    ledger = out / "videos/clip/frames.parquet"
    table = pq.read_table(ledger)
    assert table.schema.metadata == {b"schema_version": b"1"}
    assert json.loads((out / "report.json").read_text())["schema_version"] == 1
    assert read_run_yaml(RunFolder(out))["schema_version"] == 1
    for version, code in ((b"new", 0), (b"2", 2)):
        pq.write_table(table.replace_schema_metadata({"schema_version": version}), ledger)
        found, _, error = run_cli("report", out)
        assert (found, error.count("\n")) == (code, code == 2)
    assert "frames.parquet: was written by a newer deltascene: schema_version 2, " in error


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
