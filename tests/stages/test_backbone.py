import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import Attention, ConvMlp, GatedMlp, GlobalResponseNormMlp, Mlp, SwiGLU, SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer

from deltascene.stages.backbone import Backbone, create_backbone, cut_patches
from deltascene.stages.errors import UnsupportedBackbone
from deltascene.stages.rows import run_blocks

TOLERANCE = 1e-4
SMALL = {"embed_dim": 48, "num_heads": 3}

# (timm name, arguments that shrink it or switch a part on, input size). Depth is 3 everywhere.
VARIANTS: list[tuple[str, dict[str, Any], tuple[int, int]]] = [
    ("vit_tiny_patch16_224", {}, (224, 224)),
    ("vit_tiny_patch16_224", {}, (48, 80)),
    ("vit_small_patch8_224", SMALL, (24, 40)),
    ("vit_small_patch32_224", SMALL, (96, 160)),
    ("deit_tiny_patch16_224", {}, (80, 48)),
    ("deit3_small_patch16_224", SMALL, (48, 80)),
    ("vit_small_patch14_dinov2", SMALL, (56, 84)),
    ("vit_small_patch14_dinov2", {**SMALL, "img_size": 224}, (224, 308)),
    ("vit_small_patch14_reg4_dinov2", SMALL, (84, 56)),
    ("vit_giant_patch14_dinov2", SMALL, (42, 56)),
    ("vit_base_patch32_clip_quickgelu_224", SMALL, (64, 96)),
    ("vit_xsmall_patch16_clip_224", SMALL, (48, 64)),
    ("vit_medium_patch16_gap_240", SMALL, (48, 64)),
    ("vit_little_patch16_reg4_gap_256", SMALL, (64, 48)),
    ("vit_base_patch16_siglip_224", SMALL, (48, 64)),
    ("aimv2_large_patch14_224", SMALL, (42, 56)),
    ("beit3_base_patch16_224", SMALL, (48, 64)),
    ("test_vit", {}, (48, 64)),
    ("test_vit2", {}, (48, 64)),
    ("test_vit3", {}, (48, 64)),
    ("test_vit4", {}, (48, 64)),
    ("vit_tiny_patch16_224", {**SMALL, "qk_norm": True}, (48, 64)),
    ("vit_tiny_patch16_224", {**SMALL, "scale_attn_norm": True}, (48, 64)),
    ("vit_tiny_patch16_224", {**SMALL, "scale_mlp_norm": True, "init_values": 0.1}, (48, 64)),
    ("vit_tiny_patch16_224", {**SMALL, "mlp_layer": SwiGLU}, (48, 64)),
    ("vit_tiny_patch16_224", {**SMALL, "qkv_bias": False, "proj_bias": False}, (48, 64)),
    ("vit_tiny_patch16_224", {**SMALL, "pos_embed": "none", "reg_tokens": 2}, (48, 64)),
    ("vit_tiny_patch16_224", {**SMALL, "final_norm": False}, (48, 64)),
    ("vit_tiny_patch16_224", {**SMALL, "drop_path_rate": 0.5, "proj_drop_rate": 0.5, "attn_drop_rate": 0.5}, (48, 64)),
]


def relative_error(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize(("name", "args", "size"), VARIANTS, ids=[variant[0] for variant in VARIANTS])
def test_dense_forward_is_timms_own(name, args, size, randomise, our_features):
    backbone = create_backbone(name, {"depth": 3, "weight_init": "skip", **args})
    randomise(backbone, 1)
    image_CHW = torch.randn(3, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected_ND = backbone.features()(image_CHW[None])[0]
        assert relative_error(our_features(backbone, image_CHW), expected_ND) <= TOLERANCE
        assert relative_error(our_features(backbone, image_CHW, by_rows=True), expected_ND) <= TOLERANCE


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_small_patch14_dinov2", (224, 308)),
        ("vit_small_patch14_reg4_dinov2", (518, 518)),
        ("vit_base_patch16_clip_quickgelu_224", (224, 320)),
        ("deit3_base_patch16_224", (384, 256)),
        ("aimv2_large_patch14_224", (224, 224)),
    ],
)
def test_whole_networks_are_timms_own(name, size, randomise, our_features):
    test_dense_forward_is_timms_own(name, {"depth": 24 if "large" in name else 12}, size, randomise, our_features)


