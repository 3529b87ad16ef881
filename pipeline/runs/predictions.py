"""`predictions.zarr`: one array per task over the processed frames, and the arrays of a segment that it is made of.

A segment's sealed file has arrays of its own, with the same chunks. Once a video is finished, these are joined
(`cache/shards.py`) into shards of many segments, so that an hour of video is a few files. Arrays are `<task>`,
`age/<task>` and `change` (change strength of each patch, in steps of 255), and the small ones `index`, `pts_s` and
`valid/<task>`.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray
from zarr.codecs import BloscCodec, BloscShuffle

from deltascene.cache.damage import reraise_damage
from deltascene.cache.places import Place, zarr_url
from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.runs.links import refuse_pipes
from deltascene.stages.kinds import Kind, describe_kind, stored_shape

CHUNK_FRAMES = 16
CHANGE = "change"  # no task may have this name
LEDGER = "ledger.parquet"  # lies beside the arrays in a segment's sealed file

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """Shape of a segment's arrays.

    Attributes:
        kinds: kinds of the tasks, by name.
        size: height and width of the stored predictions.
        chunk_frames: number of frames of a chunk, a divisor of the frames of a segment.
        patches: height and width of the patch grid of the change map; None writes none.
    """

    kinds: Mapping[str, Kind]
    size: tuple[int, int]
    chunk_frames: int
    patches: tuple[int, int] | None = None


def plan_layout(
    kinds: Mapping[str, Kind], size: tuple[int, int], segment_frames: int, patches: tuple[int, int] | None = None
) -> Layout:
    """A layout whose chunks divide segments of `segment_frames` frames."""
    largest = min(CHUNK_FRAMES, segment_frames)
    chunk = next(count for count in range(largest, 0, -1) if segment_frames % count == 0)
    return Layout(kinds, size, chunk, patches)


class PredictionWriter:
    """Writes the predictions of one segment frame by frame; a chunk is written when it is full."""

    def __init__(self, folder: Path, layout: Layout, frames: int) -> None:
        """Creates the arrays.

        Args:
            folder: a local folder for the files of the segment.
            layout: shape of the arrays.
            frames: number of frames of the segment.
        """
        group = zarr.open_group(folder, mode="a", zarr_format=3)
        self._layout, names = layout, _array_names(layout)
        self._arrays = {name: _create(group, layout, name, frames) for name in names}
        self._buffers = {
            name: np.empty((layout.chunk_frames, *array.shape[1:]), array.dtype) for name, array in self._arrays.items()
        }
        self._start = self._filled = 0

    def add(self, stored: Mapping[str, Array | None], age: Array | None, change: Array | None = None) -> None:
        """Adds a frame.

        Args:
            stored: prediction of every task in its stored form; a task without one gets its fill value.
            age: frames since every pixel was computed [H, W], the same for all tasks.
            change: change strength of every patch [h, w], if the layout has it.
        """
        for name, kind in self._layout.kinds.items():
            value = stored.get(name)
            self._buffers[name][self._filled] = kind.stored.fill if value is None else value
            self._buffers[f"age/{name}"][self._filled] = 0 if value is None or age is None else age
        if CHANGE in self._buffers:
            self._buffers[CHANGE][self._filled] = change
        self._filled += 1
        if self._filled == self._layout.chunk_frames:
            self.flush()

    def flush(self) -> None:
        """Writes the frames of a chunk that isn't full; to be called after the last frame."""
        for name, array in self._arrays.items():
            array[self._start : self._start + self._filled] = self._buffers[name][: self._filled]
        self._start, self._filled = self._start + self._filled, 0


