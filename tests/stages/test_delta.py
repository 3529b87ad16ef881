"""Delta weights: both forms agree, zero is the base, the base stays as it is, and what doesn't fit is named."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import SwiGLU
from tiny_model import is_zero
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from deltascene.stages.backbone import create_backbone
from deltascene.stages.cost import BlockShape, blocks_macs
from deltascene.stages.delta import (
    DeltaLinear,
    DeltaWeights,
    LowRank,
    attach,
    check_delta,
    delta_block_shapes,
    difference,
    merge,
    start_delta,
)
from deltascene.stages.errors import UnfitDelta
from deltascene.stages.rows import run_blocks

DEPTH, TOKENS = 3, 7
NETWORKS = {
    "layer scale": ("vit_small_patch14_dinov2", {"embed_dim": 24, "num_heads": 2, "img_size": 56}),
    "packed gated mlp": ("vit_giant_patch14_dinov2", {"embed_dim": 24, "num_heads": 2, "img_size": 56}),
    "gated mlp, query norm": ("vit_tiny_patch16_224", {"embed_dim": 24, "qk_norm": True, "mlp_layer": SwiGLU}),
    "no biases": ("vit_tiny_patch16_224", {"embed_dim": 24, "qkv_bias": False, "proj_bias": False}),
}


@pytest.fixture(scope="module")
def backbones(randomise):
    built = {}
    for label, (name, args) in NETWORKS.items():
        built[label] = create_backbone(name, {"depth": DEPTH, "weight_init": "skip", **args})
        randomise(built[label], 5)
        built[label].requires_grad_(False)
    return built


def drawn_delta(backbone, first, ranks, seed, keep=lambda name: True):
    """Deltas of the tensors that are kept, those of linear weights of different ranks."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for place, (name, delta) in enumerate(start_delta(backbone.blocks, first, 8, generator).tensors.items()):
        if not keep(name):
            continue
        if isinstance(delta, LowRank):
            rank = ranks[place % len(ranks)]
            scale = 0.3 * (rank * delta.A.shape[1]) ** -0.5
            A = torch.randn(rank, delta.A.shape[1], generator=generator)
            tensors[name] = LowRank(A, scale * torch.randn(delta.B.shape[0], rank, generator=generator))
        else:
            tensors[name] = 0.1 * torch.randn(delta.shape, generator=generator)
    return DeltaWeights(tensors)


def after(blocks, first, seed=3, width=24):
    x_ND = torch.randn(TOKENS, width, generator=torch.Generator().manual_seed(seed))
    return run_blocks(blocks, x_ND, {DEPTH}, first=first)[DEPTH]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(NETWORKS)),
    st.integers(0, DEPTH),
    st.lists(st.integers(1, 24), min_size=1, max_size=4),
    st.integers(0, 10**6),
    st.sets(st.integers(0, 40)),
)
def test_merged_and_beside_the_base_agree(backbones, label, first, ranks, seed, left_out):
    backbone = backbones[label]
    names = sorted(start_delta(backbone.blocks, first, 1, torch.Generator()).tensors)
    chosen = {name for place, name in enumerate(names) if place not in left_out}
    delta = drawn_delta(backbone, first, ranks, seed, chosen.__contains__)
    merged, beside = merge(backbone.blocks, delta, first), attach(backbone.blocks, delta, first)
    assert len(merged) == len(beside) == DEPTH - first
    expected_ND = after(merged, first)
    torch.testing.assert_close(after(beside, first), expected_ND, rtol=0, atol=1e-5 * expected_ND.abs().max().item())
    if chosen:
        assert not is_zero(delta)
        assert not torch.equal(expected_ND, after(backbone.blocks[first:], first))


