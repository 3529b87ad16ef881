"""Hard-concrete gates: by hand, open at the start, and closed where they don't help."""

import math

import pytest
import torch

from deltascene.pipeline.training.gates import Gates


def set_to(gates, *values):
    with torch.no_grad():
        gates.a_T.copy_(torch.tensor(values))
    return gates


def test_values_by_hand():
    gates = set_to(Gates(["closed", "half", "open"]), -1.0, math.log(2), 9.0)  # sigmoids 0.27, 2/3, 1
    assert {name: value.item() for name, value in gates.final().items()} == pytest.approx(
        {"closed": 0, "half": 0.5, "open": 1}
    )
    assert gates.penalty().item() == pytest.approx(1 / (1 + math.e) + 2 / 3 + 1, abs=1e-3)


def test_all_are_open_at_the_start():
    gates = Gates(["a", "b"])
    assert [value.item() for value in gates.final().values()] == [1, 1]
    drawn = [value.item() for seed in range(200) for value in gates.draw(torch.Generator().manual_seed(seed)).values()]
    assert all(0 <= value <= 1 for value in drawn)
    assert sum(value == 1 for value in drawn) > 0.7 * len(drawn)


def test_a_draw_follows_from_its_generator_alone():
    gates = set_to(Gates(["a", "b"]), 0.0, 0.3)
    one, again, other = (gates.draw(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_the_penalty_closes_what_does_not_help_and_leaves_what_does():
    """The loss falls with the first gate alone; the second one costs its penalty for nothing."""
    gates = Gates(["helps", "idle"])
    optimiser = torch.optim.Adam(gates.parameters(), lr=0.1)
    for step in range(150):
        z = gates.draw(torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        ((1 - z["helps"]) ** 2 + 0.0 * z["idle"] + 0.05 * gates.penalty()).backward()
        optimiser.step()
    final = gates.final()
    assert final["helps"].item() == 1
    assert final["idle"].item() == 0