def write_small(
    folder: Path, index: ArrayLike, pts_s: ArrayLike, valid: Mapping[str, ArrayLike], attributes: Mapping[str, Any]
) -> None:
    """Writes the small arrays and the attributes of the group.

    Args:
        folder: a Zarr group on a disk.
        index: number in the source of every processed frame [T].
        pts_s: their times in seconds [T].
        valid: whether each frame was predicted [T], by task.
        attributes: attributes of the group: fps, sizes …
    """
    group = zarr.open_group(folder, mode="a", zarr_format=3)
    small: dict[str, Array] = {"index": np.asarray(index, np.int64), "pts_s": np.asarray(pts_s, np.float64)}
    small |= {f"valid/{task}": np.asarray(flags, bool) for task, flags in valid.items()}
    group.attrs.update({**attributes, "tasks": list(valid)})
    for name, data in small.items():
        group.create_array(name, data=data, chunks=(max(1, len(data)),), overwrite=True)


class PredictionReader:
    """Reads an assembled `predictions.zarr`.

    Attributes:
        attributes: attributes of the group.
        index: number in the source of every processed frame [T].
        pts_s: their times in seconds [T].
        valid: whether each frame was predicted [T], by task.
        descriptions: description of the kind of every task, for `kind_from_description`.
    """

    def __init__(self, path: Place) -> None:
        """Opens it for reading.

        Raises:
            FileNotFoundError: there is none, or it isn't assembled yet.
            OutputError: an array is missing or damaged.
        """
        if not (path / "zarr.json").is_file():
            raise FileNotFoundError(f"{path}: there is none")
        refuse_pipes(path)
        self._path, self._arrays = path, dict[str, "zarr.Array[Any]"]()
        with _readable(path):
            self._group = zarr.open_group(**zarr_url(path), mode="r", zarr_format=3)
            self.attributes: dict[str, Any] = dict(self._group.attrs)
            assembled = "index" in self._group
        if not assembled:
            raise FileNotFoundError(f"{path}: not assembled yet")
        self.index: Array = self._read("index")
        self.pts_s: Array = self._read("pts_s")
        with _readable(path):
            tasks = [str(task) for task in self.attributes["tasks"]]
            self.valid: dict[str, Array] = {task: self._read(f"valid/{task}") for task in tasks}
            self.descriptions = {task: dict(self._array(task).attrs) for task in tasks}

    def stored(self, task: str, frames: int | slice) -> Array:
        """Stored values of one processed frame or of several consecutive ones."""
        return self._read(task, frames)

    def age(self, task: str, frames: int | slice) -> Array:
        """Frames since every pixel was computed."""
        return self._read(f"age/{task}", frames)

    def change(self, place: int) -> NDArray[np.uint8] | None:
        """Change strength of every patch of a processed frame [h, w], in steps of 255; None if it wasn't kept."""
        return self._read("change", place) if "change" in self._group else None

    def _read(self, name: str, where: int | slice = slice(None)) -> Array:
        with _readable(self._path):
            return np.asarray(self._array(name)[where])

    def _array(self, name: str) -> "zarr.Array[Any]":
        if name not in self._arrays:
            self._arrays[name] = _array(self._group, self._path, name)
        return self._arrays[name]


def _readable(path: Place) -> AbstractContextManager[None]:
    return reraise_damage(OutputError, str(path), "run its command again with --force")


def _create(group: zarr.Group, layout: Layout, name: str, frames: int) -> "zarr.Array[Any]":
    kind = layout.kinds.get(name)  # none: an age, or the change map
    own = (layout.patches if name == CHANGE else layout.size) or ()
    shape = own if kind is None else stored_shape(kind, layout.size)
    dtype = np.dtype("uint8" if kind is None else kind.stored.dtype)
    return group.create_array(
        name,
        shape=(frames, *shape),
        chunks=(layout.chunk_frames, *shape),
        dtype=dtype,
        fill_value=0 if kind is None else dtype.type(kind.stored.fill),
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.shuffle, typesize=dtype.itemsize),
        attributes={} if kind is None else describe_kind(kind),
    )


def _array(group: zarr.Group, path: Place, name: str) -> "zarr.Array[Any]":
    array = group.get(name)
    if not isinstance(array, zarr.Array):
        raise OutputError(f"{path}: expected array {name}; found none; run its command again with --force")
    return array


def _array_names(layout: Layout) -> list[str]:
    ages = (f"age/{task}" for task in layout.kinds)
    return [*layout.kinds, *ages, *([CHANGE] if layout.patches else [])]
