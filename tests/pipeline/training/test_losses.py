"""Losses: nothing at the truth, growing away from it, unknown cells left out."""

import math

import pytest
import torch

from deltascene.pipeline.training.losses import LOSSES, cell_loss
from deltascene.stages.kinds import KINDS, Classes, Heatmaps, Scalar, Stored, Vector


def test_every_kind_has_a_loss():
    assert LOSSES.keys() == KINDS.keys()


def test_classes_by_hand_and_unlabelled_cells_do_not_count():
    raw = torch.tensor([[0.0, 0.0, 0.0, 9.0]])  # 2 classes, 2 cells, channel first
    assert cell_loss(raw, torch.tensor([[1, 255]]), Classes(("a", "b"))).item() == pytest.approx(math.log(2))


def test_log_depth_by_hand_and_zero_truth_does_not_count():
    kind = Scalar("m", (0.1, 10.0), log=True)
    truth = torch.tensor([[2.0, 0.0]])
    raw = torch.tensor([[math.log(2.0) + 0.5, 50.0]])
    assert cell_loss(raw, truth, kind).item() == pytest.approx(0.5 + 0.5 * (math.exp(0.5) - 1), rel=1e-5)
    assert cell_loss(torch.tensor([[math.log(2.0), 9.0]]), truth, kind).item() == pytest.approx(0, abs=1e-6)


def test_a_plain_scalar_may_be_zero_or_negative():
    assert cell_loss(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, -2.0]]), Scalar()).item() == pytest.approx(0.5)


def test_vectors_by_angle_alone_and_invalid_ones_do_not_count():
    truth = torch.tensor([[[0, 0, 127], [0, 0, 0]]], dtype=torch.int8)
    right, wrong = torch.tensor([[0.0, 5, 0, 5, 3.0, 5]]), torch.tensor([[3.0, 5, 0, 5, 0.0, 5]])
    assert cell_loss(right, truth, Vector()).item() == pytest.approx(0, abs=1e-3)
    assert cell_loss(wrong, truth, Vector()).item() == pytest.approx(1.5, abs=1e-3)


def test_heatmaps_by_hand():
    kind = Heatmaps(("edge",), stored=Stored("uint8", 255, 0))
    assert cell_loss(torch.zeros(1, 2), torch.tensor([[255, 0]], dtype=torch.uint8), kind).item() == pytest.approx(
        math.log(2)
    )
