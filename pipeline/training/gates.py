"""Hard-concrete gates: one for each tensor of a delta, trained towards closing, so that a sub-task learns its split.

A gate's value is z = clip(3 sigmoid(logit u + a) - 1.5, 0, 1) with u drawn evenly from (0, 1) in training and 1/2 after
it; it is penalised by the sum of sigmoid(a). T gates.

Source: Louizos, Welling, Kingma, "Learning Sparse Neural Networks through L0 Regularization", ICLR 2018, in the form
of Shoouri et al., ICCV 2023.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_OPEN = 3.0  # where a gate starts: nearly always 1


class Gates(nn.Module):
    """Gates by the names of the tensors that they open."""

    def __init__(self, names: Sequence[str]) -> None:
        """Starts with all gates open.

        Args:
            names: of the tensors.
        """
        super().__init__()
        self.names = tuple(names)
        self.a_T = nn.Parameter(torch.full((len(names),), _OPEN))

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Values for a step, each a number in [0, 1]."""
        u_T = torch.rand(len(self.names), generator=generator).clamp(1e-4, 1 - 1e-4).to(self.a_T.device)
        return self._named(_stretched(u_T.logit() + self.a_T))

    def settled(self) -> dict[str, Tensor]:
        """Values after training."""
        return self._named(_stretched(self.a_T))

    def penalty(self) -> Tensor:
        """Expected number of open gates, roughly."""
        return self.a_T.sigmoid().sum()

    def _named(self, z_T: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.names, z_T.unbind(), strict=True))


def _stretched(logit_T: Tensor) -> Tensor:
    return (3 * logit_T.sigmoid() - 1.5).clamp(0, 1)
