"""Hard-concrete gates, one for each tensor of a delta; their penalty closes them, so that a sub-task learns its split.

A gate's value is z = clip(3 sigmoid(logit u + a) - 1.5, 0, 1), with u uniform in (0, 1) during training and 1/2 after
it; the penalty is the sum of sigmoid(a). T gates.

Source: Louizos, Welling, Kingma, "Learning Sparse Neural Networks through L0 Regularization", ICLR 2018, in the form
of Shoouri et al., ICCV 2023.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_OPEN = 3.0  # initial a of a gate: its value is nearly always 1


class Gates(nn.Module):
    """Gates by the names of the tensors that they multiply."""

    def __init__(self, names: Sequence[str]) -> None:
        """Initialises all gates as open.

        Args:
            names: names of the tensors.
        """
        super().__init__()
        self.names = tuple(names)
        self.a_T = nn.Parameter(torch.full((len(names),), _OPEN))

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Random values for a training step, each in [0, 1]."""
        u_T = torch.rand(len(self.names), generator=generator).clamp(1e-4, 1 - 1e-4).to(self.a_T.device)
        return self._named(_stretched(u_T.logit() + self.a_T))

    def final(self) -> dict[str, Tensor]:
        """Values after training, without randomness."""
        return self._named(_stretched(self.a_T))

    def penalty(self) -> Tensor:
        """Approximate expected number of open gates."""
        return self.a_T.sigmoid().sum()

    def _named(self, z_T: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.names, z_T.unbind(), strict=True))


def _stretched(logit_T: Tensor) -> Tensor:
    return (3 * logit_T.sigmoid() - 1.5).clamp(0, 1)
