"""Room seeds of each split; they never change, so that no test room is ever trained on."""

from dataclasses import dataclass

SEEDS_PER_SPLIT = 100_000


@dataclass(frozen=True)
class Split:
    """A range of room seeds.

    Attributes:
        name: train, val, test or clip.
        first_seed: first seed of its range of SEEDS_PER_SPLIT.
    """

    name: str
    first_seed: int


SPLITS = (Split("train", 0), Split("val", 100_000), Split("test", 200_000), Split("clip", 300_000))


def seeds_of(name: str, count: int) -> range:
    """The first seeds of a split.

    Raises:
        ValueError: there is no such split, or it has fewer seeds.
    """
    found = [split for split in SPLITS if split.name == name]
    if not found:
        raise ValueError(f"split {name!r} is none of {', '.join(split.name for split in SPLITS)}")
    if not 0 <= count <= SEEDS_PER_SPLIT:
        raise ValueError(f"{count} rooms asked for in split {name}, it has 0 to {SEEDS_PER_SPLIT}")
    return range(found[0].first_seed, found[0].first_seed + count)


def split_of(seed: int) -> str:
    """Name of the split that a seed belongs to.

    Raises:
        ValueError: the seed belongs to none.
    """
    for split in SPLITS:
        if split.first_seed <= seed < split.first_seed + SEEDS_PER_SPLIT:
            return split.name
    raise ValueError(f"seed {seed} belongs to no split, known are 0 to {SPLITS[-1].first_seed + SEEDS_PER_SPLIT - 1}")
