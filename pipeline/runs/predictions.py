"""`predictions.zarr`: one array per task over the processed frames, read frame by frame; and the parts it is made of.

A finished segment's values are arrays of its own, in its part, cut into the same chunks. Once a video is whole, its
arrays are joined from its parts: chunks are copied as they are, into shards of many segments, so that an hour of video
is a few files. Arrays are `<task>`, `age/<task>` and `change` (how much each patch changed, in steps of 255); `index`,
`pts_s` and `valid/<task>` are small.
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
CHANGE = "change"  # no task may be called so
LEDGER = "ledger.parquet"  # the part's other half

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """Shape of a segment's arrays.

    Attributes:
        kinds: of the tasks.
        size: height and width of what is stored.
        chunk_frames: frames of a chunk; divides a segment.
        patches: patch grid (height, width) of the change map; None writes none.
    """

    kinds: Mapping[str, Kind]
    size: tuple[int, int]
    chunk_frames: int
    patches: tuple[int, int] | None = None


def plan_layout(
    kinds: Mapping[str, Kind], size: tuple[int, int], segment_frames: int, patches: tuple[int, int] | None = None
) -> Layout:
    """A layout for segments of so many frames."""
    largest = min(CHUNK_FRAMES, segment_frames)
    chunk = next(count for count in range(largest, 0, -1) if segment_frames % count == 0)
    return Layout(kinds, size, chunk, patches)


class PredictionWriter:
    """Writes one segment's predictions, frame after frame; whole chunks go to disk."""

    def __init__(self, folder: Path, layout: Layout, frames: int) -> None:
        """Makes its arrays.

        Args:
            folder: of the part, on a disk.
            layout: shape of the arrays.
            frames: that the segment has.
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
            stored: prediction of every task in its stored form; a task without one gets its fill.
            age: of the pixels of all of them [H, W].
            change: strength of change of every patch [h, w], where the layout has it.
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
        """Writes what is left; comes last."""
        for name, array in self._arrays.items():
            array[self._start : self._start + self._filled] = self._buffers[name][: self._filled]
        self._start, self._filled = self._start + self._filled, 0


def write_small(
    folder: Path, index: ArrayLike, pts_s: ArrayLike, valid: Mapping[str, ArrayLike], attributes: Mapping[str, Any]
) -> None:
    """Writes the small arrays, and what the group says of itself.

    Args:
        folder: a Zarr group on a disk.
        index: the source's frame number of every processed frame.
        pts_s: their times in seconds.
        valid: per task, whether a frame was predicted.
        attributes: of the group: fps, sizes …
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
        attributes: of the group.
        index: the source's frame number of every processed frame.
        pts_s: their times in seconds.
        valid: per task, whether a frame was predicted.
        descriptions: per task, what its kind says of itself.
    """

    def __init__(self, path: Place) -> None:
        """Opens it for reading.

        Raises:
            FileNotFoundError: there is none, or it wasn't assembled.
            OutputError: an array that it speaks of is missing.
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
        """Stored values of one processed frame, or of a run of them."""
        return self._read(task, frames)

    def age(self, task: str, frames: int | slice) -> Array:
        """Frames since every pixel was computed."""
        return self._read(f"age/{task}", frames)

    def change(self, place: int) -> NDArray[np.uint8] | None:
        """How much every patch of a processed frame changed [h, w], in steps of 255; None where it wasn't kept."""
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
