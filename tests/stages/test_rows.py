"""Rows against the scene cache: the plain network where all rows run, and nothing else touched where some do."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import SwiGLU
from timm.models.vision_transformer import VisionTransformer

from deltascene.stages.backbone import Backbone, cut_patches
from deltascene.stages.base_task import run_base
from deltascene.stages.change import rows_of
from deltascene.stages.folded import FoldedBlock, fold
from deltascene.stages.rows import Part, key_shapes, run_blocks, write_rows
from deltascene.stages.scene_cache import allocate_cache

TOLERANCE = 1e-4
SIZE, PATCH = (12, 16), 4  # 3 x 4 patches
TAPS = (1, 3)
NETWORKS = {
    "plain": {},
    "registers": {"reg_tokens": 3, "init_values": 0.3, "qkv_bias": False},
    "no prefix": {"class_token": False, "pos_embed": "none", "qk_norm": True},
    "gated": {"mlp_layer": SwiGLU, "scale_attn_norm": True, "scale_mlp_norm": True, "pre_norm": True},
}
WIDE = {"embed_dim": 64, "num_heads": 2, "reg_tokens": 1, "init_values": 0.3, "qkv_bias": False}  # whole panels
patches = st.one_of(
    st.just(frozenset(range(12))),
    st.integers(0, 11).map(lambda number: frozenset([number])),
    st.frozensets(st.integers(0, 11)),
)
seeds = st.integers(0, 2**16)


class Scene:
    """A network with the cache of one stream."""

    def __init__(self, vit, *, kernel):
        self.backbone = Backbone(vit)
        if kernel:
            self.backbone = self.backbone.with_blocks([fold(block) for block in self.backbone.blocks])
            assert all(isinstance(block, FoldedBlock) for block in self.backbone.blocks)
        self.grid = self.backbone.grid(SIZE)
        self.positions = self.backbone.positions(self.grid)
        self.cache = allocate_cache(key_shapes(self.backbone.blocks), self.grid.tokens, self.backbone.width, TAPS)

    def embed(self, image):
        return self.backbone.embed(image, self.positions)

    @torch.no_grad()
    def plain(self, image):
        """Tokens at the taps, without a cache."""
        return run_base(self.backbone, self.embed(image), TAPS)

    @torch.no_grad()
    def run(self, image, chosen=None):
        """All rows, or those of some patches, and the tokens at the taps kept."""
        rows = None if chosen is None else rows_of(torch.tensor(sorted(chosen), dtype=torch.int64), self.grid)
        x_RD = self.embed(image) if rows is None else self.embed(image)[rows]
        tapped = run_base(self.backbone, x_RD, TAPS, parts=[Part(len(x_RD), rows, self.cache)])
        for tap in TAPS:
            write_rows(self.cache.taps[tap], rows, tapped[tap])
        return rows

    def kept(self):
        """Copies of all that the cache holds, token second to last."""
        pairs = ((keys_HdN.transpose(1, 2), values_HNd) for keys_HdN, values_HNd in self.cache.keys_values)
        return [tensor.clone() for tensor in (*(half for pair in pairs for half in pair), *self.cache.taps.values())]


@pytest.fixture(scope="module", params=[*NETWORKS, "kernel"])
def scene(request, randomise):
    kernel = request.param == "kernel"
    if kernel:
        request.getfixturevalue("built_kernel")
    shape = {"embed_dim": 24, "num_heads": 3, **(WIDE if kernel else NETWORKS[request.param])}
    vit = VisionTransformer(
        img_size=SIZE,
        patch_size=PATCH,
        depth=3,
        mlp_ratio=2,
        num_classes=0,
        global_pool="",
        dynamic_img_size=True,
        **shape,
    )
    randomise(vit, 5)
    return Scene(vit, kernel=kernel)


def picture(seed):
    return torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(seed))


def assert_close(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max()


def test_all_rows_fill_the_cache_and_are_the_plain_network_byte_for_byte(scene):
    scene.run(picture(1))
    plain = scene.plain(picture(1))
    assert all(torch.equal(scene.cache.taps[tap], plain[tap]) for tap in TAPS)


@settings(max_examples=20)
@given(patches, seeds)
def test_any_rows_straight_after_a_dense_pass_change_nothing(scene, chosen, seed):
    scene.run(picture(seed))
    dense = scene.kept()
    scene.run(picture(seed), chosen)
    assert_close(scene.kept(), dense)


@settings(max_examples=20)
@given(patches, seeds)
def test_rows_outside_are_untouched_and_the_same_rows_again_change_nothing(scene, chosen, seed):
    scene.run(picture(seed))
    before = scene.kept()
    rows = scene.run(picture(seed + 1), chosen)
    once = scene.kept()
    others = [number for number in range(scene.grid.tokens) if number not in set(rows.tolist())]
    for was, now in zip(before, once, strict=True):
        assert torch.equal(was[..., others, :], now[..., others, :])
        assert not chosen or not torch.equal(was[..., rows, :], now[..., rows, :])
    scene.run(picture(seed + 1), chosen)
    assert_close(scene.kept(), once)


@settings(max_examples=10)
@given(seeds)
def test_all_rows_of_another_picture_are_its_dense_pass(scene, seed):
    scene.run(picture(seed))
    scene.run(picture(seed + 1), range(12))
    found = scene.kept()
    scene.run(picture(seed + 1))
    assert_close(found, scene.kept())
    assert_close([scene.cache.taps[tap] for tap in TAPS], [scene.plain(picture(seed + 1))[tap] for tap in TAPS])


@settings(max_examples=10)
@given(patches.filter(len), seeds)
def test_keys_and_values_of_the_first_block_are_the_new_pictures_own(scene, chosen, seed):
    """They depend on their own row alone; what differs from a dense pass is what rows saw of the others."""
    scene.run(picture(seed))
    rows = scene.run(picture(seed + 1), chosen)
    found = scene.kept()[0]
    scene.run(picture(seed + 1))
    assert_close([found[:, rows]], [scene.kept()[0][:, rows]])


def test_consecutive_parts_are_the_whole(scene):
    """Blocks run from a split on, with a cache of their own, are the rest of the network."""
    with torch.no_grad():
        whole = run_base(scene.backbone, scene.embed(picture(2)), (1, 3))
        rest = scene.backbone.blocks[1:]
        cache = allocate_cache(key_shapes(rest), scene.grid.tokens, scene.backbone.width, ())
        again = run_blocks(rest, whole[1], {1, 3}, first=1, parts=[Part(len(whole[1]), None, cache)])
    assert torch.equal(again[1], whole[1])
    assert torch.equal(again[3], whole[3])


def test_some_rows_need_a_cache(scene):
    with pytest.raises(AssertionError, match="keys and values of the others"):
        Part(1, torch.tensor([0]))


def test_a_cache_says_how_much_memory_it_holds(scene):
    tokens, width = scene.grid.tokens, scene.backbone.width
    assert scene.cache.size_bytes == 4 * width * (3 * (32 + tokens) + 2 * tokens)  # keys: whole panels of 32 tokens


@given(patches, seeds)
@settings(max_examples=20)
def test_embedding_some_patches_gives_their_rows(scene, chosen, seed):
    which = torch.tensor(sorted(chosen), dtype=torch.int64)
    cut = cut_patches(picture(seed), PATCH)
    with torch.no_grad():
        all_ND = scene.embed(picture(seed))
        some_RD = scene.backbone.embed_patches(cut[which], scene.positions, which)
    torch.testing.assert_close(some_RD, all_ND[rows_of(which, scene.grid)], rtol=1e-5, atol=1e-5)
