"""Truncated deltas: exact where they can be, the nearest of their rank elsewhere, and their errors told as they are."""

import math
from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltascene.stages.backbone import create_backbone
from deltascene.stages.delta import LowRank, check_delta, merge
from deltascene.stages.low_rank import (
    Cut,
    TensorFit,
    below_split,
    compress_blocks,
    relative_change,
    relative_error,
    truncate,
)
from deltascene.stages.rows import run_blocks

DEPTH = 3
SIDES = st.integers(1, 24)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def product(delta):
    return delta.product() if isinstance(delta, LowRank) else delta


def error(change, delta):
    return float((change - product(delta)).norm() / change.norm())


@pytest.fixture(scope="module")
def networks(randomise):
    """Two networks of one architecture, all of whose tensors differ."""
    built = []
    for seed in (5, 6):
        args = {"depth": DEPTH, "embed_dim": 24, "num_heads": 2, "img_size": 56, "weight_init": "skip"}
        built.append(create_backbone("vit_small_patch14_dinov2", args))
        randomise(built[-1], seed)
        built[-1].requires_grad_(False)
    return built


@pytest.fixture
def base(networks):
    return networks[0]


@pytest.fixture
def tuned(networks):
    return networks[1]


@pytest.mark.parametrize("cut", [Cut(rank=1000), Cut(energy=1.0)])
@settings(max_examples=30)
@given(SIDES, SIDES, st.integers(0, 10**6))
def test_everything_kept_is_the_change_itself(cut, out, width, seed):
    change_OI = drawn(out, width, seed=seed)
    assert truncate(change_OI, cut) is change_OI  # in two factors it would take more numbers


@settings(max_examples=30)
@given(st.integers(8, 24), st.integers(8, 24), st.integers(1, 3), st.integers(0, 3), st.integers(0, 10**6))
def test_a_low_rank_change_is_met_exactly_from_its_rank_on(out, width, rank, more, seed):
    change_OI = drawn(out, rank, seed=seed) @ drawn(rank, width, seed=seed + 1)
    delta = truncate(change_OI, Cut(rank=rank + more))
    assert error(change_OI, delta) < 1e-5
    by_energy = truncate(change_OI, Cut(energy=1 - 1e-9))
    assert isinstance(by_energy, LowRank)
    assert by_energy.rank <= rank
    assert error(change_OI, by_energy) < 1e-4


@settings(max_examples=30)
@given(st.integers(2, 24), st.integers(2, 24), st.integers(0, 10**6))
def test_the_error_falls_with_the_rank_and_is_what_the_singular_values_say(out, width, seed):
    change_OI = drawn(out, width, seed=seed)
    values_S = torch.linalg.svdvals(change_OI.double())
    errors = []
    for rank in range(1, min(out, width) + 1):
        delta = truncate(change_OI, Cut(rank=rank))
        errors.append(error(change_OI, delta))
        if isinstance(delta, LowRank):
            assert (delta.A.shape, delta.B.shape) == ((rank, width), (out, rank))
            expected = float((values_S[rank:].square().sum() / values_S.square().sum()).sqrt())
            assert errors[-1] == pytest.approx(expected, abs=1e-5)
        else:
            assert errors[-1] == 0
    assert all(after <= before + 1e-6 for before, after in pairwise(errors))


@settings(max_examples=50)
@given(st.integers(1, 24), st.floats(0.01, 1), st.integers(0, 10**6))
def test_energy_takes_the_fewest_that_hold_the_share(length, energy, seed):
    values_S = drawn(length, seed=seed).abs().sort(descending=True).values
    rank, squares_S = Cut(energy=energy).rank_of(values_S), values_S.double().square()
    assert 1 <= rank <= length
    assert squares_S[:rank].sum() >= energy * squares_S.sum() * (1 - 1e-12)
    assert squares_S[: rank - 1].sum() < energy * squares_S.sum()


def test_energy_by_hand():
    """Squares 16, 9, 4, 1 of 30: 53 %, 83 %, 97 %, all."""
    values_S = torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert [Cut(energy=share).rank_of(values_S) for share in (0.5, 0.53, 0.54, 0.83, 0.9, 0.97, 1.0)] == [
        1,
        1,
        2,
        2,
        3,
        4,
        4,
    ]
    assert [Cut(rank=rank).rank_of(values_S) for rank in (1, 4, 9)] == [1, 4, 4]
    assert (str(Cut(rank=16)), str(Cut(energy=0.95))) == ("rank 16", "energy 0.95")


