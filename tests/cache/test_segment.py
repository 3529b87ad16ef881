"""Records, bytes by formula, and bfloat16 without torch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deltascene.cache.errors import WrongRecord
from deltascene.cache.segment import (
    FRAME_BYTES,
    SEGMENT_BYTES,
    check_record,
    decoded,
    encoded,
    estimate_bytes,
    from_bfloat16,
    raw_bytes,
    to_bfloat16,
)

POLICIES = st.lists(st.sampled_from(["dense", "rows", "warped", "held", "skipped"]), max_size=12)
ANY_FLOAT = arrays.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rows": np.arange(12, dtype=np.int32)}, "dense: expected all 13 rows; found 12"),
        ({"rows": np.arange(13)}, "rows: expected int32"),
        ({"rows": np.arange(13, dtype=np.int32)[::-1]}, "expected increasing numbers below 13"),
        ({"rows": np.arange(1, 14, dtype=np.int32)}, "expected increasing numbers below 13"),
        ({"activations": {3: np.zeros((13, 8), np.float32)}}, r"archive points: expected \(3, 4\); found \(3,\)"),
        (
            {"activations": {3: np.zeros((13, 8), np.float32), 4: np.zeros((13, 8))}},
            r"after 4 blocks: expected float32 \[13, 8\]; found float64",
        ),
        ({"change": np.zeros((3, 4), np.uint8)}, r"change: expected uint8 \[12\]; found uint8 \[3, 4\]"),
        ({"flow": np.zeros((2, 11, 14), np.int16)}, "flow: expected on warped frames only; it is dense"),
        ({"policy": "warped", "flow": np.zeros((2, 3, 4), np.int16)}, r"flow: expected int16 \[2, 11, 14\]"),
        ({"policy": "warped"}, "flow: expected on warped frames only"),
    ],
)
def test_a_record_of_another_form_is_refused(info, make_records, change, text):
    record = make_records(info, ["dense"])[0]
    check_record(record, info)
    with pytest.raises(WrongRecord, match=text):
        check_record(replace(record, **change), info)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"dtype": "float64"}, "dtype: expected one of float32, bfloat16; found 'float64'"),
        ({"blocks": ()}, "archive points"),
        ({"blocks": (4, 3)}, "archive points"),
        ({"tokens": 12}, r"tokens: expected 1 \+ 3\*4; found 12"),
        ({"model_size": (42, 55)}, r"model size: expected \(42, 56\)"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(info, change, text):
    with pytest.raises(WrongRecord, match=text):
        replace(info, **change)


def test_bytes_by_hand(info):
    # Three frames: dense, 5 rows, warped. Two points, 8 wide, 4 bytes a value and 4 for the row's number.
    rows = (13 + 5) * (2 * 8 * 4 + 4)
    flow = 2 * 11 * 14 * 2  # ceil(42/4) x ceil(56/4) pairs of int16
    assert raw_bytes(info, [13, 5, 0], 1) == rows + 3 * (12 + FRAME_BYTES) + flow + SEGMENT_BYTES
    half = replace(info, dtype="bfloat16")
    assert raw_bytes(info, [13], 0) - raw_bytes(half, [13], 0) == 13 * 2 * 8 * 2


@given(st.integers(1, 1000), st.integers(0, 4), st.integers(0, 4))
def test_an_estimate_is_the_formula_of_its_shares(info, frames, dense_eighths, warped_eighths):
    dense, warped = dense_eighths / 8, warped_eighths / 8
    estimate = estimate_bytes(info, frames, dense=dense, rows=0.25, warped=warped, segment_frames=100)
    rows = frames * 13 * (dense + (1 - dense - warped) * 0.25)
    expected = rows * (2 * 8 * 4 + 4) + frames * (12 + FRAME_BYTES) + frames * warped * 2 * 11 * 14 * 2
    assert abs(estimate - expected - -(-frames // 100) * SEGMENT_BYTES) <= 2 * 11 * 14 * 2 + 68


@given(ANY_FLOAT)
def test_bfloat16_rounds_as_torch_does(values):
    ours = from_bfloat16(to_bfloat16(values))
    np.testing.assert_array_equal(ours, torch.from_numpy(values).to(torch.bfloat16).float().numpy())


@given(arrays.arrays(np.uint16, st.integers(0, 40)))
def test_bfloat16_bits_read_as_torch_reads_them(halves):
    read = from_bfloat16(halves)
    theirs = torch.from_numpy(halves.view(np.int16)).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(read.view(np.uint32), theirs.view(np.uint32))
    number = ~np.isnan(read)
    np.testing.assert_array_equal(to_bfloat16(read)[number], halves[number])


def test_bfloat16_at_its_corners():
    bits = [0x3F808000, 0x3F818000, 0x7F7FFFFF, 0x7F800001, 0xFFFFFFFF, 0x80000000, 0x00008000, 0xFF800000]
    halves = to_bfloat16(np.array(bits, np.uint32).view(np.float32))
    #                  tie: down  tie: up  overflow  NaN stays both ways    -0      tie: down  -inf
    assert halves.tolist() == [0x3F80, 0x3F82, 0x7F80, 0x7FC0, 0xFFFF, 0x8000, 0x0000, 0xFF80]
    assert to_bfloat16(np.float32([[1, 2], [3, 4]]).T).tolist() == [[0x3F80, 0x4040], [0x4000, 0x4080]]


def test_encoding_is_undone_where_nothing_is_rounded():
    values = np.float32([[0.5, -2], [3, 0]])
    for dtype in ("float32", "bfloat16"):
        np.testing.assert_array_equal(decoded(encoded(values, dtype), dtype), values)
