"""`videos.parquet` while a run writes it: rarely, whole, and with nothing lost that a `done.json` knows."""

import json
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deltascene import open_run
from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.runs import videos_table
from deltascene.pipeline.runs.done import Done, read_done, write_done
from deltascene.pipeline.runs.folder import RunFolder
from deltascene.pipeline.runs.videos_table import VideoRecord, VideosTable, read_records, record_of, write_records

OLD = {
    "id": "a", "source": "/in/a.avi", "status": "done", "cause": "", "frames": 3, "invalid": 1, "fps": 10.0,
    "identity": "abc",
}  # fmt: skip
RECORD = VideoRecord("clip", "clip.avi", "done", frames=4, fps=10.0)


def inputs(count):
    return [VideoRecord(f"v{number}", f"/in/v{number}.avi", "waiting") for number in range(count)]


@pytest.fixture
def writes(monkeypatch):
    """How many rows each write of the file had."""
    counted, real = [], videos_table.write_records

    def count(path, records):
        rows = list(records)
        counted.append(len(rows))
        real(path, rows)

    monkeypatch.setattr(videos_table, "write_records", count)
    return counted


def test_ten_thousand_inputs_are_written_down_twice_not_ten_thousand_times(tmp_path, writes, monkeypatch):
    monkeypatch.setattr(VideosTable, "every_s", 3600.0)
    with VideosTable(tmp_path / "videos.parquet", inputs(10_000)) as table:
        assert {record.status for record in read_records(tmp_path / "videos.parquet")} == {"waiting"}
        for number in range(10_000):
            table.keep({})
            table.put(VideoRecord(f"v{number}", "s", "done", frames=number))
    assert writes == [10_000, 10_000]
    assert [record.frames for record in read_records(tmp_path / "videos.parquet")] == list(range(10_000))


def test_those_under_way_are_told_when_it_is_time_and_are_partial_after_an_exception(tmp_path, writes, monkeypatch):
    monkeypatch.setattr(VideosTable, "every_s", 0.0)
    monkeypatch.setattr(VideosTable, "share", 1e9)
    path = tmp_path / "videos.parquet"
    so_far = {"retries": 1, "seconds": 2.5, "computed": 5, "selected": 9}

    def stopped_at_once():
        with VideosTable(path, inputs(2)) as table:
            table.keep({"v1": so_far})
            assert read_records(path)[1] == VideoRecord("v1", "/in/v1.avi", "running", **so_far)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped_at_once()
    assert [record.status for record in read_records(path)] == ["waiting", "partial"]
    assert len(writes) == 3


def test_what_an_earlier_run_left_stays_until_it_is_done_again(tmp_path):
    path = tmp_path / "videos.parquet"
    before = [
        VideoRecord("v0", "/in/v0.avi", "failed", "no video"),
        VideoRecord("v1", "/in/v1.avi", "done", frames=4),
        VideoRecord("v2", "/in/v2.avi", "running", frames=2),
        VideoRecord("other", "/in/other.avi", "done", frames=7),
    ]
    write_records(path, before)
    with VideosTable(path, inputs(4)):
        pass
    found = {record.id: (record.status, record.cause, record.frames) for record in read_records(path)}
    assert found == {
        "v0": ("waiting", "no video", 0),  # will be tried again; --only-failed still finds it
        "v1": ("done", "", 4),
        "v2": ("partial", "", 2),
        "v3": ("waiting", "", 0),
        "other": ("done", "", 7),
    }


def test_records_of_an_earlier_version_are_refused_by_the_first_thing_that_lacks(tmp_path):
    pq.write_table(pa.Table.from_pylist([OLD]), tmp_path / "videos.parquet")
    with pytest.raises(OutputError, match=r"videos\.parquet: retries: expected a value as a run writes it"):
        read_records(tmp_path / "videos.parquet")
    files = RunFolder(tmp_path).video("a")
    files.root.mkdir(parents=True)
    files.done.write_text(json.dumps({"format": 1, "fingerprint": "f", **OLD}))
    assert read_done(files) is None
    done = Done(VideoRecord(**OLD), "f", [(0, OLD["frames"])], {"predictions.zarr/a/c/0": (1, "x")})
    write_done(files, done)
    assert read_done(files) == done


def test_a_damaged_file_is_said_before_the_work(tmp_path):
    (tmp_path / "videos.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(OutputError, match="found none that can be read"):
        VideosTable(tmp_path / "videos.parquet", inputs(1))


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
