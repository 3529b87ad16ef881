"""`predictions.zarr`: one array per task over the processed frames, read frame by frame; and the parts it is made of.

A finished segment's values are arrays of its own, in its part, cut into the same chunks. Once a video is whole, its
arrays are joined from its parts: chunks are copied as they are, into shards of many segments, so that an hour of video
is a few files. Arrays are `<task>`, `age/<task>` and `change` (how much each patch changed, in steps of 255); `index`,
`pts_s` and `valid/<task>` are small.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray
from zarr.buffer.cpu import Buffer
from zarr.codecs import BloscCodec, BloscShuffle
from zarr.storage import MemoryStore

from deltascene.cache.damage import reraise_damage
from deltascene.cache.errors import BrokenSeal
from deltascene.cache.keys import file_sha256
from deltascene.cache.places import Place, zarr_url
from deltascene.cache.sealed_zip import SealedZip
from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.runs.links import refuse_pipes
from deltascene.stages.kinds import Kind, describe_kind, stored_shape

CHUNK_FRAMES = 16
SHARD_FRAMES = 4096  # of a joined array, about
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


@dataclass(frozen=True, slots=True)
class SealedPart:
    """A sealed part that is joined with others.

    Attributes:
        start: number of its first frame among the processed frames.
        path: of its file.
    """

    start: int
    path: Place


def join_arrays(
    folder: Path, parts: Sequence[SealedPart], frames: int, segment_frames: int
) -> dict[str, tuple[int, str]]:
    """Joins the arrays of parts.

    Args:
        folder: a Zarr group on a disk, which gets the arrays.
        parts: in order, without gaps.
        frames: that they hold.
        segment_frames: of every part but the last.

    Returns:
        Size and SHA-256 of the shards by name; the same as the parts' own bytes give on any day.

    Raises:
        BrokenSeal: a part isn't what was sealed.
    """
    shard = segment_frames * max(1, min(SHARD_FRAMES // segment_frames, -(-frames // segment_frames)))
    group = zarr.open_group(folder, mode="a", zarr_format=3)
    with SealedZip(parts[0].path) as first:
        names = {name: _create_joined(group, name, array, frames, shard) for name, array in _arrays_of(first)}
    sums: dict[str, tuple[int, str]] = {}
    for begin in range(0, frames, shard):
        inside = [part for part in parts if begin <= part.start < begin + shard]
        for name, path in _join_shard(folder, names, inside, begin // shard, shard):
            sums[name] = path.stat().st_size, file_sha256(path)
    return sums


def _join_shard(
    folder: Path, arrays: Mapping[str, "zarr.Array[Any]"], parts: Sequence[SealedPart], number: int, frames: int
) -> Iterable[tuple[str, Path]]:
    """One shard of every array: the chunks of its parts, then where each lies (Zarr's `sharding_indexed`, at the end).

    Source: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
    """
    with ExitStack() as opened:
        writers = [_ShardWriter(folder, name, array, number, frames) for name, array in arrays.items()]
        for writer in writers:
            opened.callback(writer.close)
        for part in parts:
            with SealedZip(part.path) as sealed:
                for writer in writers:
                    writer.add(sealed, part.start)
        for writer in writers:
            writer.finish()
    return [(name, writer.path) for writer in writers if (name := writer.name_if_any())]


class _ShardWriter:
    """One shard of one array."""

    def __init__(self, folder: Path, name: str, array: "zarr.Array[Any]", number: int, frames: int) -> None:
        self._chunk, self._frames, self._begin = array.chunks[0], frames, number * frames
        self._tail = "/".join("0" * (array.ndim - 1))
        self._array, self._folder = name, folder
        self.path = folder / name / "c" / str(number) / self._tail
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._out = self.path.open("wb")
        self._places = np.full((frames // self._chunk, 2), 2**64 - 1, np.uint64)  # nothing there
        self._any = False

    def add(self, sealed: SealedZip, start: int) -> None:
        """Copies the chunks of a part; those that hold nothing but the fill aren't there."""
        for chunk in range(self._frames // self._chunk):
            name = f"{self._array}/c/{chunk}/{self._tail}"
            if name not in sealed.files:
                continue
            data = sealed.read(name)
            self._places[(start - self._begin) // self._chunk + chunk] = self._out.tell(), len(data)
            self._out.write(data)
            self._any = True

    def finish(self) -> None:
        """Writes the index; a shard without any chunk isn't kept."""
        index = self._places.astype("<u8").tobytes()
        self._out.write(index + struct.pack("<I", google_crc32c.value(index)))
        if not self._any:
            self.path.unlink()

    def close(self) -> None:
        """Lets go of its file."""
        self._out.close()

    def name_if_any(self) -> str:
        """Its name below the folder; empty if there is none."""
        return self.path.relative_to(self._folder).as_posix() if self._any else ""


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


def _arrays_of(sealed: SealedZip) -> "Iterable[tuple[str, zarr.Array[Any]]]":
    """Descriptions of a part's arrays, by name."""
    named = {name: sealed.read(name) for name in sealed.files if name.endswith("zarr.json")}
    with reraise_damage(BrokenSeal, str(sealed.path), "remove it and run the same command again"):
        group = zarr.open_group(MemoryStore({name: Buffer.from_bytes(data) for name, data in named.items()}), mode="r")
        for name in sorted(named):
            found = group.get(name.removesuffix("/zarr.json"))
            if isinstance(found, zarr.Array):
                yield name.removesuffix("/zarr.json"), found


def _create_joined(group: zarr.Group, name: str, like: "zarr.Array[Any]", frames: int, shard: int) -> "zarr.Array[Any]":
    """An array with the chunks of a part's, in shards."""
    if shard % like.chunks[0]:
        raise BrokenSeal(f"{name}: expected chunks that divide {shard} frames; found {like.chunks[0]}")
    return group.create_array(
        name,
        shape=(frames, *like.shape[1:]),
        shards=(shard, *like.shape[1:]),
        chunks=like.chunks,
        dtype=like.dtype,
        fill_value=like.fill_value,
        compressors=like.compressors,
        attributes=dict(like.attrs),
        overwrite=True,
    )


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
