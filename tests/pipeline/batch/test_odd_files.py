"""Whole runs of files that video tools get wrong: in pieces, in parts, resumed or over Ray they equal one pass."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from equal_runs import compare_runs

from deltascene import open_run

pytestmark = pytest.mark.nightly
FOLDER = Path(__file__).parents[2] / "data" / "odd_videos"
# float32, as on a busy machine two runs may not find the same type faster.
QUIET = ["--set", "save.video=false", "--set", "numerics.threads=1", "--dtype", "float32"]
IN_PIECES = [*QUIET, "--set", "segment.frames=7"]


@pytest.fixture(scope="module")
def call(tiny) -> list[Any]:
    return ["run", FOLDER, "--model", tiny]


@pytest.fixture(scope="module")
def one_pass(run_cli, call, tmp_path_factory) -> Path:
    """Every frame of every file, in one segment each."""
    out = tmp_path_factory.mktemp("one_pass") / "out"
    code, _, error = run_cli(*call, "-o", out, *QUIET)
    assert code == 0, error
    joined = open_run(out)["cat_overlap"].record.notes
    assert joined == "another recording begins at 1.20 s: its clock jumps by -0.94 s"
    assert f'<p class="soft">{joined}</p>' in (out / "report.html").read_text(encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def in_pieces(run_cli, call, tmp_path_factory) -> Path:
    """The same in segments of seven frames."""
    out = tmp_path_factory.mktemp("in_pieces") / "out"
    code, _, error = run_cli(*call, "-o", out, *IN_PIECES)
    assert code == 0, error
    return out


def assert_part_of(whole: Path, part: Path) -> None:
    """A dense run knows nothing of other frames, so each of its frames is that of any other dense run."""
    ours, theirs = open_run(whole), open_run(part)
    assert [video.id for video in theirs.videos] == [video.id for video in ours.videos]
    for video in theirs.videos:
        rows = np.searchsorted(ours[video.id].arrays.index, video.arrays.index)
        names = [name for task in video.arrays.valid for name in (task, f"valid/{task}")]
        for name in (*names, "index", "pts_s"):
            wanted, found = (each.arrays._read(name) for each in (ours[video.id], video))
            assert wanted[rows].tobytes() == found.tobytes(), f"{video.id}: {name}"


def test_pieces_are_parts_of_one_pass(one_pass, in_pieces):
    assert len(list(open_run(one_pass).videos)) == 13
    assert [len(video) for video in open_run(in_pieces).videos] == [len(video) for video in open_run(one_pass).videos]
    assert_part_of(one_pass, in_pieces)


@pytest.mark.parametrize(
    "part", [["--start", "0.35"], ["--stride", "4"], ["--start", "0.2", "--end", "0.8", "--stride", "3"]]
)
def test_a_part_of_a_file_is_that_part_of_one_pass(run_cli, call, one_pass, tmp_path, part):
    code, _, error = run_cli(*call, "-o", tmp_path / "out", *part, *QUIET, "--set", "segment.frames=5")
    assert code == 0, error
    assert_part_of(one_pass, tmp_path / "out")


def test_resumed_segments_equal_an_undisturbed_run(run_cli, call, in_pieces, tmp_path, untidied):
    out = tmp_path / "out"
    assert run_cli(*call, "-o", out, *IN_PIECES)[0] == 0
    for folder in (out / "videos").iterdir():
        (folder / "done.json").unlink()
        for lost in sorted((folder / "segments").glob("*.zip"))[1::2]:
            lost.unlink()
    assert run_cli(*call, "-o", out, *IN_PIECES)[0] == 0
    assert not (found := compare_runs(in_pieces, out)), found


def test_segments_spread_over_ray_equal_a_local_run(run_cli, call, in_pieces, tmp_path):
    out = tmp_path / "out"
    code, _, error = run_cli(*call, "-o", out, *IN_PIECES, "--executor", "ray", "--workers", "2")
    assert code == 0, error
    assert not (found := compare_runs(in_pieces, out)), found
