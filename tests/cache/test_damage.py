"""What libraries raise on damaged data is told as one error; what says more, passes."""

from errno import ENOSPC

import pytest

from deltascene.cache.damage import reraise_damage
from deltascene.cache.errors import BrokenSeal, NotArchived


@pytest.mark.parametrize(
    "error", [KeyError("x"), TypeError("a\nb"), RecursionError("deep"), MemoryError(), OSError(5, "I/O")]
)
def test_it_is_one_line_with_the_place_and_a_way_out(error):
    line = r"^x\.zarr: can't be read: \w+ at test_damage\.py:\d+: .*; do it again$"
    with pytest.raises(BrokenSeal, match=line), reraise_damage(BrokenSeal, "x.zarr", "do it again"):
        raise error


@pytest.mark.parametrize("error", [NotArchived("segment 3"), OSError(ENOSPC, "full"), AssertionError("ours")])
def test_what_isnt_damage_passes(error):
    with pytest.raises(type(error)) as caught, reraise_damage(BrokenSeal, "x.zarr", "do it again"):
        raise error
    assert caught.value is error
