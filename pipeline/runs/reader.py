"""Reads the output folder of a run: its videos, their frames and their ledgers."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deltascene.cache.places import Place, place
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.runs.done import read_done_record
from deltascene.pipeline.runs.folder import RunFolder, VideoFolder, read_run_yaml
from deltascene.pipeline.runs.ledger import read_rows
from deltascene.pipeline.runs.lock import writing
from deltascene.pipeline.runs.predictions import PredictionReader
from deltascene.pipeline.runs.videos_table import VideoRecord, read_records
from deltascene.stages.kinds import Kind, kind_from_description

UNFINISHED = ("waiting", "running", "partial")
SHOWN = 20  # ids that an error names


class NotPredicted(UsageError, KeyError):  # noqa: N818 - reads as what happened
    """A task was requested that the run didn't predict for the frame."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class FrameView:
    """One processed frame of a run: `view["depth"]` gives the task's values in their natural units.

    Attributes:
        index: number in the source.
        pts_s: time in seconds.
        valid: whether anything was predicted.
        tasks: names of the tasks that were predicted.
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
            NotPredicted: the task wasn't predicted for this frame.
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
        """Change strength of every patch [h, w], in steps of 255; None if the run didn't keep it."""
        return self._video.arrays.change(self._place)


class RunVideo:
    """One video of a run.

    Attributes:
        record: its row of `videos.parquet`.
        files: paths of its outputs.
    """

    def __init__(self, record: VideoRecord, files: VideoFolder) -> None:
        self.record, self.files = record, files

    @property
    def id(self) -> str:
        """Name of its folder."""
        return self.record.id

    @property
    def source(self) -> str:
        """Path or URL of the input."""
        return self.record.source

    @property
    def status(self) -> str:
        """`done`, `partial`, `failed`, `waiting` or `running`."""
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
        """Accuracy against truth by task and metric; None if no truth was given."""
        return json.loads(self.files.accuracy.read_text(encoding="utf-8")) if self.files.accuracy.is_file() else None

    def __len__(self) -> int:
        """Number of processed frames."""
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
        """All inputs of the run, including failed and waiting ones."""
        live = writing(self.folder)
        records = read_records(self._paths.videos_parquet)
        return [self._video(record, live) for record in records]

    def _video(self, record: VideoRecord, live: bool) -> RunVideo:
        """A video; if `videos.parquet` has it as unfinished, the `done.json` in its folder may be newer.

        A run that is killed doesn't write `videos.parquet` any more.
        """
        files = self._paths.video(record.id)
        if record.status in UNFINISHED:
            done = read_done_record(files.done)
            record = done if done is not None else record
        if record.status == "running" and not live:
            record = replace(record, status="partial")
        return RunVideo(record, files)

    def __getitem__(self, id_: str) -> RunVideo:
        """One video by its id.

        Raises:
            KeyError: the run has no such video.
        """
        records = read_records(self._paths.videos_parquet)
        for record in records:
            if record.id == id_:
                return self._video(record, writing(self.folder))
        known = ", ".join(record.id for record in records[:SHOWN])
        raise KeyError(f"{id_!r}: the run has {known}{f' and {len(records) - SHOWN} more' * (len(records) > SHOWN)}")

    def ledger(self) -> pa.Table:
        """One row per frame and task, of all videos."""
        tables = [video.ledger() for video in self.videos if video.files.frames_parquet.is_file()]
        if not tables:
            raise NotPredicted(f"{self.folder}: no frame was processed")
        return pa.concat_tables(tables)


def open_run(out: str | Place) -> Run:
    """Opens the output folder of a run by its path or s3:// URL.

    Raises:
        OutputError: the folder isn't a run's.
    """
    return Run(place(out))