@pytest.mark.parametrize("label", NETWORKS)
def test_merged_weights_are_the_sum_itself(backbones, label):
    backbone = backbones[label]
    delta = drawn_delta(backbone, 1, [2, 3], 7)
    for number, block in enumerate(merge(backbone.blocks, delta, 1), start=1):
        base = dict(backbone.blocks[number].named_parameters())
        for name, value in block.named_parameters():
            change = delta.tensors[f"blocks.{number}.{name}"]
            wanted = base[name] + (change.B @ change.A if isinstance(change, LowRank) else change)
            torch.testing.assert_close(value, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("build", [merge, attach])
@pytest.mark.parametrize("label", NETWORKS)
def test_a_delta_of_zero_is_the_base_exactly(backbones, label, build):
    backbone = backbones[label]
    delta = start_delta(backbone.blocks, 1, 4, torch.Generator().manual_seed(1))
    assert is_zero(delta)
    assert torch.equal(after(build(backbone.blocks, delta, 1), 1), after(backbone.blocks[1:], 1))
    assert torch.equal(after(build(backbone.blocks, DeltaWeights({}), 1), 1), after(backbone.blocks[1:], 1))


def network_modules(backbone):
    """Identities of a network's modules, without the wrapper that `features` makes anew."""
    _, *modules = backbone.features().modules()
    return [id(module) for module in modules]


@pytest.mark.parametrize("build", [merge, attach])
def test_the_base_is_untouched_byte_for_byte(backbones, build):
    backbone = backbones["layer scale"]
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    modules = network_modules(backbone)
    built = build(backbone.blocks, drawn_delta(backbone, 1, [3], 9), 1)
    after(built, 1)
    assert network_modules(backbone) == modules
    assert backbone.state_dict().keys() == before.keys()
    for name, tensor in backbone.state_dict().items():
        assert tensor.numpy().tobytes() == before[name].numpy().tobytes(), name


def test_beside_the_base_its_weights_are_shared_not_copied(backbones):
    backbone = backbones["layer scale"]
    (block,) = attach(backbone.blocks, drawn_delta(backbone, 2, [3], 9), 2)
    base = backbone.blocks[2]
    for where in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
        layer = block.get_submodule(where)
        assert isinstance(layer, DeltaLinear)
        assert layer.weight.data_ptr() == base.get_submodule(where).weight.data_ptr()
    (untouched,) = merge(backbone.blocks, DeltaWeights({}), 2)
    assert all(a is b for a, b in zip(untouched.parameters(), base.parameters(), strict=True))


def test_a_whole_weight_may_have_a_dense_delta(backbones):
    backbone = backbones["layer scale"]
    low = drawn_delta(backbone, 1, [2], 4)
    dense = DeltaWeights({name: d.product() if isinstance(d, LowRank) else d for name, d in low.tensors.items()})
    for build in (merge, attach):
        assert torch.equal(after(build(backbone.blocks, dense, 1), 1), after(merge(backbone.blocks, low, 1), 1))


def test_costs_by_hand(backbones):
    """One row of a block of width 24: qkv 24 -> 72, proj 24 -> 24, fc1 24 -> 96, fc2 96 -> 24."""
    backbone = backbones["layer scale"]
    plain = 24 * 72 + 24 * 24 + 24 * 96 + 96 * 24
    assert plain == 1728 + 576 + 2304 + 2304 == 6912
    delta = drawn_delta(backbone, 1, [5], 1)
    low_rank = 5 * (24 + 72) + 5 * (24 + 24) + 5 * (24 + 96) + 5 * (96 + 24)
    assert low_rank == 480 + 240 + 600 + 600 == 1920
    assert delta_block_shapes(backbone.blocks) == backbone.block_shapes() == [BlockShape(6912, 24)] * 3
    assert delta_block_shapes(merge(backbone.blocks, delta, 1)) == [BlockShape(6912, 24)] * 2
    assert delta_block_shapes(attach(backbone.blocks, delta, 1)) == [BlockShape(6912 + 1920, 24)] * 2
    only = drawn_delta(backbone, 1, [5], 1, "blocks.2.attn.qkv.weight".__eq__)
    assert delta_block_shapes(attach(backbone.blocks, only, 1)) == [BlockShape(6912, 24), BlockShape(6912 + 480, 24)]


@pytest.mark.parametrize("label", NETWORKS)
def test_costs_equal_torchs_counter(backbones, label):
    backbone = backbones[label]
    blocks = attach(backbone.blocks, drawn_delta(backbone, 1, [2, 3, 7], 1), 1)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        after(blocks, 1)
    assert 2 * blocks_macs(delta_block_shapes(blocks), TOKENS, TOKENS) == counter.get_total_flops()


def test_parameters_by_hand():
    low = LowRank(torch.zeros(2, 24), torch.zeros(72, 2))
    delta = DeltaWeights({"blocks.1.attn.qkv.weight": low, "blocks.1.norm1.bias": torch.zeros(24)})
    assert delta.parameters == 2 * 24 + 72 * 2 + 24 == 216
    assert low.rank == 2


def test_two_factors_whose_product_is_nothing_are_zero():
    low = LowRank(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
    assert is_zero(DeltaWeights({"x": low}))
    assert not is_zero(DeltaWeights({"x": LowRank(low.A, torch.tensor([[1.0, 0.0]]))}))


@pytest.mark.parametrize("label", NETWORKS)
def test_flat_tensors_and_back(backbones, label):
    delta = drawn_delta(backbones[label], 1, [2, 3], 8)
    flat = delta.to_tensors()
    assert "blocks.2.attn.qkv.weight.A" in flat
    assert "blocks.2.norm1.weight" in flat
    again = DeltaWeights.from_tensors(flat).to_tensors()
    assert again.keys() == flat.keys()
    assert all(torch.equal(again[name], flat[name]) for name in flat)


@pytest.mark.parametrize("label", NETWORKS)
def test_the_difference_of_blocks_is_the_delta_put_on_them(backbones, label):
    backbone = backbones[label]
    delta = drawn_delta(backbone, 1, [2, 3], 8)
    read = difference(attach(backbone.blocks, delta, 1), backbone.blocks, 1).to_tensors()
    assert read.keys() == delta.to_tensors().keys()
    for name, tensor in delta.to_tensors().items():
        torch.testing.assert_close(read[name], tensor, rtol=1e-4, atol=1e-6)
    merged = difference(merge(backbone.blocks, delta, 1), backbone.blocks, 1)
    assert merged.tensors.keys() == delta.tensors.keys()
    assert difference(merge(backbone.blocks, DeltaWeights({}), 1), backbone.blocks, 1).tensors == {}


def test_a_rank_is_capped_at_what_the_weight_can_use(backbones):
    tensors = start_delta(backbones["layer scale"].blocks, 2, 1000, torch.Generator()).tensors
    assert {delta.rank for delta in tensors.values() if isinstance(delta, LowRank)} == {24}


QKV = "blocks.1.attn.qkv.weight"
REFUSED = [
    ({"blocks.1.attn.qkw.weight": (72, 24)}, "delta blocks.1.attn.qkw.weight: expected a tensor of the backbone's"),
    ({"blocks.1.attn.qkw.weight": (72, 24)}, f"; did you mean {QKV}?"),
    ({"blocks.3.norm1.weight": (24,)}, "delta blocks.3.norm1.weight: expected a tensor of the backbone's blocks"),
    ({"patch_embed.proj.weight": (24, 3, 14, 14)}, "delta patch_embed.proj.weight: expected a tensor of the backbone"),
    ({"norm.weight": (24,)}, "delta norm.weight: expected a tensor of the backbone's blocks; found none of that name"),
    ({"blocks.0.norm1.weight": (24,)}, "delta blocks.0.norm1.weight: expected a block from the split on, 1 or later"),
    ({"blocks.1.norm1.weight": (25,)}, "delta blocks.1.norm1.weight: expected shape (24,); found (25,)"),
    ({QKV: (24, 72)}, f"delta {QKV}: expected shape (72, 24); found (24, 72)"),
    ({f"{QKV}.A": (2, 24)}, f"delta {QKV}: expected {QKV}.A and {QKV}.B; found only {QKV}.A"),
    ({f"{QKV}.B": (72, 2)}, f"delta {QKV}: expected {QKV}.A and {QKV}.B; found only {QKV}.B"),
    ({f"{QKV}.A": (2, 24), f"{QKV}.B": (72, 2), QKV: (72, 24)}, "expected either a dense or a low-rank delta"),
    ({f"{QKV}.A": (2, 72), f"{QKV}.B": (72, 2)}, f"delta {QKV}.A: expected shape (rank, 24); found (2, 72)"),
    ({f"{QKV}.A": (24,), f"{QKV}.B": (72, 24)}, f"delta {QKV}.A: expected shape (rank, 24); found (24,)"),
    ({f"{QKV}.A": (), f"{QKV}.B": ()}, f"delta {QKV}.A: expected shape (rank, 24); found ()"),
    ({f"{QKV}.A": (0, 24), f"{QKV}.B": (72, 0)}, f"delta {QKV}.A: expected shape (rank, 24); found (0, 24)"),
    ({f"{QKV}.A": (2, 24), f"{QKV}.B": (72, 3)}, f"delta {QKV}.B: expected shape (72, 2); found (72, 3)"),
    (
        {"blocks.1.norm1.weight.A": (2, 24), "blocks.1.norm1.weight.B": (24, 2)},
        "delta blocks.1.norm1.weight: expected a dense delta, as it isn't a linear layer's weight; found A and B",
    ),
]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("shapes", "text"), REFUSED)
def test_what_does_not_fit_is_named(backbones, shapes, text, device):
    blocks = backbones["layer scale"].blocks
    flat = {name: torch.ones(shape, device=device) for name, shape in shapes.items()}
    for use in (check_delta, merge, attach):
        with pytest.raises(UnfitDelta) as caught:
            use(blocks, DeltaWeights.from_tensors(flat), 1)
        assert text in str(caught.value)
