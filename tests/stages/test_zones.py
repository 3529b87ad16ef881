"""Zones become patches, whatever the frame's size; what is in them is drawn darker."""

import numpy as np

from deltascene.stages.input_plan import InputPlan, plan_input
from deltascene.stages.types import TokenGrid
from deltascene.stages.zones import ignored_patches, shaded

GRID = TokenGrid(height=16, width=22, patch=14, prefix=1)
PLAN = InputPlan((480, 640), GRID.image_size, (0, 0, *GRID.image_size))


def box(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def test_patches_that_are_covered_by_half_are_in_a_zone():
    width, height = 1 / 22, 1 / 16
    shares = box(2 * width, 3 * height, 6.6 * width, 5.4 * height)
    expected = np.zeros((16, 22), bool)
    expected[3:5, 2:7] = True
    np.testing.assert_array_equal(ignored_patches([shares], PLAN, GRID), expected.ravel())
    pixels = [(x * 640, y * 480) for x, y in shares]
    np.testing.assert_array_equal(ignored_patches([pixels], PLAN, GRID), expected.ravel())
    np.testing.assert_array_equal(ignored_patches([box(0, 0, 640, 480)], PLAN, GRID), np.ones(352, bool))
    assert ignored_patches([], PLAN, GRID) is None
    assert ignored_patches([box(700, 0, 900, 90)], PLAN, GRID) is None  # outside of the frame


def test_zones_follow_the_picture_in_a_letterbox():
    plan = plan_input((270, 480), 14, size=(224, 308), short_side=None, resize="letterbox")
    top, _, height, _ = plan.content
    rows = ignored_patches([box(0, 0, 1, 1)], plan, GRID).reshape(16, 22).all(1).nonzero()[0]
    assert rows.min() * 14 >= top - 7
    assert (rows.max() + 1) * 14 <= top + height + 7
    assert len(rows) * 14 >= height - 14


def test_the_picture_is_darker_in_the_zone_alone():
    ignored = ignored_patches([box(0, 0, 0.5, 1)], PLAN, GRID).nonzero()[0]
    picture = shaded(np.full((480, 640, 3), 200, np.uint8), ignored.tolist(), PLAN, 14)
    assert (picture[:, :320] == 100).all()
    assert (picture[:, 320:] == 200).all()
