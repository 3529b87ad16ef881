"""Bounds on the loss of a policy, turned into the largest residual of a flow at which its frames may be warped.

How much is lost by what a flow leaves unexplained depends on the model, so the curve belongs to the bundle: its
`evidence.policy`, fitted on clips with truth by `benchmarks/evidence.py`. A run keeps the residuals that were found in
its record, so that its decisions can be replayed without the bundle.
"""

import logging
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from deltascene.pipeline.bundles.bundle import Bundle, read_bundle
from deltascene.pipeline.config import Config
from deltascene.pipeline.errors import BundleError
from deltascene.pipeline.text import first_problem

LAST_TO_MEAN = 2.0  # the last frame before rows run loses about twice the mean of those since they ran
MARGIN = 0.8  # share of another model's residual that is taken where a bundle has no curve of its own
_LENDER = "rooms"
_log = logging.getLogger(__name__)

Curve = Annotated[tuple[tuple[float, float], ...], Field(min_length=2)]


class PolicyEvidence(BaseModel):
    """The section `evidence.policy` of a bundle.

    Attributes:
        what: on which clips it was measured.
        size: height and width of the model's input there.
        whole: points (residual over the picture, loss of a warped frame in %), both increasing.
        moving: points (residual in the patches that moved, loss in the moving region in %), both increasing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    what: str = ""
    size: tuple[int, int]
    whole: Curve
    moving: Curve

    @field_validator("whole", "moving")
    @classmethod
    def _rises(cls, curve: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
        points = np.array(curve)
        if points[0, 0] < 0 or (np.diff(points, axis=0) <= 0).any():
            raise ValueError("expected points (residual, loss) of which both numbers increase")
        return curve


def policy_evidence(bundle: Bundle) -> PolicyEvidence | None:
    """The curves in a bundle's evidence; None where it has none.

    Raises:
        BundleError: the section can't be understood.
    """
    section = bundle.entry.evidence.get("policy")
    if section is None:
        return None
    try:
        return PolicyEvidence.model_validate(section)
    except ValidationError as error:
        where = bundle.folder / "bundle.yaml"
        raise BundleError(f"{where}: evidence.policy: {first_problem(error, PolicyEvidence)}") from error


def with_residuals(config: Config) -> Config:
    """A config whose bounds on loss have become bounds on residuals, as far as those are left open.

    Raises:
        BundleError: there is no such model, or its `evidence.policy` can't be understood.
    """
    policy = config.policy
    open_keys = {
        "residual": policy.loss if policy.residual is None else None,
        "residual_moved": policy.loss_moved if policy.residual_moved is None else None,
    }
    if not policy.reuse or not any(open_keys.values()):
        return config
    evidence, share = _curves(config, read_bundle(config.model))
    curves = {"residual": evidence.whole, "residual_moved": evidence.moving}
    found = {
        key: round(share * residual_at(curves[key], LAST_TO_MEAN * loss), 4)
        for key, loss in open_keys.items()
        if loss is not None
    }
    return config.model_copy(update={"policy": policy.model_copy(update=found)})


def residual_at(curve: Sequence[tuple[float, float]], loss_percent: float) -> float:
    """The residual at which a warped frame loses so much; outside the curve, its last two points are followed."""
    points = np.array(curve)
    residuals, losses = points[:, 0], points[:, 1]
    if loss_percent <= losses[0]:
        return float(residuals[0] * loss_percent / losses[0]) if losses[0] > 0 else float(residuals[0])
    if loss_percent >= losses[-1]:
        rise = (losses[-1] - losses[-2]) / (residuals[-1] - residuals[-2])
        return float(residuals[-1] + (loss_percent - losses[-1]) / rise)
    return float(np.interp(loss_percent, losses, residuals))


def _curves(config: Config, bundle: Bundle) -> tuple[PolicyEvidence, float]:
    """The curves for a bundle, and the share of their residuals that is trusted."""
    own = policy_evidence(bundle)
    if own is not None and config.input.size in (None, own.size):
        return own, 1.0
    lender = own or policy_evidence(read_bundle(_LENDER))
    assert lender is not None, "the packaged model has curves"
    whose = "its curves were measured at another size" if own else "it has no evidence.policy"
    _log.warning(
        "%s: not calibrated: %s; residuals are kept %.0f %% lower than those of %s; `deltascene tune` measures them",
        bundle.name,
        whose,
        100 * (1 - MARGIN),
        bundle.name if own else _LENDER,
    )
    return lender, MARGIN
