import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import SwiGLUPacked
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from deltascene.stages.backbone import create_backbone
from deltascene.stages.cost import BlockShape, Macs, block_macs, blocks_macs, embed_macs
from deltascene.stages.heads import build_head
from deltascene.stages.rows import run_blocks


def test_vit_small_14_at_224x308_by_hand():
    backbone = create_backbone("vit_small_patch14_dinov2", {"img_size": 518, "weight_init": "skip"})
    grid = backbone.grid((224, 308))
    assert grid.patches == 16 * 22 == 352
    assert grid.tokens == 352 + 1 == 353

    # one patch: 3 channels x 14 x 14 pixels into 384
    assert backbone.patch_macs() == 3 * 14 * 14 * 384 == 225_792
    assert embed_macs(grid.patches, backbone.patch_macs()) == 352 * 225_792 == 79_478_784

    # one row of one block: qkv 384 -> 1152, proj 384 -> 384, fc1 384 -> 1536, fc2 1536 -> 384
    row = 384 * 1152 + 384 * 384 + 384 * 1536 + 1536 * 384
    assert row == 442_368 + 147_456 + 589_824 + 589_824 == 1_769_472
    # attention: 6 heads of 64; scores and sums, each 353 x 353 x 384
    attention = 2 * 353 * 353 * 384
    assert attention == 95_699_712
    block = 353 * row + attention
    assert block == 624_623_616 + 95_699_712 == 720_323_328
    shapes = backbone.block_shapes()
    assert shapes == [BlockShape(linear=1_769_472, attention=384)] * 12
    assert block_macs(shapes[0], 353, 353) == 720_323_328
    assert blocks_macs(shapes, 353, 353) == 12 * 720_323_328 == 8_643_879_936


@pytest.mark.parametrize(
    ("rows", "tokens", "expected"),
    [
        (0, 5, 0),
        (1, 1, 1 * 10 + 2 * 1 * 1 * 3),
        (1, 5, 1 * 10 + 2 * 1 * 5 * 3),
        (2, 5, 2 * 10 + 2 * 2 * 5 * 3),
        (5, 5, 5 * 10 + 2 * 5 * 5 * 3),
    ],
)
def test_one_block_by_hand(rows, tokens, expected):
    assert block_macs(BlockShape(linear=10, attention=3), rows, tokens) == expected


def test_totals_add_up():
    assert Macs(embed=1, blocks=20, head=300).total == 321
    assert Macs().total == 0
    assert blocks_macs([BlockShape(10, 3), BlockShape(7, 2)], 2, 4) == (20 + 48) + (14 + 32)
    assert blocks_macs([], 2, 4) == 0


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 10**5), st.integers(0, 10**5))
def test_rows_add_up_to_the_whole(linear, attention, tokens, some):
    shape, some = BlockShape(linear, attention), min(some, tokens)
    parts = block_macs(shape, some, tokens) + block_macs(shape, tokens - some, tokens)
    assert parts == block_macs(shape, tokens, tokens)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("vit_tiny_patch16_224", {"depth": 2}),
        ("vit_small_patch14_reg4_dinov2", {"depth": 2, "img_size": 56}),
        ("vit_giant_patch14_dinov2", {"depth": 2, "embed_dim": 48, "num_heads": 3}),
        ("aimv2_large_patch14_224", {"depth": 2, "embed_dim": 48, "num_heads": 3}),
        ("vit_tiny_patch16_224", {"depth": 1, "qk_norm": True, "mlp_layer": SwiGLUPacked}),
    ],
)
def test_equals_torchs_counter(name, args):
    """torch counts the parts of attention only where it runs as plain products, and two operations per MAC."""
    backbone = create_backbone(name, {"weight_init": "skip", **args})
    size = (3 * backbone.patch, 4 * backbone.patch)
    grid = backbone.grid(size)
    positions, image_CHW = backbone.positions(grid), torch.zeros(3, *size)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run_blocks(backbone.blocks, backbone.embed(image_CHW, positions), [backbone.depth])
    ours = embed_macs(grid.patches, backbone.patch_macs())
    ours += blocks_macs(backbone.block_shapes(), grid.tokens, grid.tokens)
    assert 2 * ours == counter.get_total_flops()


@pytest.mark.parametrize(("name", "args"), [("linear", {}), ("token_mlp", {"hidden": 24, "side": 2})])
def test_head_equals_torchs_counter(name, args):
    head = build_head(name, 16, 3, 5, args)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        head.cells(torch.zeros(7, 3, 16))
    assert 2 * 7 * head.macs_per_token() == counter.get_total_flops()


def test_head_by_hand():
    # three taps of 16 into 24 hidden, then 5 channels x 2 x 2 cells
    assert build_head("token_mlp", 16, 3, 5, {"hidden": 24, "side": 2}).macs_per_token() == 48 * 24 + 24 * 20
    assert build_head("linear", 16, 3, 5, {"side": 2}).macs_per_token() == 48 * 20
