"""`predictions.zarr`: one array per task over the processed frames, written in sealed segments, read frame by frame.

Arrays `<task>`, `age/<task>` and `change` (how much each patch changed, in steps of 255) are cut into shards that never
cross a segment, so a finished segment's files never change. `index`, `pts_s` and `valid/<task>` are small and written
when the video is assembled from its seals.
"""

import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray
from zarr.codecs import BloscCodec, BloscShuffle

from deltascene.cache.damage import told_as
from deltascene.pipeline.errors import OutputError
from deltascene.stages.kinds import Kind, describe_kind, stored_shape

CHUNK_FRAMES = 16
CHANGE = "change"  # no task may be called so
SHARD_BYTES = 64 << 20  # of raw values: what a writer holds in memory per task

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """Shape of a video's arrays.

    Attributes:
        kinds: of the tasks.
        size: height and width of what is stored.
        segment_frames: frames of a segment.
        shard_frames: frames of a shard; divides the segment.
        patches: patch grid (height, width) of the change map; None writes none.
    """

    kinds: Mapping[str, Kind]
    size: tuple[int, int]
    segment_frames: int
    shard_frames: int
    patches: tuple[int, int] | None = None


def plan_layout(
    kinds: Mapping[str, Kind], size: tuple[int, int], segment_frames: int, patches: tuple[int, int] | None = None
) -> Layout:
    """A layout whose largest shard stays below `SHARD_BYTES`."""
    largest = max(
        np.dtype(kind.stored.dtype).itemsize * int(np.prod(stored_shape(kind, size))) for kind in kinds.values()
    )
    shard = segment_frames
    while shard * largest > SHARD_BYTES and shard % 2 == 0:
        shard //= 2
    return Layout(kinds, size, segment_frames, shard, patches)


