"""Blocks and heads in the compiled kernel: timm's own, whoever shares the pack, and nothing that it doesn't know."""

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import SwiGLU
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from deltascene.pipeline.numerics.kernel import multiplies_bfloat16
from deltascene.stages.backbone import Backbone
from deltascene.stages.folded import FoldedBlock, fold, fold_head
from deltascene.stages.heads import TokenHead
from deltascene.stages.rows import StreamRows, key_shapes, run_block, run_blocks, run_streams
from deltascene.stages.scene_cache import allocate_cache

pytestmark = pytest.mark.usefixtures("built_kernel")

TOKENS = (13, 40, 33)  # less than a panel of keys, more, and one over
SHAPES = [
    {"embed_dim": 64, "num_heads": 2},
    {"embed_dim": 96, "num_heads": 3, "init_values": 0.3, "mlp_ratio": 3},
    {"embed_dim": 64, "num_heads": 1, "qkv_bias": False},
]


def network(randomise, seed=3, **shape):
    vit = VisionTransformer(img_size=32, patch_size=8, depth=3, num_classes=0, **shape)
    randomise(vit, seed)
    return Backbone(vit)


TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.03}  # of the largest number
bfloat16 = pytest.param(
    torch.bfloat16, marks=pytest.mark.skipif(not multiplies_bfloat16(), reason="no AVX512-BF16"), id="bfloat16"
)


@pytest.fixture(scope="module", params=[pytest.param(torch.float32, id="float32"), bfloat16])
def dtype(request):
    return request.param


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def blocks(request, randomise, dtype):
    """timm's and the kernel's."""
    plain = network(randomise, **request.param).blocks
    folded = [fold(block, dtype) for block in plain]
    assert all(isinstance(block, FoldedBlock) for block in folded)
    return plain, folded


def drawn(count, width, seed):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def assert_near(found, expected, dtype=torch.float32):
    assert (found - expected).abs().max() <= TOLERANCES[dtype] * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_base_patch16_224", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("rows", [1, 5, 36, 97, 197])
def test_real_widths_are_timms_own_forward(name, rows, randomise, dtype):
    block = timm.create_model(name, num_classes=0).eval().blocks[0]
    randomise(block, 1)
    x_ND = drawn(rows, block.attn.qkv.in_features, 2)
    folded = fold(block, dtype)
    assert isinstance(folded, FoldedBlock)
    assert_near(run_block(folded, x_ND, [StreamRows(rows)]), block(x_ND[None])[0], dtype)


class Streams:
    """Frames of some streams, computed before, and rows that are new now."""

    def __init__(self, blocks, steps):
        width = 0
        self.streams = []
        for place, (tokens, chosen, seed) in enumerate(steps):
            shapes = key_shapes(blocks)
            width = shapes[0].heads * shapes[0].head_dim
            cache = allocate_cache(shapes, tokens, width, ())
            run_blocks(blocks, drawn(tokens, width, seed), {3}, stream_rows=[StreamRows(tokens, None, cache)])
            rows = torch.tensor(sorted({row % tokens for row in chosen})) if chosen else None
            count = tokens if rows is None else len(rows)
            self.streams.append((drawn(count, width, seed + 100 + place), StreamRows(count, rows, cache)))

    def kept(self):
        pairs = [pair for _, part in self.streams for pair in part.cache.keys_values]
        return [half.clone() for pair in pairs for half in (pair.plain_keys, pair.plain_values)]


streams = st.lists(
    st.tuples(st.sampled_from(TOKENS), st.frozensets(st.integers(0, 39), max_size=20), st.integers(0, 99)),
    min_size=1,
    max_size=4,
)


