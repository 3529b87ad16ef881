"""Bounds on the loss of a policy, turned into the price at which it computes.

What a price loses depends on the model, so the table belongs to the bundle: its `evidence.policy`, measured on clips
with truth. A run keeps the price in its record, so that its decisions can be replayed without the bundle.
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

MARGIN = 0.7  # share of another model's price that is taken where a bundle has none of its own
_LENDER = "rooms"
_log = logging.getLogger(__name__)


class PolicyEvidence(BaseModel):
    """The section `evidence.policy` of a bundle.

    Attributes:
        what: on which clips it was measured.
        size: height and width of the model's input there.
        prices: rows (price, loss over the picture in %, loss in the moving region in %), all of which increase.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    what: str = ""
    size: tuple[int, int]
    prices: Annotated[tuple[tuple[float, float, float], ...], Field(min_length=2)]

    @field_validator("prices")
    @classmethod
    def _rise(cls, rows: Sequence[tuple[float, float, float]]) -> Sequence[tuple[float, float, float]]:
        if rows[0][0] <= 0 or (np.diff(np.array(rows), axis=0) <= 0).any():
            raise ValueError("expected rows (price, loss, loss in the moving region) of which all numbers increase")
        return rows


def policy_evidence(bundle: Bundle) -> PolicyEvidence | None:
    """The table in a bundle's evidence; None where it has none.

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


def with_price(config: Config) -> Config:
    """A config whose bounds on loss have become a price, if that is left open.

    Raises:
        BundleError: there is no such model, or its `evidence.policy` can't be understood.
    """
    policy = config.policy
    if not policy.reuse or policy.price is not None or policy.loss is policy.loss_moved is None:
        return config
    evidence, share = _table(config, read_bundle(config.model))
    price = round(share * price_for(evidence, policy.loss, policy.loss_moved), 5)
    return config.model_copy(update={"policy": policy.model_copy(update={"price": price})})


def price_for(evidence: PolicyEvidence, loss: float | None, loss_moved: float | None) -> float:
    """The highest price whose losses keep to both bounds, in percent, between the measured ones.

    A bound below the least measured loss gets a price in proportion, one above the greatest the highest price.
    """
    prices, *losses = np.array(evidence.prices).T
    found = []
    for bound, measured in zip((loss, loss_moved), losses, strict=True):
        if bound is None:
            continue
        below = bound < measured[0]
        found.append(prices[0] * bound / measured[0] if below else np.interp(bound, measured, prices))
    return float(min(found))


def _table(config: Config, bundle: Bundle) -> tuple[PolicyEvidence, float]:
    """The table for a bundle, and the share of its prices that is trusted."""
    own = policy_evidence(bundle)
    if own is not None and config.input.size in (None, own.size):
        return own, 1.0
    lender = own or policy_evidence(read_bundle(_LENDER))
    assert lender is not None, "the packaged model has prices"
    _log.warning(
        "%s: not calibrated %s: the price is %.0f %% below that of %s; `deltascene tune` finds its own",
        bundle.name,
        "at this size" if own else "(no evidence.policy)",
        100 * (1 - MARGIN),
        bundle.name if own else _LENDER,
    )
    return lender, MARGIN
