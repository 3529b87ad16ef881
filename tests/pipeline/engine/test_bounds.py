"""Bounds on loss become a price by the table in a bundle's evidence, or by that of the packaged model."""

import logging
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.bounds import MARGIN, PolicyEvidence, price_for, with_price
from deltascene.pipeline.errors import BundleError

ROWS = [[0.01, 0.2, 1.0], [0.02, 0.8, 2.0], [0.04, 1.2, 8.0]]
TABLE = PolicyEvidence(size=(224, 308), prices=ROWS)


@pytest.fixture
def with_table(tiny, tmp_path):
    """A tiny bundle's description with a section `evidence.policy`; prices need no weights."""

    def write(section) -> str:
        entry = yaml.safe_load((Path(tiny) / "bundle.yaml").read_text())
        entry["evidence"] = {"policy": section}
        (tmp_path / "bundle.yaml").write_text(yaml.safe_dump(entry))
        return str(tmp_path)

    return write


def config_of(model, *overrides):
    return load_config("defaults", overrides=overrides, values={"model": model})


@pytest.mark.parametrize(
    ("loss", "loss_moved", "price"),
    [(0.8, None, 0.02), (1.0, None, 0.03), (None, 5.0, 0.03), (0.8, 8.0, 0.02), (1.2, 2.0, 0.02), (0.1, None, 0.005)],
)
def test_the_stricter_bound_gives_the_price(loss, loss_moved, price):
    assert price_for(TABLE, loss, loss_moved) == pytest.approx(price)


@given(st.floats(0.01, 20), st.floats(0.01, 20))
def test_a_larger_bound_never_gives_a_lower_price(one, other):
    low, high = sorted((one, other))
    assert price_for(TABLE, low, None) <= price_for(TABLE, high, None) <= ROWS[-1][0]
    assert price_for(TABLE, None, low) <= price_for(TABLE, None, high)


def test_a_bundles_own_table_is_taken_in_full_at_its_size(with_table, caplog):
    model = with_table({"size": [224, 308], "prices": ROWS})
    assert with_price(config_of(model, "policy.loss=0.8")).policy.price == 0.02
    assert not caplog.records
    assert with_price(config_of(model, "policy.loss=0.8", "input.size=[448,616]")).policy.price == 0.02 * MARGIN
    assert "not calibrated at this size" in caplog.text


def test_a_bundle_without_a_table_borrows_with_a_margin_and_says_so(tiny, caplog):
    caplog.set_level(logging.WARNING)
    lent = with_price(config_of("rooms", "policy.loss=1", "policy.loss_moved=5")).policy.price
    found = with_price(config_of(tiny, "policy.loss=1", "policy.loss_moved=5")).policy.price
    assert found == pytest.approx(MARGIN * lent, abs=1e-5)
    assert "not calibrated (no evidence.policy)" in caplog.text


@pytest.mark.parametrize(
    "overrides", [(), ("policy.loss=1", "policy.price=0.5"), ("policy.loss=1", "policy.reuse=false")]
)
def test_what_isnt_left_open_stays(tiny, overrides):
    config = config_of(tiny, *overrides)
    assert with_price(config) is config


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"size": [224, 308]}, "prices"),
        ({"size": [224, 308], "prices": ROWS[::-1]}, "increase"),
        ({"size": [224, 308], "prices": ROWS[:1]}, "prices"),
        ({"size": [224, 308], "prices": ROWS, "more": 1}, "more"),
        ("much", "evidence.policy"),
    ],
)
def test_a_table_that_cant_be_understood_is_told_in_a_line(with_table, section, told):
    with pytest.raises(BundleError, match="evidence.policy") as error:
        with_price(config_of(with_table(section), "policy.loss=1"))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_the_packaged_models_prices_rise():
    from deltascene.pipeline.bundles.bundle import read_bundle
    from deltascene.pipeline.engine.bounds import policy_evidence

    evidence = policy_evidence(read_bundle("rooms"))
    assert evidence is not None
    assert (np.diff(np.array(evidence.prices), axis=0) > 0).all()