def test_gated_attention_is_timms_own(randomise, our_features):
    vit = VisionTransformer(img_size=32, patch_size=8, depth=2, embed_dim=24, num_heads=2, dynamic_img_size=True)
    for block in vit.blocks:
        block.attn = Attention(24, num_heads=2, qkv_bias=True, gated=True)
    backbone = Backbone(vit)
    randomise(vit, 3)
    image_CHW = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        expected_ND = vit.forward_features(image_CHW[None])[0]
        assert relative_error(our_features(backbone, image_CHW), expected_ND) <= TOLERANCE
        assert relative_error(our_features(backbone, image_CHW, by_rows=True), expected_ND) <= TOLERANCE


@given(
    head_width=st.sampled_from([4, 8, 12]),
    heads=st.integers(1, 4),
    depth=st.integers(1, 3),
    patch=st.sampled_from([2, 4, 7]),
    trained=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    shown=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    registers=st.integers(0, 3),
    class_token=st.booleans(),
    switches=st.fixed_dictionaries(
        {
            "qk_norm": st.booleans(),
            "scale_attn_norm": st.booleans(),
            "scale_mlp_norm": st.booleans(),
            "qkv_bias": st.booleans(),
            "proj_bias": st.booleans(),
            "no_embed_class": st.booleans(),
            "pre_norm": st.booleans(),
            "final_norm": st.booleans(),
            "init_values": st.sampled_from([None, 0.1]),
            "mlp_layer": st.sampled_from([Mlp, SwiGLUPacked, SwiGLU]),
            "pos_embed": st.sampled_from(["learn", "none"]),
        }
    ),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=25)
def test_dense_forward_of_any_small_vit(
    head_width, heads, depth, patch, trained, shown, registers, class_token, switches, seed, randomise, our_features
):
    vit = VisionTransformer(
        img_size=(trained[0] * patch, trained[1] * patch),
        patch_size=patch,
        embed_dim=head_width * heads,
        num_heads=heads,
        depth=depth,
        mlp_ratio=2,
        num_classes=0,
        global_pool="",
        class_token=class_token,
        reg_tokens=registers,
        dynamic_img_size=True,
        weight_init="skip",
        **switches,
    )
    backbone = Backbone(vit)
    randomise(vit, seed)
    image_CHW = torch.randn(3, shown[0] * patch, shown[1] * patch, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected_ND = vit.forward_features(image_CHW[None])[0]
        assert relative_error(our_features(backbone, image_CHW), expected_ND) <= TOLERANCE
        assert relative_error(our_features(backbone, image_CHW, by_rows=True), expected_ND) <= TOLERANCE


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**16))
def test_patches_are_cut_in_reading_order(height, width, patch, seed):
    """torch's own unfold is the reference; colour first, then the patch's rows."""
    image_CHW = torch.randn(3, height * patch, width * patch, generator=torch.Generator().manual_seed(seed))
    expected_PX = torch.nn.functional.unfold(image_CHW[None], patch, stride=patch)[0].T
    assert torch.equal(cut_patches(image_CHW, patch), expected_PX)
    some = torch.arange(seed % 2, height * width, 2)
    assert torch.equal(cut_patches(image_CHW, patch, some), expected_PX[some])


