import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltascene.pipeline.training.rooms.splits import SEEDS_PER_SPLIT, SPLITS, seeds_of, split_of


def test_ranges_are_disjoint() -> None:
    ranges = [seeds_of(split.name, SEEDS_PER_SPLIT) for split in SPLITS]
    for first in ranges:
        for second in ranges:
            assert first is second or first.stop <= second.start or second.stop <= first.start


@given(st.sampled_from([split.name for split in SPLITS]), st.integers(0, SEEDS_PER_SPLIT - 1))
def test_a_seed_knows_its_split(name: str, offset: int) -> None:
    assert split_of(seeds_of(name, SEEDS_PER_SPLIT)[offset]) == name


def test_unknown_split_and_seed_are_refused() -> None:
    with pytest.raises(ValueError, match="'dev' is none of train, val, test, clip"):
        seeds_of("dev", 1)
    with pytest.raises(ValueError, match="belongs to no split"):
        split_of(-1)
    with pytest.raises(ValueError, match="it has 0 to"):
        seeds_of("test", SEEDS_PER_SPLIT + 1)
