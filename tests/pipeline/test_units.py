"""Numbers as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltascene.pipeline.units import compact, count, duration, milliseconds, share


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 MAC"), (352, "352 MAC"), (999, "999 MAC"), (999.6, "1.00 kMAC"), (1000, "1.00 kMAC"),
        (9_186_173_952, "9.19 GMAC"), (1.3779e12, "1.38 TMAC"), (99.96e9, "100 GMAC"), (3e21, "3000 EMAC"),
    ],
)  # fmt: skip
def test_compact(value, text):
    assert compact(value, "MAC") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 %"), (1, "100 %"), (0.0004, "< 0.1 %"), (0.99996, "> 99.9 %"), (0.5278, "52.8 %"), (-0.02, "-2.0 %")],
)
def test_share_is_exact_only_where_it_is(value, text):
    assert share(value) == text


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_share_between_is_never_written_as_none_or_all(part):
    assert share(part) not in {"0 %", "0.0 %", "100 %", "100.0 %"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.00 s"),
        (8.314, "8.31 s"),
        (99.94, "99.9 s"),
        (100, "1 min 40 s"),
        (245, "4 min 05 s"),
        (7620, "2 h 07 min"),
    ],
)
def test_duration(value, text):
    assert duration(value) == text


def test_milliseconds_and_counts():
    assert (milliseconds(0.000424), milliseconds(0.0831), milliseconds(0.4121)) == ("0.42 ms", "83.1 ms", "412 ms")
    assert (milliseconds(9.4), milliseconds(20.238)) == ("9400 ms", "20.2 s")
    assert (count(1, "frame"), count(12_500, "frame"), count(7)) == ("1 frame", "12\u202f500 frames", "7")
