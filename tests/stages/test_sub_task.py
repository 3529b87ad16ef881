"""A sub-task's blocks: its own answer with its delta, the base's without, in either form."""

import pytest
import torch
from tiny_model import is_zero

from deltascene.stages.backbone import create_backbone
from deltascene.stages.cost import BlockShape
from deltascene.stages.delta import DeltaWeights, LowRank, start_delta
from deltascene.stages.errors import UnfitDelta
from deltascene.stages.rows import run_blocks
from deltascene.stages.sub_task import build_sub_task

SPLIT = 2


@pytest.fixture(scope="module")
def backbone(randomise):
    built = create_backbone("test_vit", {"img_size": 64})
    randomise(built, 3)
    return built


@pytest.fixture(scope="module")
def tokens(backbone):
    return torch.randn(9, backbone.width, generator=torch.Generator().manual_seed(1))


def grown(delta, only=lambda name: True):
    """A started delta with something in its zeros."""
    generator = torch.Generator().manual_seed(2)
    flat = {name: 0.05 * torch.randn(x.shape, generator=generator) for name, x in delta.to_tensors().items()}
    return DeltaWeights({name: d for name, d in DeltaWeights.from_tensors(flat).tensors.items() if only(name)})


def answer(backbone, sub, tokens):
    """The residual stream at the end, from the base's activations at the split on."""
    split_ND = run_blocks(backbone.blocks, tokens, [sub.split])[sub.split]
    return run_blocks(sub.blocks, split_ND, {backbone.depth}, first=sub.split)[backbone.depth]


@torch.no_grad()
@pytest.mark.parametrize("merged", [True, False])
def test_a_sub_tasks_answer_is_its_own_and_without_its_delta_the_bases(backbone, tokens, merged):
    base_ND = run_blocks(backbone.blocks, tokens, [backbone.depth])[backbone.depth]
    start = start_delta(backbone.blocks, SPLIT, 3, torch.Generator().manual_seed(0))
    own = answer(backbone, build_sub_task(backbone, SPLIT, grown(start), merged), tokens)
    assert (own - base_ND).abs().max() > 0.05 * base_ND.abs().max()
    for nothing in (start, DeltaWeights({})):
        assert is_zero(nothing)
        assert torch.equal(answer(backbone, build_sub_task(backbone, SPLIT, nothing, merged), tokens), base_ND)


@torch.no_grad()
@pytest.mark.parametrize("merged", [True, False])
def test_every_single_delta_shows_in_the_answer_the_split_blocks_first_of_all(backbone, tokens, merged):
    """A delta that is left out anywhere makes the sub-task another one: each alone must change what comes out."""
    base_ND = run_blocks(backbone.blocks, tokens, [backbone.depth])[backbone.depth]
    start = start_delta(backbone.blocks, SPLIT, 3, torch.Generator().manual_seed(0))
    assert f"blocks.{SPLIT}.attn.qkv.weight" in start.tensors
    for name in start.tensors:
        sub = build_sub_task(backbone, SPLIT, grown(start, name.__eq__), merged)
        assert not torch.equal(answer(backbone, sub, tokens), base_ND), name


def test_it_knows_its_split_its_form_and_its_costs(backbone):
    delta = grown(start_delta(backbone.blocks, SPLIT, 3, torch.Generator().manual_seed(0)))
    merged, beside = (build_sub_task(backbone, SPLIT, delta, form) for form in (True, False))
    assert (merged.merged, beside.merged) == (True, False)
    assert merged.split == beside.split == SPLIT
    assert len(merged.blocks) == len(beside.blocks) == backbone.depth - SPLIT
    assert list(merged.shapes) == backbone.block_shapes()[SPLIT:]
    low = [delta.tensors[f"blocks.{SPLIT}.{site}.weight"] for site in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]
    assert all(isinstance(part, LowRank) for part in low)
    more = sum(part.A.numel() + part.B.numel() for part in low)
    plain = backbone.block_shapes()[SPLIT]
    assert set(beside.shapes) == {BlockShape(plain.linear + more, plain.attention)}


def test_a_split_past_the_end_is_refused(backbone):
    assert build_sub_task(backbone, backbone.depth, DeltaWeights({}), True).blocks == ()
    with pytest.raises(UnfitDelta, match=r"split: expected 0 to 6 blocks; found 7"):
        build_sub_task(backbone, 7, DeltaWeights({}), True)
