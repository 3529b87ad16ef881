"""What a run leaves behind, on a disk or in an object store: where everything lies, and how to read it again.

OUT/run.yaml  videos.parquet  errors.jsonl  report.html  report.json  locks/ (pipeline/lock.py)
OUT/videos/<id>/predictions.zarr  frames.parquet  overlay.webm  accuracy.json  done.json  activations.zarr
OUT/videos/<id>/segments/<start>.zip     finished segments of a video that isn't whole yet
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BytesIO
from math import isfinite
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deltascene.cache.places import Place, place, write_whole
from deltascene.pipeline.errors import DeltasceneError, OutputError
from deltascene.pipeline.ledger import read_parquet, read_rows
from deltascene.pipeline.plain_yaml import parse_yaml, render_yaml
from deltascene.pipeline.predictions import PredictionReader
from deltascene.pipeline.problems import one_line, shown
from deltascene.stages.kinds import Kind, kind_from_description


class NotPredicted(DeltasceneError, KeyError):  # noqa: N818 - reads as what happened
    """A quantity that wasn't predicted for a frame was asked for."""

    exit_code = 2

    def __str__(self) -> str:
        return str(self.args[0])


class RunFolder:
    """Paths below an OUT folder."""

    def __init__(self, root: Place) -> None:
        self.root = root

    @property
    def run_yaml(self) -> Place:
        """Resolved config, versions, numerics, fingerprints."""
        return self.root / "run.yaml"

    @property
    def videos_parquet(self) -> Place:
        """One row per input."""
        return self.root / "videos.parquet"

    @property
    def errors_jsonl(self) -> Place:
        """One line per failed input."""
        return self.root / "errors.jsonl"

    def video(self, id_: str) -> "VideoFolder":
        """One video's folder.

        Raises:
            OutputError: the id isn't a plain name.
        """
        folder = self.root / "videos" / id_
        if id_ in ("", ".", "..") or folder.parent != self.root / "videos" or "\0" in id_:
            raise OutputError(f"video id: expected a plain name; found {id_!r}")
        return VideoFolder(folder)


class VideoFolder:
    """Paths below OUT/videos/<id>."""

    def __init__(self, root: Place) -> None:
        self.root = root
        self.predictions = root / "predictions.zarr"
        self.frames_parquet = root / "frames.parquet"
        self.overlay = root / "overlay.webm"
        self.accuracy = root / "accuracy.json"
        self.done = root / "done.json"
        self.segments = root / "segments"
        self.activations = root / "activations.zarr"

    def inside(self, name: str) -> Place:
        """A file below it, by a name that was read somewhere.

        Raises:
            OutputError: the name leads elsewhere.
        """
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise OutputError(f"{self.root}: expected a name below it; found {name!r}")
        return self.root / name

    def part(self, start: int, task: str = "") -> Place:
        """Finished segment that starts at this processed frame; with a task, what was added of it later."""
        return self.segments / f"{start:08d}{'.' if task else ''}{task}.zip"

    def added_tasks(self, starts: Sequence[int]) -> list[str]:
        """Tasks that were added later to all of these segments, by name."""
        tasks = sorted({path.name.split(".")[1] for path in self.segments.glob("*.*.zip")})
        return [task for task in tasks if all(self.part(start, task).is_file() for start in starts)]


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One row of `videos.parquet`.

    Attributes:
        id: name of its folder.
        source: where it came from.
        status: `done`, `partial` (stopped before its end) or `failed`.
        cause: why it failed, or `truncated`.
        frames: processed frames.
        invalid: of these, frames that weren't what the camera saw.
        fps: of the processed frames.
        identity: of the input's bytes.
    """

    id: str
    source: str
    status: str
    cause: str = ""
    frames: int = 0
    invalid: int = 0
    fps: float = 0.0
    identity: str = ""


def read_record(row: Mapping[str, Any]) -> VideoRecord:
    """A record from a file, once every value is of its kind.

    Raises:
        ValueError: it isn't; one line.
    """
    wanted = {name: type(value) for name, value in asdict(VideoRecord("", "", "")).items()}
    for name in (*wanted, *row):
        if name not in row or type(row[name]) is not wanted.get(name):
            raise ValueError(f"{one_line(name)}: expected a value as a run writes it; found {shown(row.get(name))}")
    if row["status"] not in ("done", "partial", "failed") or row["frames"] < 0 or not isfinite(row["fps"]):
        raise ValueError(f"{shown(row['id'])}: expected status, frames and fps; found {shown(list(row.values()))}")
    return VideoRecord(**row)


def write_videos(folder: RunFolder, records: Sequence[VideoRecord]) -> None:
    """Writes `videos.parquet` whole, merged over what an earlier run into the same folder left."""
    now = {record.id: asdict(record) | {"source": _as_utf8(record.source)} for record in records}
    merged = now | {row["id"]: row for row in _old_rows(folder) if row["id"] not in now}
    content = BytesIO()
    pq.write_table(pa.Table.from_pylist(list(merged.values())), content)
    write_whole(folder.videos_parquet, content.getvalue())


def _old_rows(folder: RunFolder) -> list[dict[str, Any]]:
    """Rows of `videos.parquet`, checked.

    Raises:
        OutputError: it is damaged.
    """
    rows = read_parquet(folder.videos_parquet).to_pylist() if folder.videos_parquet.is_file() else []
    try:
        for row in rows:
            read_record(row)
    except ValueError as error:
        raise OutputError(f"{folder.videos_parquet}: {error}; remove it and run the same command again") from error
    return rows


def _as_utf8(path: str) -> str:
    """A path as a table can hold it; bytes that aren't UTF-8 are told as such."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def write_run_yaml(folder: RunFolder, data: Mapping[str, Any]) -> None:
    """Writes `run.yaml` whole."""
    write_whole(folder.run_yaml, render_yaml(dict(data)))


