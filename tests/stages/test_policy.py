from itertools import product

import pytest

from deltascene.stages.policy import choose_policy


@pytest.mark.parametrize(("valid", "first", "identical", "hold_identical"), list(product((False, True), repeat=4)))
def test_every_case(valid, first, identical, hold_identical):
    policy = choose_policy(valid=valid, first=first, identical=identical, hold_identical=hold_identical)
    if not valid:
        assert policy == "skipped"
    elif first or not identical or not hold_identical:
        assert policy == "dense"
    else:
        assert policy == "held"
