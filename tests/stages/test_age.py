"""Ages of patches: nought where rows ran, one more everywhere else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deltascene.stages.age import age_map, aged
from deltascene.stages.types import TokenGrid

GRID = TokenGrid(height=2, width=3, patch=4, prefix=1)
frames = st.lists(st.none() | st.sets(st.integers(0, 5)), max_size=12)


@given(frames)
def test_every_patch_counts_from_when_it_was_computed(computed):
    ages, last = aged(None, None, GRID, 0.0), [0] * 6
    for number, patches in enumerate(computed, start=1):
        before = ages.frames.copy()
        for patch in range(6) if patches is None else patches:
            last[patch] = number
        which = None if patches is None else np.array(sorted(patches), np.intp)
        earlier, ages = ages, aged(ages, which, GRID, number / 8)
        np.testing.assert_array_equal(earlier.frames, before)
        assert ages.frames.tolist() == [number - one for one in last]
        assert ages.computed_s.tolist() == [one / 8 for one in last]
        assert ages.oldest_s(number / 8) == (number - min(last)) / 8


def test_a_map_shows_every_pixel_of_a_patch_up_to_255():
    ages = aged(None, None, GRID, 0.0)
    for number in range(300):
        ages = aged(ages, np.array([4], np.intp), GRID, float(number))
    shown = age_map(ages, GRID)
    assert (shown.shape, shown.dtype) == ((8, 12), np.uint8)
    assert (shown[4:, 4:8] == 0).all()
    assert (np.delete(shown.reshape(2, 4, 3, 4).swapaxes(1, 2).reshape(6, 16), 4, axis=0) == 255).all()
