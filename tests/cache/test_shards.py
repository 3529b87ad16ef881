"""Shards written by hand are those of the Zarr format: zarr's own reader is the judge."""

import struct
from hashlib import sha256

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Blosc
from zarr.codecs import BloscCodec

from deltascene.cache.errors import BrokenSeal
from deltascene.cache.seal import write_part
from deltascene.cache.shards import SealedPart, ShardWriter, join_arrays

FILL = 7
SHAPES = {"line": (), "map": (3, 2), "group/vector": (2, 3, 2)}


def values_of(frames, shape, empty, seed=0):
    """Random values; frames in `empty` hold nothing but the fill."""
    values = np.random.default_rng(seed).integers(0, 250, (frames, *shape)).astype(np.uint8)
    values[[frame for frame in empty if frame < frames]] = FILL
    return values


def seal_part(folder, arrays, start, chunk):
    """A sealed segment with these arrays, as zarr writes them."""
    scratch = folder / f"try{start}"
    group = zarr.open_group(scratch, mode="w", zarr_format=3)
    for name, values in arrays.items():
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=(chunk, *values.shape[1:]),
            dtype=values.dtype,
            fill_value=FILL,
            compressors=BloscCodec(cname="zstd"),
            attributes={"name": name},
        )
        array[:] = values
    about = {"start": start, "frames": len(next(iter(arrays.values()))), "next_index": 0, "fingerprint": "f"}
    write_part(scratch, folder / f"{start:08d}.zip", about | {"token": "t"})
    return SealedPart(start, folder / f"{start:08d}.zip")


def seal_parts(folder, arrays, segment, chunk):
    frames = len(next(iter(arrays.values())))
    return [
        seal_part(folder, {name: values[start : start + segment] for name, values in arrays.items()}, start, chunk)
        for start in range(0, frames, segment)
    ]


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 30),
    st.sampled_from([(6, 1), (6, 3), (6, 6), (4, 2), (1, 1)]),
    st.integers(1, 40),
    st.sets(st.integers(0, 29)),
)
def test_zarr_reads_joined_arrays_as_their_parts_were_written(tmp_path_factory, frames, sizes, shard_frames, empty):
    segment, chunk = sizes
    folder = tmp_path_factory.mktemp("shards")
    arrays = {name: values_of(frames, shape, empty) for name, shape in SHAPES.items()}
    out = folder / "joined"
    sums = join_arrays(out, seal_parts(folder, arrays, segment, chunk), frames, segment, shard_frames)
    group = zarr.open_group(out, mode="r")
    for name, values in arrays.items():
        np.testing.assert_array_equal(group[name][:], values)
        assert group[name].chunks[0] == chunk
        assert group[name].shards[0] % segment == 0
        assert dict(group[name].attrs) == {"name": name}
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("c/**/*") if path.is_file()}
    assert sums == {name: (len(data), sha256(data).hexdigest()) for name, data in files.items()}


@pytest.fixture
def sharded(tmp_path):
    """An array of three chunks in one shard, without the shard, and the bytes of its chunks."""
    values = values_of(6, (2,), ())
    made = {"chunks": (2, 2), "fill_value": FILL, "compressors": BloscCodec(cname="zstd")}
    plain = zarr.create_array(tmp_path / "plain", data=values, **made)
    joined = zarr.create_array(tmp_path / "joined", shape=(6, 2), shards=(6, 2), dtype=np.uint8, **made)
    assert plain.chunks == joined.chunks
    return values, joined, [(tmp_path / f"plain/c/{chunk}/0").read_bytes() for chunk in range(3)]


def test_chunks_may_come_in_any_order_and_one_that_is_absent_is_fill(sharded, tmp_path):
    values, joined, chunks = sharded
    with ShardWriter(tmp_path / "joined/c/0/0", 3) as shard:
        shard.write(2, chunks[2])
        shard.write(0, chunks[0])
    values[2:4] = FILL
    np.testing.assert_array_equal(joined[:], values)


@pytest.mark.parametrize("place", [-1, -10, -52])
def test_zarr_checks_the_index(sharded, tmp_path, place):
    """The last 52 bytes: three offsets and sizes of 8 bytes each, and their CRC-32C."""
    values, joined, chunks = sharded
    path = tmp_path / "joined/c/0/0"
    with ShardWriter(path, 3) as shard:
        for number, chunk in enumerate(chunks):
            shard.write(number, chunk)
    np.testing.assert_array_equal(joined[:], values)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        joined[:]


def read_by_the_specification(path, chunks):
    """Encoded chunks of a shard, by its last bytes alone: little-endian offset and size of each, then CRC-32C."""
    data = path.read_bytes()
    index = data[-16 * chunks - 4 : -4]
    assert struct.pack("<I", google_crc32c.value(index)) == data[-4:]
    entries = [struct.unpack_from("<QQ", index, 16 * chunk) for chunk in range(chunks)]
    return [None if place == 2**64 - 1 else data[place : place + size] for place, size in entries]


def test_chunks_of_the_same_bytes_are_stored_once(tmp_path):
    """Outputs of a held stretch: every chunk in it is the same. zarr reads them, whole and in part, and so does a
    reader that knows the specification alone."""
    frames, still = values_of(40, (20, 30), ()), slice(7, 36)
    frames[still] = frames[7]
    arrays = {"held": frames, "busy": values_of(40, (20, 30), (), seed=1)}
    out = tmp_path / "joined"
    sums = join_arrays(out, seal_parts(tmp_path, arrays, 20, 4), 40, 20)
    group = zarr.open_group(out, mode="r")
    for name, values in arrays.items():
        np.testing.assert_array_equal(group[name][:], values)
        np.testing.assert_array_equal(group[name][10:23, 3:9], values[10:23, 3:9])
        np.testing.assert_array_equal(group[name][31], values[31])
    path, codec = out / "held/c/0/0/0", Blosc()
    chunks = read_by_the_specification(path, 10)
    found = [np.frombuffer(codec.decode(chunk), np.uint8).reshape(4, 20, 30) for chunk in chunks]
    np.testing.assert_array_equal(np.concatenate(found), frames)
    assert len(set(chunks)) == 4  # frames 0 to 3, 4 to 7, the still ones, and the last
    assert path.stat().st_size == sum(map(len, set(chunks))) + 16 * 10 + 4
    assert 2 * sums["held/c/0/0/0"][0] < sums["busy/c/0/0/0"][0]


def test_a_shard_without_a_chunk_leaves_no_file(tmp_path):
    with ShardWriter(tmp_path / "c/0/0", 3):
        pass
    assert not (tmp_path / "c/0/0").exists()


def test_a_shard_that_was_broken_off_has_no_index(tmp_path):
    def broken_off():
        with ShardWriter(tmp_path / "0", 3) as shard:
            shard.write(0, b"12345")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert (tmp_path / "0").read_bytes() == b"12345"


def test_chunks_that_do_not_divide_the_shard_are_refused(tmp_path):
    parts = seal_parts(tmp_path, {"line": values_of(6, (), ())}, 6, 4)
    with pytest.raises(BrokenSeal, match="line: expected chunks that divide 6 frames; found 4"):
        join_arrays(tmp_path / "joined", parts, 6, 6)
