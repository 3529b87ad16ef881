"""Boxes hold all that is marked, overlap little, and are few."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deltascene.stages.boxes import MOST_BOXES, boxes_around, scaled, widened


@given(st.integers(1, 30), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**16))
def test_every_mark_is_in_one_of_few_boxes(height, width, share, seed):
    marked = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    boxes, left = boxes_around(marked), marked.copy()
    for box in boxes:
        assert marked[box].any()
        left[box] = 0
    assert not left.any()
    assert len(boxes) <= MOST_BOXES
    assert sum(marked[box].size for box in boxes) <= 4 * marked.size


def test_boxes_are_joined_where_that_is_no_larger():
    marked = np.zeros((20, 30), np.uint8)
    marked[2:5, 3:9] = marked[2:5, 20:22] = 1
    assert boxes_around(marked) == [(slice(2, 5), slice(3, 9)), (slice(2, 5), slice(20, 22))]
    marked[:] = 0
    marked[2, 3:9], marked[2:8, 3], marked[7, 5:9] = 1, 1, 1  # the last lies in the box of the others
    assert boxes_around(marked) == [(slice(2, 8), slice(3, 9))]
    assert boxes_around(np.zeros((4, 4), np.uint8)) == []


def test_a_box_is_widened_inside_of_the_picture_and_scaled_outwards():
    box = (slice(1, 3), slice(0, 7))
    assert widened(box, 2, (4, 20)) == (slice(0, 4), slice(0, 9))
    assert scaled(box, (4, 20), (14, 77)) == (slice(3, 11), slice(0, 27))
