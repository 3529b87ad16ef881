"""Links in OUT: nothing is written or removed where they lead."""

import os
import shutil
from pathlib import Path

import pytest

from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.runs.links import refuse_links

QUIET = ["--set", "save.video=false", "--set", "numerics.threads=1", "--preset", "balanced", "--dtype", "float32"]


@pytest.fixture(scope="module")
def clip(make_clip) -> Path:
    return make_clip(4)


@pytest.fixture(scope="module")
def finished(run_cli, tiny, clip, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    assert run_cli("run", clip, "-o", out, "--model", tiny, *QUIET)[0] == 0
    return out


@pytest.mark.parametrize(
    "name",
    [
        "videos",
        "videos/clip",
        "videos/clip/activations.zarr/segments",
        "videos/clip/predictions.zarr/parts/c",
        "videos/clip/activations.zarr",
        "locks",
        "errors.jsonl",
        "videos.parquet.part",
    ],
)
def test_no_command_follows_one(run_cli, tiny, clip, finished, tmp_path, name):
    out, other = tmp_path / "out", tmp_path / "other"
    shutil.copytree(finished, out)
    source = out / name
    if source.is_dir():
        shutil.move(source, other)  # what is linked looks just as the command expects it
    else:
        other.write_text("not yours")
    source.unlink(missing_ok=True)
    source.symlink_to(other)
    before = look(other)
    ways = (["--force", "--stride", "2"], ["--force"], [])
    calls = [["run", clip, "-o", out, "--model", tiny, *QUIET, *way] for way in ways]
    for call in (*calls, ["cache", "gc", out, "--budget", "0"]):
        code, _, error = run_cli(*call)
        assert code in (0, 2), error  # --force may remove the link itself
        assert look(other) == before


def look(path: Path) -> dict[str, tuple[int, int]]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {str(file): (file.lstat().st_size, file.lstat().st_mtime_ns) for file in files if not file.is_dir()}


def test_pipes_are_refused_and_plain_trees_are_not(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").touch()
    refuse_links(tmp_path, below=True)
    refuse_links(tmp_path / "nowhere", below=True)
    os.mkfifo(tmp_path / "a" / "b" / "d")
    refuse_links(tmp_path)
    with pytest.raises(OutputError, match=r"a/b/d: expected a file or folder of a run; found a pipe or a device"):
        refuse_links(tmp_path, below=True)


@pytest.mark.parametrize(
    "name",
    ["locks/00000001.json", "videos/clip/frames.parquet", "videos/clip/predictions.zarr/parts/zarr.json", "CHUNK"],
)
def test_reading_does_not_wait_for_a_pipe(run_cli, finished, tmp_path, name):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    [chunk, *_] = [path for path in (out / "videos/clip/predictions.zarr/parts/c").rglob("*") if path.is_file()]
    path = chunk if name == "CHUNK" else out / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    code, _, error = run_cli("report", out)
    assert code == (0 if name.startswith("locks") else 2), error
    assert error.count("\n") == (code == 2)


def test_out_itself_may_be_a_link(run_cli, tiny, clip, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    assert run_cli("run", clip, "-o", tmp_path / "out", "--model", tiny, *QUIET)[0] == 0