@torch.no_grad()
@settings(max_examples=25, deadline=None)
@given(streams, st.randoms(use_true_random=False))
def test_a_pack_is_its_streams_alone_in_any_order(blocks, steps, random):
    """Byte for byte in the kernel, whose rows don't know of each other; to float tolerance through PyTorch."""
    for own, exact in zip(blocks, (False, True), strict=True):
        alone, packed = Streams(own, steps), Streams(own, steps)
        expected = [run_streams(own, [stream], {1, 3})[0] for stream in alone.streams]
        order = list(range(len(steps)))
        random.shuffle(order)
        found = run_streams(own, [packed.streams[place] for place in order], {1, 3})
        pairs = [(mine[tap], expected[place][tap]) for place, mine in zip(order, found, strict=True) for tap in (1, 3)]
        for mine, theirs in [*pairs, *zip(packed.kept(), alone.kept(), strict=True)]:
            assert torch.equal(mine, theirs) if exact else True
            assert_near(mine, theirs)


@torch.no_grad()
@settings(max_examples=25, deadline=None)
@given(streams)
def test_rows_through_the_kernel_are_rows_through_pytorch(blocks, dtype, steps):
    plain, folded = (Streams(own, steps) for own in blocks)
    expected = run_streams(blocks[0], plain.streams, {3})
    found = run_streams(blocks[1], folded.streams, {3})
    for ours, theirs in zip(found, expected, strict=True):
        assert_near(ours[3], theirs[3], dtype)
    for ours, theirs in zip(folded.kept(), plain.kept(), strict=True):
        assert_near(ours, theirs, dtype)


@torch.no_grad()
def test_threads_dont_change_a_bit(blocks):
    _, folded = blocks
    width = folded[0].keys.heads * folded[0].keys.head_dim
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(run_blocks(folded, drawn(150, width, 4), {3})[3])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@torch.no_grad()
@pytest.mark.parametrize(("hidden", "channels", "side"), [(32, 5, 4), (0, 1, 4), (0, 3, 7)])
@pytest.mark.parametrize("rows", [1, 13, 50])
def test_a_heads_layers_are_its_own(dtype, hidden, channels, side, rows, randomise):
    head = TokenHead(64, 2, channels, side, hidden).eval()
    randomise(head, 1)
    taps_RTD = torch.randn(rows, 2, 64, generator=torch.Generator().manual_seed(2))
    folded = fold_head(head, dtype)
    assert_near(folded.cells(taps_RTD), head.cells(taps_RTD), dtype)
    assert folded.macs_per_token() == head.macs_per_token()
    assert isinstance(head.layers[0], nn.Linear)  # the plain one is as it was


def test_a_head_of_the_users_own_stays_itself():
    class Own(TokenHead):
        pass

    head = Own(64, 2, 3)
    assert fold_head(head) is head


UNKNOWN = {
    "gated mlp": {"mlp_layer": SwiGLU},
    "norm of queries and keys": {"qk_norm": True},
    "norm inside the mlp": {"scale_mlp_norm": True},
    "norm of what was attended": {"scale_attn_norm": True},
    "another activation": {"act_layer": nn.ReLU},
    "tanh": {"act_layer": "gelu_tanh"},
    "narrow heads": {"num_heads": 8},
    "odd width": {"embed_dim": 72, "num_heads": 1},
}


@pytest.mark.parametrize("shape", UNKNOWN.values(), ids=list(UNKNOWN))
def test_a_block_that_the_kernel_doesnt_know_stays_itself(shape, randomise):
    (block, *_) = network(randomise, **{"embed_dim": 64, "num_heads": 2, **shape}).blocks
    assert fold(block) is block


@torch.no_grad()
def test_the_kernel_refuses_what_doesnt_fit(blocks):
    (block, *_) = blocks[1]
    width = block.keys.heads * block.keys.head_dim
    cache = allocate_cache([block.keys], 13, width, ())
    for x_RD, rows, text in (
        (drawn(2, width, 0).T.contiguous().T, torch.tensor([0, 1]), "contiguous"),
        (drawn(2, width, 0).double(), torch.tensor([0, 1]), "float32"),
        (drawn(2, width, 0), torch.tensor([0]), "rows"),
        (drawn(3, width, 0), torch.tensor([0, 1]), "rows"),
        (drawn(2, width, 0), torch.tensor([0, 13]), "found 13"),
    ):
        with pytest.raises(RuntimeError, match=text):
            block(x_RD, [2], [rows], cache.keys_values[:1])
