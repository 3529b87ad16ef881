"""`videos.parquet`: one row per input of a run, kept while the run goes on.

A run may have many thousand inputs, so the file isn't written whole for each of them: it is written at the start (every
input is there, as `waiting`), then at most every few seconds, and at the end, however the run ends. A run that is
killed loses none of what it finished: `done.json` of the video says so, and whoever reads the rows looks there.
"""

import io
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, fields, replace
from math import isfinite
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from deltascene.cache.places import Place, write_whole
from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.runs.ledger import read_parquet
from deltascene.pipeline.text import one_line, shown

STATUSES = ("done", "failed", "partial", "waiting", "running")


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One row of `videos.parquet`.

    Attributes:
        id: name of its folder.
        source: where it came from.
        status: `done`, `failed`, `partial` (stopped before its end), `waiting` (no worker took it yet) or `running`.
        cause: why it failed, or `truncated`; of one that waits, why an earlier run failed at it.
        frames: processed frames that can be read.
        invalid: of these, frames that weren't what the camera saw.
        fps: of the processed frames.
        identity: quick hash of the input's content.
        identity_full: hash of every byte of it; empty where no run with `--verify full` looked at it.
        retries: how often a segment of it was done again because a worker was lost.
        seconds: wall-clock time from when a worker took its first segment to its end, pictures drawn included. Workers
            may have computed other videos meanwhile, so the seconds of all videos may add up to more than the run took.
        computed: frames that were computed in that time; those that an earlier run had sealed aren't among them.
        selected: frames that are to be processed; 0 where that isn't known.

    Retries, seconds and computed are of the last run that computed any of it.
    """

    id: str
    source: str
    status: str
    cause: str = ""
    frames: int = 0
    invalid: int = 0
    fps: float = 0.0
    identity: str = ""
    identity_full: str = ""
    retries: int = 0
    seconds: float = 0.0
    computed: int = 0
    selected: int = 0


_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "source", "status", "cause")),
        *((name, pa.int64()) for name in ("frames", "invalid")),
        ("fps", pa.float64()),
        *((name, pa.string()) for name in ("identity", "identity_full")),
        ("retries", pa.int64()),
        ("seconds", pa.float64()),
        *((name, pa.int64()) for name in ("computed", "selected")),
    ]
)
_NAMES = tuple(field.name for field in fields(VideoRecord))
_TYPES = {field.name: type(getattr(VideoRecord("", "", ""), field.name)) for field in fields(VideoRecord)}
_LATER = {"identity_full": ""}  # what records of earlier versions lack


def record_of(row: Mapping[str, Any]) -> VideoRecord:
    """A record from a row or a `done.json`, once every value is of its kind; what is there besides is left alone.

    Raises:
        ValueError: one isn't; one line.
    """
    row = {**_LATER, **row}
    for name, wanted in _TYPES.items():
        if name not in row or type(row[name]) is not wanted:
            raise ValueError(f"{name}: expected a value as a run writes it; found {shown(row.get(name))}")
    record = VideoRecord(**{name: row[name] for name in _NAMES})
    if record.status not in STATUSES or record.frames < 0 or not isfinite(record.fps):
        raise ValueError(f"{shown(record.id)}: expected status, frames and fps; found {one_line(record, 200)}")
    return record


def read_records(path: Place) -> list[VideoRecord]:
    """The rows of a `videos.parquet`; none where there is no such file.

    Raises:
        OutputError: it is damaged.
    """
    rows = read_parquet(path).to_pylist() if path.is_file() else []
    try:
        return [record_of(row) for row in rows]
    except ValueError as error:
        raise OutputError(f"{path}: {error}; remove it and run the same command again") from error


def write_records(path: Place, records: Iterable[VideoRecord]) -> None:
    """Writes `videos.parquet` whole."""
    data, rows = io.BytesIO(), list(records)
    columns = {name: [getattr(record, name) for record in rows] for name in _NAMES}
    pq.write_table(pa.table(columns, schema=_SCHEMA), data)
    write_whole(path, data.getvalue())


class VideosTable:
    """The rows of a run's inputs, written now and then while it goes on; a context manager that writes at its end.

    Rows of other inputs that an earlier run left in the same folder stay.
    """

    every_s = 5.0
    share = 0.02  # most of the time that writing may take

    def __init__(self, path: Place, inputs: Sequence[VideoRecord]) -> None:
        """Reads what an earlier run left, and writes all inputs down.

        Args:
            path: of `videos.parquet`.
            inputs: of this run, as they are before anything is known of them.

        Raises:
            OutputError: the file there is damaged.
        """
        before = {record.id: record for record in read_records(path)}
        self._path = path
        self._rows = {record.id: _at_start(record, before.get(record.id)) for record in inputs}
        self._rows |= {id_: record for id_, record in before.items() if id_ not in self._rows}
        self._write()

    def put(self, record: VideoRecord) -> None:
        """An input has come to its end."""
        self._rows[record.id] = record

    def keep(self, running: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes the file if that is due.

        Args:
            running: of every video under way, by id, what its row says of it so far.
        """
        if time.perf_counter() < self._due:
            return
        for id_, so_far in running.items():
            self._rows[id_] = replace(self._rows[id_], status="running", cause="", **so_far)
        self._write()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for id_, record in self._rows.items():
            if record.status == "running":
                self._rows[id_] = replace(record, status="partial")
        with suppress(OSError) if error is not None else nullcontext():  # a full disk must not hide why the run ended
            self._write()

    def _write(self) -> None:
        began = time.perf_counter()
        write_records(self._path, self._rows.values())
        ended = time.perf_counter()
        self._due = ended + max(self.every_s, (ended - began) / self.share)


def _at_start(record: VideoRecord, before: VideoRecord | None) -> VideoRecord:
    """What is known of an input when a run starts: what is finished of it stays, a failure is tried again."""
    if before is None:
        return record
    if before.status in ("failed", "waiting"):
        return replace(record, cause=before.cause)
    return replace(before, status="partial") if before.status == "running" else before