def read_run_yaml(folder: RunFolder) -> dict[str, Any]:
    """Reads `run.yaml`.

    Raises:
        OutputError: there is none, or it can't be read.
    """
    try:
        if not folder.run_yaml.is_file():
            raise OutputError(f"{folder.root}: expected a run's folder; found no run.yaml in it")
        data = parse_yaml(folder.run_yaml.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{folder.run_yaml}: can't be read: {one_line(error)}") from error
    if not isinstance(data, dict):
        raise OutputError(f"{folder.run_yaml}: expected a mapping; found {type(data).__name__}")
    return data


@dataclass(frozen=True, slots=True)
class FrameView:
    """One processed frame of a run: `view["depth"]` is its natural values.

    Attributes:
        index: number in the source.
        pts_s: time in seconds.
        valid: whether anything was predicted.
        tasks: what was predicted.
    """

    index: int
    pts_s: float
    valid: bool
    tasks: tuple[str, ...]
    _video: "RunVideo"
    _place: int

    def __getitem__(self, task: str) -> NDArray[Any]:
        """Natural values of a task, [H, W] or [H, W, components].

        Raises:
            NotPredicted: the frame has none.
        """
        if task not in self.tasks:
            known = ", ".join(self._video.kinds)
            why = f"the run predicted {known}" if task not in self._video.kinds else f"frame {self.index} is invalid"
            raise NotPredicted(f"{self._video.id}: frame {self.index}: {task!r} was not predicted; {why}")
        return self._video.kinds[task].decode(self._video.arrays.stored(task, self._place))

    def age(self, task: str) -> NDArray[np.uint8]:
        """Frames since every pixel was computed [H, W]; 255 means that or more."""
        return self._video.arrays.age(task, self._place)

    def change(self) -> NDArray[np.uint8] | None:
        """How much every patch changed [h, w], in steps of 255; None where the run didn't keep it."""
        return self._video.arrays.change(self._place)


class RunVideo:
    """One video of a run.

    Attributes:
        record: its row of `videos.parquet`.
        files: where its outputs lie.
    """

    def __init__(self, record: VideoRecord, files: VideoFolder) -> None:
        self.record, self.files = record, files

    @property
    def id(self) -> str:
        """Name of its folder."""
        return self.record.id

    @property
    def source(self) -> str:
        """Where it came from."""
        return self.record.source

    @property
    def status(self) -> str:
        """`done`, `partial` or `failed`."""
        return self.record.status

    @property
    def fps(self) -> float:
        """Processed frames per second of the source."""
        return self.record.fps

    @property
    def folder(self) -> Place:
        """OUT/videos/<id>."""
        return self.files.root

    @cached_property
    def arrays(self) -> PredictionReader:
        """The stored arrays.

        Raises:
            NotPredicted: nothing was predicted for this video.
        """
        try:
            return PredictionReader(self.files.predictions)
        except FileNotFoundError as error:
            raise NotPredicted(
                f"{self.id}: nothing was predicted; its status is {self.status} ({self.record.cause})"
            ) from error

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """Kind of every predicted task, read from the arrays' own attributes."""
        return {task: kind_from_description(data) for task, data in self.arrays.descriptions.items()}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the arrays."""
        height, width = self.arrays.attributes["size"]
        return height, width

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the source's frames."""
        height, width = self.arrays.attributes["frame_size"]
        return height, width

    @property
    def accuracy(self) -> dict[str, dict[str, float]] | None:
        """Accuracy against truth by task and metric, where truth was given."""
        return json.loads(self.files.accuracy.read_text(encoding="utf-8")) if self.files.accuracy.is_file() else None

    def __len__(self) -> int:
        """Processed frames."""
        return self.record.frames

    def frame(self, place: int) -> FrameView:
        """A processed frame by its place in the run, from 0.

        Raises:
            IndexError: there is no such frame.
        """
        if not 0 <= place < len(self):
            raise IndexError(f"{self.id}: frame: expected 0 to {len(self) - 1}; found {place}")
        arrays = self.arrays
        tasks = tuple(task for task in self.kinds if arrays.valid[task][place])
        return FrameView(int(arrays.index[place]), float(arrays.pts_s[place]), bool(tasks), tasks, self, place)

    def ledger(self) -> pa.Table:
        """One row per frame and task."""
        return read_rows(self.files.frames_parquet)


class Run:
    """A finished or partial run: `open_run("out")["clip"].frame(10)["seg"]`.

    Attributes:
        folder: OUT.
        config: everything in `run.yaml`.
    """

    def __init__(self, root: Place) -> None:
        self._paths = RunFolder(root)
        self.folder = root
        self.config = read_run_yaml(self._paths)

    @property
    def videos(self) -> list[RunVideo]:
        """Every input of the run, failed ones included."""
        return [RunVideo(VideoRecord(**row), self._paths.video(row["id"])) for row in _old_rows(self._paths)]

    def __getitem__(self, id_: str) -> RunVideo:
        """One video by its id.

        Raises:
            KeyError: the run has no such video.
        """
        for video in self.videos:
            if video.id == id_:
                return video
        raise KeyError(f"{id_!r}: the run has {', '.join(video.id for video in self.videos)}")

    def ledger(self) -> pa.Table:
        """One row per frame and task, of all videos."""
        tables = [video.ledger() for video in self.videos if video.files.frames_parquet.is_file()]
        if not tables:
            raise NotPredicted(f"{self.folder}: no frame was processed")
        return pa.concat_tables(tables)


def open_run(out: str | Place) -> Run:
    """Opens what a run left behind: a folder's path, or an s3:// URL.

    Raises:
        OutputError: the folder isn't a run's.
    """
    return Run(place(out))
