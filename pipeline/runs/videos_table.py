"""`videos.parquet`: one row per input of a run, updated while the run goes on.

A run may have many thousand inputs, so the file isn't written anew for each of them. It is written at the start, with
every input as `waiting`, then at most every few seconds, and at the end, also after an error. A run that is killed
loses no finished video: readers look into the `done.json` of a video that the file has as unfinished.
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

STATUSES = ("done", "failed", "unreadable", "partial", "waiting", "running")
FAILED = ("failed", "unreadable")


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One row of `videos.parquet`.

    Attributes:
        id: name of its folder.
        source: path or URL of the input.
        status: `done`, `failed`, `unreadable` (it is finished, and none of its frames is valid), `partial` (stopped
            before its end), `waiting` (no worker took it yet) or `running`.
        cause: why it failed or is unreadable, or `truncated`; for a waiting input, why it failed in an earlier run.
        frames: number of processed frames that can be read.
        invalid: number of these that show something other than what the camera saw.
        fps: processed frames per second of the source.
        identity: quick hash of the input's content.
        identity_full: hash of every byte of it; empty if no run with `--verify full` computed it.
        retries: how often a segment was computed again because a worker was lost.
        seconds: wall-clock time from when a worker took its first segment until it ended, with drawing. Workers may
            have computed other videos in that time, so the sum over all videos may exceed the duration of the run.
        computed: number of frames computed in that time, without those that an earlier run had sealed.
        selected: number of frames that are to be processed; 0 if it isn't known.
        notes: what to know of its times: gaps, and where recordings were joined; empty if there is nothing.

    `retries`, `seconds` and `computed` describe the last run that computed any of its frames.
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
    notes: str = ""

    @property
    def failed(self) -> bool:
        """Whether nothing came of the input: it failed, or is unreadable."""
        return self.status in FAILED

    @property
    def without_valid(self) -> bool:
        """Whether it has frames, and none of them is valid."""
        return 0 < self.frames == self.invalid


_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "source", "status", "cause")),
        *((name, pa.int64()) for name in ("frames", "invalid")),
        ("fps", pa.float64()),
        *((name, pa.string()) for name in ("identity", "identity_full")),
        ("retries", pa.int64()),
        ("seconds", pa.float64()),
        *((name, pa.int64()) for name in ("computed", "selected")),
        ("notes", pa.string()),
    ]
)
_NAMES = tuple(field.name for field in fields(VideoRecord))
_TYPES = {field.name: type(getattr(VideoRecord("", "", ""), field.name)) for field in fields(VideoRecord)}
_LATER = {"identity_full": "", "notes": ""}  # fields that records of earlier versions lack


def record_of(row: Mapping[str, Any]) -> VideoRecord:
    """Makes a record of a row or a `done.json` and checks every value; other values are ignored.

    Raises:
        ValueError: a value is missing or has another type; the message is one line.
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
    """The rows of a `videos.parquet`; an empty list if there is no such file.

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
    """The rows of a run's inputs; a context manager that writes the file at its end.

    Rows of other inputs that an earlier run left in the same folder are kept.

    Attributes:
        every_s: seconds between two writes, at least.
        share: share of the run's time that writing may take.
    """

    every_s = 5.0
    share = 0.02

    def __init__(self, path: Place, inputs: Sequence[VideoRecord]) -> None:
        """Reads the rows of an earlier run and writes the file with all inputs.

        Args:
            path: path of `videos.parquet`.
            inputs: a waiting record of every input.

        Raises:
            OutputError: the file there is damaged.
        """
        before = {record.id: record for record in read_records(path)}
        self._path = path
        self._rows = {record.id: _at_start(record, before.get(record.id)) for record in inputs}
        self._rows |= {id_: record for id_, record in before.items() if id_ not in self._rows}
        self._write()

    def put(self, record: VideoRecord) -> None:
        """Replaces the row of an input that ended."""
        self._rows[record.id] = record

    def keep(self, running: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes the file if the last write is long enough ago.

        Args:
            running: fields of the rows of all videos under way, by id.
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
    """Row of an input when a run starts: a finished one stays, a failed or unreadable one waits to be tried again."""
    if before is None:
        return record
    if before.failed or before.status == "waiting":
        return replace(record, cause=before.cause)
    return replace(before, status="partial") if before.status == "running" else before
