"""Arrays of sealed segments joined along time into sharded Zarr arrays, without decoding a chunk.

zarr would decode every chunk and encode it again to write a shard. Here the encoded chunks are copied as they are, and
the index that makes a shard of them is written by hand.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import google_crc32c
import numpy as np
import zarr
from zarr.buffer.cpu import Buffer
from zarr.storage import MemoryStore

from deltascene.cache.damage import reraise_damage
from deltascene.cache.errors import BrokenSeal
from deltascene.cache.keys import file_sha256
from deltascene.cache.places import Place
from deltascene.cache.sealed_zip import SealedZip, Sums

SHARD_FRAMES = 4096  # of a joined array, about
_NO_CHUNK = 2**64 - 1  # offset and size in the index where a chunk wasn't written


@dataclass(frozen=True, slots=True)
class SealedPart:
    """A sealed segment that is joined with others.

    Attributes:
        start: number of its first frame among the processed frames.
        path: path of its file.
    """

    start: int
    path: Place


class ShardWriter:
    """Writes one shard: encoded chunks one after the other, then the index of where each lies; a context manager.

    A chunk that is never written reads as the array's fill value. A shard without any chunk isn't kept. Chunks of the
    same bytes are stored once, as those of outputs that stand still for long: their entries name the same place.

    Attributes:
        path: path of the shard's file.
        chunks: number of chunks that a whole shard has.

    Source: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
    """

    def __init__(self, path: Path, chunks: int) -> None:
        """Creates the file.

        Args:
            path: path of the shard.
            chunks: number of chunks that a whole shard has.
        """
        self.path, self.chunks = path, chunks
        path.parent.mkdir(parents=True, exist_ok=True)
        self._out = path.open("wb")
        self._index = np.full((chunks, 2), _NO_CHUNK, np.uint64)
        self._places: dict[bytes, int] = {}

    def write(self, number: int, data: bytes) -> None:
        """Adds an encoded chunk.

        Args:
            number: number of the chunk in the shard, from 0.
            data: its bytes, as the array's codecs leave them.
        """
        end = self._out.tell()
        place = self._places.setdefault(sha256(data).digest(), end)
        self._index[number] = place, len(data)
        if place == end:
            self._out.write(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._out:
            if error is None:
                index = self._index.astype("<u8").tobytes()
                self._out.write(index + struct.pack("<I", google_crc32c.value(index)))
        if (self._index == _NO_CHUNK).all():
            self.path.unlink()


def join_arrays(
    folder: Path, parts: Sequence[SealedPart], frames: int, segment_frames: int, shard_frames: int = SHARD_FRAMES
) -> Sums:
    """Joins the arrays of sealed segments; frames are the first axis of each.

    Args:
        folder: a Zarr group on a disk, which gets the arrays.
        parts: the segments in order, without gaps.
        frames: frames that they hold together.
        segment_frames: frames of every segment but the last.
        shard_frames: about the number of frames of a shard; whole segments go into one.

    Returns:
        Size and SHA-256 of the shards by name; the same segments always give the same bytes.

    Raises:
        BrokenSeal: a segment isn't what was sealed.
    """
    shard = segment_frames * max(1, min(shard_frames // segment_frames, -(-frames // segment_frames)))
    group = zarr.open_group(folder, mode="a", zarr_format=3)
    with SealedZip(parts[0].path) as first:
        arrays = {name: _create_joined(group, name, array, frames, shard) for name, array in _arrays_of(first)}
    sums: dict[str, tuple[int, str]] = {}
    for begin in range(0, frames, shard):
        inside = [part for part in parts if begin <= part.start < begin + shard]
        for path in _join_shard(folder, arrays, inside, begin, shard):
            sums[path.relative_to(folder).as_posix()] = path.stat().st_size, file_sha256(path)
    return sums


def _join_shard(
    folder: Path, arrays: Mapping[str, "zarr.Array[Any]"], parts: Sequence[SealedPart], begin: int, frames: int
) -> list[Path]:
    """Writes the shard of every array that starts at a frame; returns those that have a chunk."""
    with ExitStack() as opened:
        writers = {
            name: opened.enter_context(
                ShardWriter(folder / _chunk_name(name, array, begin // frames), frames // array.chunks[0])
            )
            for name, array in arrays.items()
        }
        for part in parts:
            with SealedZip(part.path) as sealed:
                for name, array in arrays.items():
                    _copy_chunks(sealed, name, array, writers[name], (part.start - begin) // array.chunks[0])
    return [writer.path for writer in writers.values() if writer.path.is_file()]


def _copy_chunks(sealed: SealedZip, name: str, array: "zarr.Array[Any]", writer: ShardWriter, first: int) -> None:
    """Copies a segment's chunks of an array into a shard, from its chunk `first` on.

    zarr writes no file for a chunk that holds nothing but the fill value.
    """
    for chunk in range(writer.chunks - first):
        file = _chunk_name(name, array, chunk)
        if file in sealed.files:
            writer.write(first + chunk, sealed.read(file))


def _chunk_name(name: str, array: "zarr.Array[Any]", number: int) -> str:
    """File of a chunk or shard, by its number along time; the other axes aren't divided."""
    return "/".join([name, "c", str(number), *"0" * (array.ndim - 1)])


def _arrays_of(sealed: SealedZip) -> "Iterator[tuple[str, zarr.Array[Any]]]":
    """Descriptions of a segment's arrays, by name."""
    described = {name: sealed.read(name) for name in sealed.files if name.endswith("zarr.json")}
    with reraise_damage(BrokenSeal, str(sealed.path), "remove it and run the same command again"):
        store = MemoryStore({name: Buffer.from_bytes(data) for name, data in described.items()})
        group = zarr.open_group(store, mode="r")
        for name in sorted(described):
            found = group.get(name.removesuffix("/zarr.json"))
            if isinstance(found, zarr.Array):
                yield name.removesuffix("/zarr.json"), found


def _create_joined(group: zarr.Group, name: str, like: "zarr.Array[Any]", frames: int, shard: int) -> "zarr.Array[Any]":
    """An array of all frames with the chunks of a segment's array, in shards."""
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
