"""Joins the finished segments of a video into `predictions.zarr` and `frames.parquet`, so that it can be read.

Everything is written in a local folder and moved to its place file by file, the description of the array group last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deltascene.cache.places import Place, put_tree, scratch
from deltascene.cache.sealed_zip import SealedZip
from deltascene.cache.shards import SealedPart, join_arrays
from deltascene.pipeline.runs import ledger
from deltascene.pipeline.runs.folder import VideoFolder
from deltascene.pipeline.runs.predictions import LEDGER, PredictionReader, write_small

Sums = Mapping[str, tuple[int, str]]


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """Frames and files of a joined video.

    Attributes:
        pts_s: times of the processed frames in seconds [T].
        valid: whether each of them was predicted [T].
        files: size and SHA-256 of the arrays' shards, by path below the video's folder.
    """

    pts_s: NDArray[np.float64]
    valid: NDArray[np.bool_]
    files: Sums


def assemble(
    folder: Path, files: VideoFolder, starts: Sequence[int], segment_frames: int, attributes: Mapping[str, Any]
) -> Assembled:
    """Joins the finished segments of a video, with tasks that were added later to all of them.

    Args:
        folder: a local folder, which gets the arrays and the ledger under their names in the video's folder.
        files: folder of the video.
        starts: starts of the segments, without gaps.
        segment_frames: number of frames of every segment but the last.
        attributes: attributes of the array group: fps, sizes …
    """
    tasks = ["", *files.added_tasks(starts)]
    parts = {task: [SealedPart(start, files.part(start, task)) for start in starts] for task in tasks}
    table = pa.concat_tables(_ledger(part.path) for task in tasks for part in parts[task])
    sums, frames = _join(folder / files.predictions.name, parts, table, segment_frames, attributes)
    ledger.write_table(folder / files.frames_parquet.name, [table])
    return Assembled(frames["pts_s"].to_numpy(), frames["valid"].to_numpy(), sums)


def add_task(files: VideoFolder, task: str, starts: Sequence[int], segment_frames: int) -> Sums:
    """Joins a task that was added later and publishes it beside the other tasks of a video.

    Args:
        files: folder of the video.
        task: name of the task.
        starts: starts of the segments, without gaps.
        segment_frames: number of frames of every segment but the last.

    Returns:
        Size and SHA-256 of the task's shards, by path below the video's folder.
    """
    parts = {task: [SealedPart(start, files.part(start, task)) for start in starts]}
    before = ledger.read_rows(files.frames_parquet)
    before = before.filter(pc.not_equal(before["task"], task))
    table = pa.concat_tables([before, *(_ledger(part.path) for part in parts[task])])
    attributes = PredictionReader(files.predictions).attributes
    with scratch(files.root) as folder:
        sums, _ = _join(folder / files.predictions.name, parts, table, segment_frames, attributes)
        ledger.write_table(folder / files.frames_parquet.name, [table])
        publish(folder, files)
    return sums


def publish(folder: Path, files: VideoFolder) -> None:
    """Moves joined files into the video's folder; other arrays there stay."""
    put_tree(folder, files.root, last=f"{files.predictions.name}/zarr.json")


def _join(
    folder: Path,
    parts: Mapping[str, Sequence[SealedPart]],
    table: pa.Table,
    segment_frames: int,
    attributes: Mapping[str, Any],
) -> tuple[Sums, pa.Table]:
    """Joins arrays in a folder; returns the sums of their shards and the ledger's rows of the first task."""
    by_task = ledger.split_tasks(table)
    frames = next(iter(by_task.values()))
    folder.mkdir(exist_ok=True)
    sums: dict[str, tuple[int, str]] = {}
    for joined in parts.values():
        sums |= join_arrays(folder, joined, frames.num_rows, segment_frames)
    there = {*attributes.get("tasks", ()), *(path.name for path in folder.iterdir() if path.is_dir())}
    valid = {task: rows["predicted"].to_numpy() for task, rows in by_task.items() if task in there}
    write_small(folder, frames["index"].to_numpy(), frames["pts_s"].to_numpy(), valid, attributes)
    return {f"predictions.zarr/{name}": sum_ for name, sum_ in sums.items()}, frames


def _ledger(part: Place) -> pa.Table:
    with SealedZip(part) as sealed:
        return ledger.read_rows(BytesIO(sealed.read(LEDGER)))
