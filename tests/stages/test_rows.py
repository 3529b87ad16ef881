"""Rows against the scene cache: the plain network where all rows run, and nothing else touched where some do."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import SwiGLU
from timm.models.vision_transformer import VisionTransformer

from deltascene.pipeline.numerics.kernel import multiplies_bfloat16 as kernel_multiplies_bfloat16
from deltascene.stages.backbone import Backbone, cut_patches
from deltascene.stages.change import rows_of
from deltascene.stages.folded import FoldedBlock, fold
from deltascene.stages.packed import multiplies_bfloat16, pack_linears
from deltascene.stages.rows import StreamRows, key_shapes, run_blocks, write_rows
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

    def __init__(self, vit, prepare=None, tolerance=TOLERANCE):
        self.backbone, self.tolerance = Backbone(vit), tolerance
        if prepare is not None:
            plain = self.backbone.blocks
            self.backbone = self.backbone.with_blocks([prepare(block) for block in plain])
            assert not any(ours is theirs for ours, theirs in zip(self.backbone.blocks, plain, strict=True))
        self.grid = self.backbone.grid(SIZE)
        self.positions = self.backbone.positions(self.grid)
        self.cache = allocate_cache(key_shapes(self.backbone.blocks), self.grid.tokens, self.backbone.width, TAPS)

    def embed(self, image):
        return self.backbone.embed(image, self.positions)

    def assert_close(self, found, expected):
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours - theirs).abs().max() <= self.tolerance * theirs.abs().max()

    @torch.no_grad()
    def plain(self, image):
        """Tokens at the taps, without a cache."""
        return run_blocks(self.backbone.blocks, self.embed(image), TAPS)

    @torch.no_grad()
    def run(self, image, chosen=None):
        """All rows, or those of some patches, and the tokens at the taps kept."""
        rows = None if chosen is None else rows_of(torch.tensor(sorted(chosen), dtype=torch.int64), self.grid)
        x_RD = self.embed(image) if rows is None else self.embed(image)[rows]
        tapped = run_blocks(self.backbone.blocks, x_RD, TAPS, stream_rows=[StreamRows(len(x_RD), rows, self.cache)])
        for tap in TAPS:
            write_rows(self.cache.taps[tap], rows, tapped[tap])
        return rows

    def kept(self):
        """Copies of all that the cache holds, token second to last."""
        kept = self.cache.keys_values
        halves = (half for pair in kept for half in (pair.plain_keys.transpose(1, 2), pair.plain_values))
        return [tensor.clone() for tensor in (*halves, *self.cache.taps.values())]


PREPARED = {  # and how far rows alone may be from rows among others: the kernel's don't know of each other
    "kernel": (fold, TOLERANCE),
    "kernel, bfloat16": (partial(fold, dtype=torch.bfloat16), TOLERANCE),
    "oneDNN, bfloat16": (pack_linears, 0.05),
}


@pytest.fixture(scope="module", params=[*NETWORKS, *PREPARED])
def scene(request, randomise):
    prepare, tolerance = PREPARED.get(request.param, (None, TOLERANCE))
    if "kernel" in request.param:
        request.getfixturevalue("built_kernel")
    if request.param == "kernel, bfloat16" and not kernel_multiplies_bfloat16():
        pytest.skip("no AVX512-BF16")
    if request.param == "oneDNN, bfloat16" and not multiplies_bfloat16():
        pytest.skip("oneDNN has no products of bfloat16 here")
    shape = {"embed_dim": 24, "num_heads": 3, **(WIDE if prepare else NETWORKS[request.param])}
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
    return Scene(vit, prepare, tolerance)


def picture(seed):
    return torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(seed))


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
    scene.assert_close(scene.kept(), dense)


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
    scene.assert_close(scene.kept(), once)


@settings(max_examples=10)
@given(seeds)
def test_all_rows_of_another_picture_are_its_dense_pass(scene, seed):
    scene.run(picture(seed))
    scene.run(picture(seed + 1), range(12))
    found = scene.kept()
    scene.run(picture(seed + 1))
    scene.assert_close(found, scene.kept())
    scene.assert_close([scene.cache.taps[tap] for tap in TAPS], [scene.plain(picture(seed + 1))[tap] for tap in TAPS])


@settings(max_examples=10)
@given(patches.filter(len), seeds)
def test_keys_and_values_of_the_first_block_are_the_new_pictures_own(scene, chosen, seed):
    """They depend on their own row alone; what differs from a dense pass is what rows saw of the others."""
    scene.run(picture(seed))
    rows = scene.run(picture(seed + 1), chosen)
    found = scene.kept()[0]
    scene.run(picture(seed + 1))
    scene.assert_close([found[:, rows]], [scene.kept()[0][:, rows]])


def test_consecutive_parts_are_the_whole(scene):
    """Blocks run from a split on, with a cache of their own, are the rest of the network."""
    with torch.no_grad():
        whole = run_blocks(scene.backbone.blocks, scene.embed(picture(2)), (1, 3))
        rest = scene.backbone.blocks[1:]
        cache = allocate_cache(key_shapes(rest), scene.grid.tokens, scene.backbone.width, ())
        again = run_blocks(rest, whole[1], {1, 3}, first=1, stream_rows=[StreamRows(len(whole[1]), None, cache)])
    assert torch.equal(again[1], whole[1])
    assert torch.equal(again[3], whole[3])


def test_some_rows_need_a_cache(scene):
    with pytest.raises(AssertionError, match="keys and values of the others"):
        StreamRows(1, torch.tensor([0]))


def test_a_cache_holds_no_more_memory_than_its_layout_asks_for(scene):
    tokens, width = scene.grid.tokens, scene.backbone.width
    (size, lane) = {torch.float32: (4, 1), torch.bfloat16: (2, 2)}[scene.cache.keys_values[0].keys_HdNl.dtype]
    values = -(-tokens // lane) * lane if isinstance(scene.backbone.blocks[0], FoldedBlock) else tokens
    kept = size * width * 3 * (32 + values)  # keys: whole panels of 32 tokens; values: whole lanes
    pairs = [tensor for pair in scene.cache.keys_values for tensor in (pair.keys_HdNl, pair.values_HNdl)]
    sizes = [tensor.untyped_storage().nbytes() for tensor in (*pairs, *scene.cache.taps.values())]
    assert sum(sizes) == kept + 4 * width * 2 * tokens


@given(patches, seeds)
@settings(max_examples=20)
def test_embedding_some_patches_gives_their_rows(scene, chosen, seed):
    which = torch.tensor(sorted(chosen), dtype=torch.int64)
    cut = cut_patches(picture(seed), PATCH)
    with torch.no_grad():
        all_ND = scene.embed(picture(seed))
        some_RD = scene.backbone.embed_patches(cut[which], scene.positions, which)
    torch.testing.assert_close(some_RD, all_ND[rows_of(which, scene.grid)], rtol=1e-5, atol=1e-5)
