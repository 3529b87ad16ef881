"""Fingerprints and differences."""

from hypothesis import given
from hypothesis import strategies as st

from deltascene.cache.keys import file_sha256, fingerprint, first_difference

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3)
)
MAPPING = st.dictionaries(st.text(max_size=8), PLAIN, max_size=6)


@given(MAPPING)
def test_a_fingerprint_ignores_the_order_of_keys(parts):
    assert fingerprint(parts) == fingerprint(dict(reversed(parts.items())))


@given(MAPPING, MAPPING)
def test_fingerprints_differ_exactly_where_a_difference_is_named(a, b):
    a, b = ({key: value for key, value in side.items() if value is not None} for side in (a, b))
    assert (first_difference(a, b) is None) == (fingerprint(a) == fingerprint(b))


def test_the_first_difference_names_key_and_both_values():
    assert first_difference({"b": 1, "a": 2}, {"b": 3, "a": 2, "c": 4}) == ("b", 1, 3)
    assert first_difference({"a": 1}, {}) == ("a", 1, None)


def test_file_sum(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert file_sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