def create_arrays(path: Path, layout: Layout, attributes: Mapping[str, Any], frames: int) -> None:
    """Makes a video's arrays, or those of them that aren't there, with room for all of its segments.

    Args:
        path: of `predictions.zarr`.
        layout: shape of the arrays.
        attributes: written on the group: fps, sizes …
        frames: that the video has.
    """
    room = -(-frames // layout.segment_frames) * layout.segment_frames
    with _readable(path):
        group = zarr.open_group(path, mode="a", zarr_format=3)
        group.attrs.update({**attributes, "size": list(layout.size)})
        for name in _array_names(layout):
            array = _array(group, path, name) if name in group else _create(group, layout, name)
            _check_form(array, layout, name, path)
            if array.shape[0] != room:
                array.resize((room, *array.shape[1:]))


class PredictionWriter:
    """Writes segments of one video's predictions, frame after frame; whole shards go to disk.

    Several may write at once, as long as each has a segment of its own.

    Attributes:
        layout: shape of the arrays.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        """Opens arrays that `create_arrays` made.

        Args:
            path: of `predictions.zarr`.
            layout: shape of the arrays.
        """
        self.layout, self._path = layout, path
        with _readable(path):
            group = zarr.open_group(path, mode="r+")
            self._arrays = {name: _array(group, path, name) for name in _array_names(layout)}
        self._buffers = {
            name: np.empty((layout.shard_frames, *array.shape[1:]), array.dtype) for name, array in self._arrays.items()
        }
        self._start = self._filled = 0
        self._written: list[Path] = []

    def begin_segment(self, start: int) -> None:
        """Starts a segment at this processed frame; what an unfinished try left in memory is dropped."""
        assert start % self.layout.segment_frames == 0
        self._start, self._filled, self._written = start, 0, []

    def add(self, stored: Mapping[str, Array | None], age: Array | None, change: Array | None = None) -> None:
        """Adds a frame.

        Args:
            stored: prediction of every task in its stored form; a task without one gets its fill.
            age: of the pixels of all of them [H, W].
            change: strength of change of every patch [h, w], where the layout has it.
        """
        for name, kind in self.layout.kinds.items():
            value = stored.get(name)
            self._buffers[name][self._filled] = kind.stored.fill if value is None else value
            self._buffers[f"age/{name}"][self._filled] = 0 if value is None or age is None else age
        if CHANGE in self._buffers:
            self._buffers[CHANGE][self._filled] = change
        self._filled += 1
        if self._filled == self.layout.shard_frames:
            self._flush()

    def finish_segment(self) -> list[Path]:
        """Writes what is left; returns every file of the segment."""
        if self._filled:
            self._flush()
        return self._written

    def _flush(self) -> None:
        for name, array in self._arrays.items():
            shard = self._path / name / "c" / str(self._start // self.layout.shard_frames)
            shutil.rmtree(shard, ignore_errors=True)  # an unsealed try may have left a torn one
            array[self._start : self._start + self._filled] = self._buffers[name][: self._filled]
            self._written += [path for path in shard.rglob("*") if path.is_file()]
        self._start, self._filled = self._start + self._filled, 0


def assemble(
    path: Path, index: ArrayLike, pts_s: ArrayLike, valid: Mapping[str, ArrayLike], *, whole: bool = True
) -> None:
    """Cuts the arrays to the frames there are and writes the small ones.

    Args:
        path: of `predictions.zarr`.
        index: the source's frame number of every processed frame.
        pts_s: their times in seconds.
        valid: per task, whether a frame was predicted.
        whole: these are all frames; else arrays keep their room, as segments behind a gap may be finished.
    """
    small: dict[str, Array] = {"index": np.asarray(index, np.int64), "pts_s": np.asarray(pts_s, np.float64)}
    small |= {f"valid/{task}": np.asarray(flags, bool) for task, flags in valid.items()}
    with _readable(path):
        group = zarr.open_group(path, mode="a")
        for name in [CHANGE, *(name for task in valid for name in (task, f"age/{task}"))]:
            if whole and name in group:
                array = _array(group, path, name)
                array.resize((len(small["index"]), *array.shape[1:]))
        group.attrs["tasks"] = list(valid)
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

    def __init__(self, path: Path) -> None:
        """Opens it for reading.

        Raises:
            FileNotFoundError: there is none, or it wasn't assembled.
            OutputError: an array that it speaks of is missing.
        """
        if not (path / "zarr.json").is_file():
            raise FileNotFoundError(f"{path}: there is none")
        self._path = path
        with _readable(path):
            self._group = zarr.open_group(path, mode="r")
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
        return _array(self._group, self._path, name)


def _readable(path: Path) -> AbstractContextManager[None]:
    return told_as(OutputError, path, "run its command again with --force")


def _check_form(array: "zarr.Array[Any]", layout: Layout, name: str, path: Path) -> None:
    """Refuses an array that isn't as this layout would make it.

    Raises:
        OutputError: so it is.
    """
    shape, dtype = _form(layout, name)
    found, wanted = (array.dtype, array.shape[1:], array.shards), (dtype, shape, (layout.shard_frames, *shape))
    if found != wanted:
        raise OutputError(f"{path}: {name}: expected {wanted}; found {found}; run its command again with --force")


def _form(layout: Layout, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape of an array's entries, and their type."""
    kind = layout.kinds.get(name)  # none: an age, or the change map
    own = (layout.patches if name == CHANGE else layout.size) or ()
    shape = own if kind is None else stored_shape(kind, layout.size)
    return tuple(shape), np.dtype("uint8" if kind is None else kind.stored.dtype)


def _create(group: zarr.Group, layout: Layout, name: str) -> "zarr.Array[Any]":
    kind, (shape, dtype) = layout.kinds.get(name), _form(layout, name)
    return group.create_array(
        name,
        shape=(0, *shape),
        shards=(layout.shard_frames, *shape),
        chunks=(_chunk_frames(layout.shard_frames), *shape),
        dtype=dtype,
        fill_value=0 if kind is None else dtype.type(kind.stored.fill),
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.shuffle, typesize=dtype.itemsize),
        attributes={} if kind is None else describe_kind(kind),
    )


def _array(group: zarr.Group, path: Path, name: str) -> "zarr.Array[Any]":
    array = group.get(name)
    if not isinstance(array, zarr.Array):
        raise OutputError(f"{path}: expected array {name}; found none; run its command again with --force")
    return array


def _array_names(layout: Layout) -> list[str]:
    ages = (f"age/{task}" for task in layout.kinds)
    return [*layout.kinds, *ages, *([CHANGE] if layout.patches else [])]


def _chunk_frames(shard_frames: int) -> int:
    return next(count for count in range(min(CHUNK_FRAMES, shard_frames), 0, -1) if shard_frames % count == 0)
