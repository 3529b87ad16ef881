"""predictions.zarr: what is written is read back, segment by segment, in a store that plain zarr reads too."""

from hashlib import sha256

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from deltascene.cache.errors import BrokenSeal
from deltascene.cache.seal import write_part
from deltascene.cache.shards import SHARD_FRAMES, SealedPart, join_arrays
from deltascene.pipeline.runs.predictions import PredictionReader, PredictionWriter, plan_layout, write_small
from deltascene.stages.kinds import Classes, Heatmaps, Scalar, Vector

KINDS = {"parts": Classes(("a", "b")), "height": Scalar("m"), "flow": Vector(), "hands": Heatmaps(("l", "r"))}
SIZE, PATCHES = (4, 6), (2, 3)
ABOUT = {"next_index": 0, "fingerprint": "f", "token": "t"}


def frame(number):
    rng = np.random.default_rng(number)
    flow = rng.normal(size=(*SIZE, 3)).astype(np.float32)
    return {
        "parts": rng.integers(0, 2, SIZE).astype(np.uint8),
        "height": rng.random(SIZE, np.float32),
        "flow": flow / np.linalg.norm(flow, axis=-1, keepdims=True),
        "hands": rng.random((*SIZE, 2), np.float32),
    }


def stored(number):
    return {task: KINDS[task].stored.encode(value) for task, value in frame(number).items()}


def age(number):
    return np.full(SIZE, number % 3, np.uint8)


def change(number):
    return np.full(PATCHES, 40 + number, np.uint8)


def write(folder, numbers, segment=8):
    """Sealed parts of segments."""
    layout, parts = plan_layout(KINDS, SIZE, segment, PATCHES), []
    for start in range(0, len(numbers), segment):
        inside, scratch = numbers[start : start + segment], folder / f"try{start}"
        writer = PredictionWriter(scratch, layout, len(inside))
        for number in inside:
            nothing = ({}, None, np.zeros(PATCHES, np.uint8))
            writer.add(*(nothing if number is None else (stored(number), age(number), change(number))))
        writer.flush()
        path = folder / f"{start:08d}.zip"
        write_part(scratch, path, {**ABOUT, "start": start, "frames": len(inside)})
        parts.append(SealedPart(start, path))
    return parts


def join(folder, numbers, segment=8, shard=SHARD_FRAMES):
    """`predictions.zarr` of them."""
    path = folder / "predictions.zarr"
    sums = join_arrays(path, write(folder, numbers, segment), len(numbers), segment, shard)
    there = [number is not None for number in numbers]
    flags = dict.fromkeys(KINDS, there)
    write_small(path, range(len(numbers)), np.arange(len(numbers)) / 10, flags, {"fps": 10.0, "frame_size": [8, 12]})
    return path, sums


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.none() | st.integers(0, 99), min_size=1, max_size=21),
    st.sampled_from([1, 4, 6, 8]),
    st.sampled_from([1, 8, 4096]),
)
def test_round_trip_with_gaps(tmp_path_factory, numbers, segment, shard):
    path, sums = join(tmp_path_factory.mktemp("p"), numbers, segment, shard)
    flags = [number is not None for number in numbers]
    assert sums == {name: (len(data), sha256(data).hexdigest()) for name, data in shards(path).items()}
    reader = PredictionReader(path)
    for place, number in enumerate(numbers):
        for task, kind in KINDS.items():
            found = reader.stored(task, place)
            if number is None:
                np.testing.assert_array_equal(found, np.full_like(found, kind.stored.fill))
            else:
                np.testing.assert_array_equal(found, kind.stored.encode(frame(number)[task]))
                np.testing.assert_array_equal(reader.age(task, place), age(number))
                np.testing.assert_array_equal(reader.change(place), change(number))
    assert reader.valid["parts"].tolist() == flags


def test_plain_zarr_reads_it_with_fills_and_descriptions(tmp_path):
    path, _ = join(tmp_path, [1, None])
    group = zarr.open_group(path, mode="r")
    assert group["height"].dtype == np.float16
    assert np.isnan(group["height"][1]).all()
    assert (group["parts"][1] == 255).all()
    assert group["parts"].attrs["labels"] == ["a", "b"]
    assert group.attrs["fps"] == 10.0


def test_chunks_divide_the_segment():
    assert plan_layout(KINDS, SIZE, 256).chunk_frames == 16
    assert plan_layout(KINDS, SIZE, 40).chunk_frames == 10
    assert plan_layout(KINDS, SIZE, 251).chunk_frames == 1


def test_an_hour_is_a_few_files(tmp_path):
    """Shards hold many segments: what is counted here is frames, not bytes."""
    path, sums = join(tmp_path, [1, None, 2] * 30, segment=1)
    assert {name.split("/c/")[0] for name in sums} == {*KINDS, *(f"age/{task}" for task in KINDS), "change"}
    assert len(sums) == 9
    assert set(sums) == set(shards(path))


def test_a_part_that_was_harmed_is_not_joined(tmp_path, harm):
    parts = write(tmp_path, [1, 2, 3])
    harm(parts[0].path, "flow/c/0/0/0/0")
    with pytest.raises(BrokenSeal, match="flow/c/0/0/0/0"):
        join_arrays(tmp_path / "predictions.zarr", parts, 3, 8)


def test_a_group_that_was_not_assembled_is_no_result(tmp_path):
    join_arrays(tmp_path / "predictions.zarr", write(tmp_path, [1]), 1, 8)
    with pytest.raises(FileNotFoundError, match="not assembled"):
        PredictionReader(tmp_path / "predictions.zarr")


def shards(path):
    """Files of values by their name, but for the small arrays."""
    small = ("index", "pts_s", "valid")
    names = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    return {
        name: file.read_bytes()
        for name, file in names.items()
        if not name.endswith("zarr.json") and name.split("/")[0] not in small
    }
