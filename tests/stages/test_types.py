from dataclasses import FrozenInstanceError

import pytest

from deltascene.stages.types import Frame, TokenGrid


def test_a_grid_counts_its_tokens():
    grid = TokenGrid(height=16, width=22, patch=14, prefix=5)
    assert grid.patches == 352
    assert grid.tokens == 357
    assert grid.image_size == (224, 308)


def test_a_frame_is_valid_and_frozen_unless_told_otherwise():
    frame = Frame("clip", 3, 0.12, None)
    assert frame.valid
    assert frame.cause == ""
    with pytest.raises(FrozenInstanceError):
        frame.valid = False
