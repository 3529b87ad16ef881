"""What crosses a split: encoded once, the same bits wherever it is done, and decoded to the same values."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deltascene.cache.segment import decoded, encoded
from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.codec import decode_rows, encode_rows
from deltascene.pipeline.numerics.settle import split_dtype

values = arrays(
    np.float32,
    st.tuples(st.integers(0, 5), st.integers(1, 7)),
    elements=st.floats(width=32, allow_nan=False),
)


@given(values)
def test_bfloat16_is_what_the_archive_makes_of_it_bit_for_bit(rows):
    stored = encode_rows(torch.from_numpy(rows), "bfloat16")
    assert (stored.dtype, stored.shape) == (np.uint16, rows.shape)
    np.testing.assert_array_equal(stored, encoded(rows, "bfloat16"))
    back = decode_rows(stored)
    assert back.dtype == torch.float32
    np.testing.assert_array_equal(back.numpy(), decoded(stored, "bfloat16"))
    np.testing.assert_array_equal(encode_rows(back, "bfloat16"), stored)  # what was rounded once stays


@given(values)
def test_float32_is_kept_as_it_is(rows):
    stored = encode_rows(torch.from_numpy(rows), "float32")
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(decode_rows(stored).numpy(), rows)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_may_be_read_only_strided_or_none(dtype):
    """As they come out of a store or another process; a warning would be an error here."""
    rows = torch.randn(6, 8)
    stored = encode_rows(rows, dtype)
    expected = decode_rows(stored.copy())
    stored.flags.writeable = False
    assert torch.equal(decode_rows(stored), expected)
    assert torch.equal(decode_rows(np.frombuffer(stored.tobytes(), stored.dtype).reshape(6, 8)), expected)
    assert torch.equal(decode_rows(stored[::2]), expected[::2])
    assert decode_rows(stored[:0]).shape == (0, 8)


def test_what_is_not_a_number_stays_none():
    stored = encode_rows(torch.tensor([[float("nan"), float("inf"), -float("inf")]]), "bfloat16")
    assert torch.isnan(decode_rows(stored)[0, 0])
    assert decode_rows(stored)[0, 1:].tolist() == [float("inf"), -float("inf")]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("asked", ["native", "float32", "bfloat16"])
def test_native_is_the_type_that_blocks_multiply(asked, dtype):
    config = load_config(overrides=[f"numerics.split_dtype={asked}", f"numerics.dtype={dtype}"])
    assert split_dtype(config) == (dtype if asked == "native" else asked)