@pytest.mark.parametrize(("rank", "is_low"), [(4, True), (5, False)])
def test_two_factors_have_to_be_smaller_than_one_weight(rank, is_low):
    """8 x 12 is 96 numbers; a rank costs 20: four of them are 80, five 100."""
    assert isinstance(truncate(drawn(8, 12), Cut(rank=rank)), LowRank) == is_low


def test_factors_share_the_size_of_the_change():
    delta = truncate(1e-6 * drawn(24, 24), Cut(rank=2))
    torch.testing.assert_close(delta.A.norm(dim=1), delta.B.norm(dim=0))


@pytest.mark.parametrize("first", [0, 1, DEPTH])
def test_all_kept_the_deltas_make_the_base_the_tuned_network(base, tuned, first):
    delta, fits = compress_blocks(base.blocks, tuned.blocks, first, DEPTH, Cut(rank=24))
    check_delta(base.blocks, delta, first)
    built = merge(base.blocks, delta, first)
    x_ND = drawn(7, 24)
    expected_ND = run_blocks(tuned.blocks[first:], x_ND, {DEPTH}, first=first)[DEPTH]
    torch.testing.assert_close(run_blocks(built, x_ND, {DEPTH}, first=first)[DEPTH], expected_ND, rtol=1e-4, atol=1e-4)
    assert relative_error(fits) == 0
    assert [fit.name for fit in fits] == [
        f"blocks.{number}.{name}" for number in range(first, DEPTH) for name, _ in base.blocks[0].named_parameters()
    ]


def test_only_linear_weights_are_cut_and_their_errors_add_up(base, tuned):
    delta, fits = compress_blocks(base.blocks, tuned.blocks, 1, DEPTH, Cut(rank=3))
    low = {name for name, each in delta.tensors.items() if isinstance(each, LowRank)}
    assert low == {
        f"blocks.{number}.{part}.weight"
        for number in (1, 2)
        for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }
    assert {fit.rank for fit in fits if fit.name in low} == {3}
    assert {(fit.rank, fit.lost) for fit in fits if fit.name not in low} == {(None, 0.0)}
    assert sum(fit.parameters for fit in fits) == delta.parameters
    theirs, squares = dict(tuned.named_parameters()), {"lost": 0.0, "change": 0.0}
    for name, value in base.named_parameters():
        if name in delta.tensors:
            change = theirs[name] - value
            squares["change"] += float(change.square().sum())
            squares["lost"] += float((change - product(delta.tensors[name])).square().sum())
    assert relative_error(fits) == pytest.approx(math.sqrt(squares["lost"] / squares["change"]), rel=1e-4)


def test_what_does_not_differ_or_is_never_read_gets_nothing(base, tuned):
    same = deepcopy(base)
    assert compress_blocks(base.blocks, same.blocks, 0, DEPTH, Cut(rank=3))[0].tensors == {}
    delta, fits = compress_blocks(base.blocks, tuned.blocks, 1, 2, Cut(rank=3))
    assert {name.split(".")[1] for name in delta.tensors} == {"1"}
    assert {fit.name.split(".")[1] for fit in fits} == {"1"}
    with torch.no_grad():
        same.blocks[1].norm1.bias += 1
    delta, fits = compress_blocks(base.blocks, same.blocks, 0, DEPTH, Cut(rank=3))
    assert list(delta.tensors) == ["blocks.1.norm1.bias"]
    assert {fit.name: fit.parameters for fit in fits if fit.change} == {"blocks.1.norm1.bias": 24}
    assert relative_error(fits) == 0


def test_below_the_split_is_what_the_base_computes_alone(base, tuned):
    names = {fit.name for fit in below_split(base, tuned, 1)}
    outside = {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert names == outside | {f"blocks.0.{name}" for name, _ in base.blocks[0].named_parameters()}
    assert relative_error(below_split(base, tuned, 1)) == 1
    same = deepcopy(base)
    with torch.no_grad():
        dict(same.named_parameters())["norm.bias"] += 1  # heads read the stream before it
        same.blocks[1].norm1.bias += 1
    assert relative_change(below_split(base, same, 1)) == 0
    with torch.no_grad():
        dict(same.named_parameters())["cls_token"] *= 3
    (fit,) = [fit for fit in below_split(base, same, 1) if fit.change]
    assert fit.name == "cls_token"
    assert relative_change([fit]) == pytest.approx(2)


def test_changes_of_nothing_have_no_end():
    def fit(base, change):
        return TensorFit("x", None, 1, base, change, 0.0)

    assert relative_change([fit(0.0, 0.0)]) == relative_error([fit(0.0, 0.0)]) == relative_change([]) == 0
    assert relative_change([fit(0.0, 1.0)]) == math.inf
    assert relative_change([fit(0.0, 3.0), fit(10.0, 4.0)]) == 0.5
