import numpy as np
import pytest

from deltascene.stages.colours import distinct, ramp


@pytest.mark.parametrize("count", [0, 1, 24, 150])
def test_labels_get_colours_of_their_own(count):
    found = distinct(count)
    assert len(set(found)) == len(found) == count
    assert all(0 <= part <= 255 for colour in found for part in colour)
    assert distinct(count + 1)[:count] == found


def test_the_ramp_runs_from_blue_to_red():
    found = ramp(np.array([0.0, 0.5, 1.0, -3.0, 7.0, np.nan, np.inf]))
    np.testing.assert_array_equal(found[0], [48, 18, 59])
    np.testing.assert_array_equal(found[1], [162, 252, 60])
    np.testing.assert_array_equal(found[2], [122, 4, 3])
    np.testing.assert_array_equal(found[3:5], found[[0, 2]])
    np.testing.assert_array_equal(found[5:], np.zeros((2, 3)))


def test_the_ramp_keeps_the_shape():
    assert ramp(np.zeros((4, 6), np.float32)).shape == (4, 6, 3)
    assert ramp(np.zeros((4, 6), np.float32)).dtype == np.uint8