def test_gradients_are_timms_own(randomise, our_features):
    """A term that is left out, or cut off from training, would miss its gradient."""
    backbone = create_backbone(
        "vit_small_patch14_reg4_dinov2",
        {**SMALL, "depth": 2, "img_size": 56, "qk_norm": True, "scale_attn_norm": True, "pre_norm": True},
    )
    randomise(backbone.to(torch.float64), 5)
    names, parameters = zip(*backbone.named_parameters(), strict=True)
    image_CHW = torch.randn(3, 42, 70, generator=torch.Generator().manual_seed(6)).double()
    expected_ND = backbone.features()(image_CHW[None])[0]
    weights_ND = torch.randn(expected_ND.shape, generator=torch.Generator().manual_seed(7))
    expected = torch.autograd.grad((expected_ND * weights_ND).sum(), parameters)
    found = torch.autograd.grad((our_features(backbone, image_CHW) * weights_ND).sum(), parameters)
    for name, theirs, ours in zip(names, expected, found, strict=True):
        assert (theirs - ours).abs().max() <= 1e-9, name
        if not name.endswith("k_norm.bias"):  # the same for every key, so softmax doesn't see it
            assert theirs.abs().max() > 1e-3, name


def test_taps_count_the_blocks_run_before(randomise):
    backbone = create_backbone("vit_tiny_patch16_224", {**SMALL, "depth": 4})
    randomise(backbone, 8)
    image_CHW = torch.randn(3, 48, 64, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        x_ND = backbone.embed(image_CHW, backbone.positions(backbone.grid((48, 64))))
        tapped = run_blocks(backbone.blocks, x_ND, (0, 1, 3))
        theirs = backbone.dense_taps(image_CHW[None], (1, 3))
    assert sorted(tapped) == [0, 1, 3]
    assert tapped[0] is x_ND
    for tap in (1, 3):
        assert relative_error(tapped[tap][backbone.prefix :], theirs[tap][0]) <= TOLERANCE


def test_parameters_that_heads_see_are_all_but_the_last_norms():
    backbone = create_backbone("vit_tiny_patch16_224", {**SMALL, "depth": 1})
    unread = dict(backbone.named_parameters()).keys() - backbone.read_parameters().keys()
    assert unread == {"norm.weight", "norm.bias"}


def test_weights_travel_by_timms_names(randomise):
    one, other = (create_backbone("vit_tiny_patch16_224", {**SMALL, "depth": 1}) for _ in range(2))
    randomise(one, 1)
    other.load_state_dict(one.state_dict())
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    other.load_state_dict(one.state_dict(), assign=True)
    assert other.state_dict()["cls_token"].data_ptr() == one.state_dict()["cls_token"].data_ptr()
    other.to(torch.float64).requires_grad_(False)
    assert {(value.dtype, value.requires_grad) for value in other.parameters()} == {(torch.float64, False)}


@pytest.mark.parametrize(
    ("shape", "side"),
    [((1, 10, 48), 48), ((1, 17, 48), None), ((1, 11, 48), None), ((1, 1, 48), None), ((10, 48), None), ((), None)],
)
def test_the_side_that_positions_were_trained_at(shape, side):
    backbone = create_backbone("vit_tiny_patch16_224", {**SMALL, "depth": 1, "img_size": 64})  # 16 patches, 1 class
    assert backbone.trained_size() == (64, 64)
    assert backbone.trained_side(shape) == side


def test_blocks_after_the_last_tap_do_not_run():
    backbone = create_backbone("vit_tiny_patch16_224", {**SMALL, "depth": 3})

    def refuse(*_):
        raise AssertionError("ran")

    backbone.blocks[2].norm1.register_forward_pre_hook(refuse)
    with torch.no_grad():
        assert list(run_blocks(backbone.blocks, torch.zeros(5, 48), [2])) == [2]
        with pytest.raises(AssertionError, match="ran"):
            run_blocks(backbone.blocks, torch.zeros(5, 48), [3])


def test_numbers_are_read_from_the_model():
    backbone = create_backbone("vit_small_patch14_reg4_dinov2", {"depth": 3, "weight_init": "skip"})
    assert (backbone.depth, backbone.width, backbone.patch, backbone.prefix) == (3, 384, 14, 5)
    grid = backbone.grid((224, 308))
    assert (grid.height, grid.width, grid.patches, grid.tokens) == (16, 22, 352, 357)
    assert grid.image_size == (224, 308)
    assert not backbone.features().training


@pytest.mark.parametrize(
    ("name", "args", "text"),
    [
        ("vit_small_r26_s32_224", {}, "found family vision_transformer_hybrid"),
        ("eva02_tiny_patch14_224", {}, "found family eva"),
        ("swin_tiny_patch4_window7_224", {}, "found family swin_transformer"),
        ("resnet18", {}, "found family resnet"),
        ("vit_relpos_small_patch16_224", {}, "found family vision_transformer_relpos"),
        ("deit_tiny_distilled_patch16_224", {"depth": 1}, "found VisionTransformerDistilled"),
        ("vit_small_patch16_18x2_224", {"depth": 1}, "blocks.0: expected Block.*found ParallelThingsBlock"),
        ("vit_base_patch16_xp_224", {"depth": 1}, "blocks.0: expected Block.*found ParallelScalingBlock"),
        ("vit_base_patch16_rpn_224", {"depth": 1}, "blocks.0: expected Block.*found ResPostBlock"),
        ("vit_tiny_patch16_224", {"attn_layer": "diff"}, r"blocks.0.attn: expected Attention.*found DiffAttention"),
        ("vit_tiny_patch16_224", {"mlp_layer": GatedMlp}, "blocks.0.mlp: expected Mlp or GluMlp or .*found GatedMlp"),
        ("vit_tiny_patch16_224", {"patch_drop_rate": 0.5}, "patch_drop: .*found PatchDropout"),
        ("vit_tiny_patch16_224", {"patch_size": (16, 8)}, r"square patches; found \(16, 8\)"),
        ("vit_tiny_patch16_224", {"in_chans": 1}, "expected 3 input channels; found 1"),
        ("vit_tiny_patch16_224", {"widht": 192}, "can't build it with.*unexpected keyword argument 'widht'"),
        ("vit_tiny_patch16_224", {"embed_dim": 100}, "can't build it with.*divisible by num_heads"),
        ("vit_tiny_patch16_224", {"act_layer": "gelo"}, "can't build it with.*gelo"),
        ("vit_tiny_patch16_224.nonsense", {}, "Invalid pretrained tag"),
    ],
)
def test_refuses_by_name(name, args, text):
    with pytest.raises(UnsupportedBackbone, match=text):
        create_backbone(name, {"weight_init": "skip", **args} if args else {})


@pytest.mark.parametrize(
    "mlp", [GlobalResponseNormMlp(48, 96), ConvMlp(48, 96)], ids=["GlobalResponseNormMlp", "ConvMlp"]
)
def test_refuses_an_mlp_that_mixes_rows(mlp):
    vit = VisionTransformer(img_size=32, patch_size=8, depth=2, embed_dim=48, num_heads=2)
    vit.blocks[1].mlp = mlp
    with pytest.raises(UnsupportedBackbone, match=f"blocks.1.mlp: .*found {type(mlp).__name__}"):
        Backbone(vit)


def test_a_wrong_name_gets_a_hint():
    with pytest.raises(UnsupportedBackbone, match=re.escape("no model 'vit_tny_patch16_224'; similar names: vit_tiny")):
        create_backbone("vit_tny_patch16_224")
    with pytest.raises(UnsupportedBackbone, match=r"no model '0123456789'$"):
        create_backbone("0123456789")


@pytest.mark.parametrize("size", [(224, 300), (220, 308), (0, 16), (8, 8)])
def test_refuses_sizes_that_are_not_multiples_of_the_patch(size):
    backbone = create_backbone("vit_tiny_patch16_224", {**SMALL, "depth": 1})
    with pytest.raises(UnsupportedBackbone, match=f"multiples of the patch, 16; found {size[0]}x{size[1]}"):
        backbone.grid(size)
