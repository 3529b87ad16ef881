"""predictions.zarr: what is written is read back, segment by segment, in a store that plain zarr reads too."""

import json

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.predictions import (
    SHARD_BYTES,
    PredictionReader,
    PredictionWriter,
    assemble,
    create_arrays,
    plan_layout,
)
from deltascene.stages.kinds import Classes, Heatmaps, Scalar, Vector

KINDS = {"parts": Classes(("a", "b")), "height": Scalar("m"), "flow": Vector(), "hands": Heatmaps(("l", "r"))}
SIZE, PATCHES = (4, 6), (2, 3)


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


def write(path, numbers, segment=8, start=0):
    layout = plan_layout(KINDS, SIZE, segment, PATCHES)
    create_arrays(path, layout, {"fps": 10.0, "frame_size": [8, 12]}, start + len(numbers))
    writer = PredictionWriter(path, layout)
    files = []
    for first in range(0, len(numbers), segment):
        writer.begin_segment(start + first)
        for number in numbers[first : first + segment]:
            nothing = ({}, None, np.zeros(PATCHES, np.uint8))
            writer.add(*(nothing if number is None else (stored(number), age(number), change(number))))
        files.append(writer.finish_segment())
    return files


@settings(max_examples=8, deadline=None)
@given(st.lists(st.none() | st.integers(0, 99), min_size=1, max_size=21), st.sampled_from([1, 4, 8]))
def test_round_trip_with_gaps(tmp_path_factory, numbers, segment):
    path = tmp_path_factory.mktemp("p") / "predictions.zarr"
    write(path, numbers, segment)
    flags = [number is not None for number in numbers]
    assemble(path, range(len(numbers)), np.arange(len(numbers)) / 10, dict.fromkeys(KINDS, flags))
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


def test_a_segments_files_never_change_when_later_ones_are_written(tmp_path):
    path = tmp_path / "predictions.zarr"
    first = write(path, list(range(8)))[0]
    before = {file: file.read_bytes() for file in first}
    assert {file.parts[-5] if file.parts[-4] == "c" else file.parts[-6] for file in first} >= {"height", "flow"}
    write(path, list(range(8, 13)), start=8)
    assert {file: file.read_bytes() for file in first} == before


def test_a_torn_shard_of_an_unsealed_try_is_replaced(tmp_path):
    path = tmp_path / "predictions.zarr"
    for file in write(path, list(range(5)))[0]:
        file.write_bytes(file.read_bytes()[:7])
    write(path, list(range(5)))
    assemble(path, range(5), [0.0] * 5, {task: [True] * 5 for task in KINDS})
    np.testing.assert_array_equal(PredictionReader(path).stored("parts", 3), frame(3)["parts"])


def test_plain_zarr_reads_it_with_fills_and_descriptions(tmp_path):
    path = tmp_path / "predictions.zarr"
    write(path, [1, None])
    assemble(path, [0, 1], [0.0, 0.1], {task: [True, False] for task in KINDS})
    group = zarr.open_group(path, mode="r")
    assert group["height"].dtype == np.float16
    assert np.isnan(group["height"][1]).all()
    assert (group["parts"][1] == 255).all()
    assert group["parts"].attrs["labels"] == ["a", "b"]
    assert group.attrs["fps"] == 10.0


def test_shards_divide_the_segment_and_stay_small():
    layout = plan_layout({"flow": Vector()}, (2160, 3840), 256)
    assert 256 % layout.shard_frames == 0
    assert layout.shard_frames * 2160 * 3840 * 3 <= SHARD_BYTES
    assert plan_layout(KINDS, SIZE, 256).shard_frames == 256


def test_a_group_that_was_not_assembled_is_no_result(tmp_path):
    write(tmp_path / "predictions.zarr", [1])
    with pytest.raises(FileNotFoundError, match="not assembled"):
        PredictionReader(tmp_path / "predictions.zarr")


@pytest.mark.parametrize(
    "change", [{"data_type": "float64"}, {"shape": [8, 9999, 9999]}, {"codecs": []}, {"node_type": "x"}, None]
)
def test_arrays_that_somebody_described_otherwise_are_refused(tmp_path, change):
    layout = plan_layout(KINDS, SIZE, 8)
    create_arrays(tmp_path / "p.zarr", layout, {}, 8)
    path = tmp_path / "p.zarr/height/zarr.json"
    text = "\x93" if change is None else json.dumps(json.loads(path.read_text()) | change)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(OutputError, match=r"p\.zarr.*--force"):
        create_arrays(tmp_path / "p.zarr", layout, {}, 8)
