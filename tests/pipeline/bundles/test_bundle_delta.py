"""Bundles with delta weights: what is read, what isn't, what is refused, and that no delta can be lost on the way."""

import shutil
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import write_delta

from deltascene.pipeline.bundles.bundle import choose_tasks, read_bundle, read_folder
from deltascene.pipeline.bundles.check import check_model
from deltascene.pipeline.bundles.scene_model import load_model, load_sub_task_model, sketch_model
from deltascene.pipeline.bundles.weight_files import write_task
from deltascene.pipeline.errors import BundleError
from deltascene.stages.delta import DeltaWeights
from deltascene.stages.rows import run_blocks

ALL = ("parts", "height", "flow", "hands")


@pytest.fixture
def copied(tiny_delta, tmp_path):
    return Path(shutil.copytree(tiny_delta, tmp_path / "copied"))


def loading_error(folder, **options):
    """What loading is refused with; a sketch reads headers alone and says the same of a delta."""
    with pytest.raises(BundleError) as caught:
        load_model(read_folder(folder), ALL, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def change(path, drop=(), **more):
    kept = {name: tensor for name, tensor in load_file(path).items() if name not in drop}
    save_file({**kept, **{name.replace("__", "."): tensor for name, tensor in more.items()}}, path)


def end_of(model, task, x_ND):
    sub, depth = model.sub_tasks[task], model.backbone.depth
    return run_blocks(sub.blocks, x_ND, {depth}, first=sub.split)[depth]


@pytest.fixture
def x_at_split():
    return torch.randn(13, 64, generator=torch.Generator().manual_seed(1))


def test_tasks_with_a_delta_get_blocks_of_their_own(tiny_delta):
    model = load_model(read_bundle(tiny_delta), ALL)
    assert {task: (sub.split, len(sub.blocks), sub.merged) for task, sub in model.sub_tasks.items()} == {
        "height": (3, 3, True),
        "flow": (4, 2, True),
    }
    assert load_model(read_bundle(tiny_delta), ["parts", "hands"]).sub_tasks == {}


@torch.no_grad()
def test_both_forms_agree_and_differ_from_the_base(tiny, tiny_delta, x_at_split):
    """The trap: a sub-task whose delta is dropped on the way answers as the base does, and nobody notices."""
    bundle = read_bundle(tiny_delta)
    merged, beside = load_model(bundle, ALL), load_model(bundle, ALL, merged=False)
    base = load_model(read_bundle(tiny), ALL).backbone
    for task, sub in merged.sub_tasks.items():
        own_ND = end_of(merged, task, x_at_split)
        torch.testing.assert_close(
            end_of(beside, task, x_at_split), own_ND, rtol=0, atol=1e-5 * own_ND.abs().max().item()
        )
        base_ND = run_blocks(base.blocks[sub.split :], x_at_split, {base.depth}, first=sub.split)[base.depth]
        assert (own_ND - base_ND).abs().max() > 0.05 * base_ND.abs().max()


@torch.no_grad()
def test_the_base_is_the_same_with_and_without_deltas(tiny, tiny_delta):
    plain = load_model(read_bundle(tiny), ALL).backbone.state_dict()
    for merged in (True, False):
        beside = load_model(read_bundle(tiny_delta), ALL, merged=merged).backbone.state_dict()
        assert all(torch.equal(beside[name], tensor) for name, tensor in plain.items())


@torch.no_grad()
def test_a_delta_of_zero_in_a_bundle_is_the_base(copied, x_at_split):
    path = copied / "flow_delta.safetensors"
    save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(path).items()}, path)
    for merged in (True, False):
        model = load_model(read_folder(copied), ["flow"], merged=merged)
        base_ND = run_blocks(model.backbone.blocks[4:], x_at_split, {6}, first=4)[6]
        assert torch.equal(end_of(model, "flow", x_at_split), base_ND)


def test_deltas_are_stored_as_float16_and_loaded_as_float32(tiny_delta, copied):
    assert {tensor.dtype for tensor in load_file(Path(tiny_delta) / "height.safetensors").values()} == {torch.float16}
    model = load_model(read_bundle(tiny_delta), ["height"], merged=False)
    assert {tensor.dtype for block in model.sub_tasks["height"].blocks for tensor in block.parameters()} == {
        torch.float32
    }
    path = copied / "flow_delta.safetensors"
    save_file({name: tensor.float() for name, tensor in load_file(path).items()}, path)
    assert load_model(read_folder(copied), ["flow"]).sub_tasks["flow"].split == 4


def test_a_sketch_knows_the_shapes_and_has_no_memory(tiny_delta):
    bundle = read_bundle(tiny_delta)
    for merged in (True, False):
        sketch, model = sketch_model(bundle, ALL, merged=merged), load_model(bundle, ALL, merged=merged)
        for task, sub in sketch.sub_tasks.items():
            assert sub.shapes == model.sub_tasks[task].shapes
            assert all(tensor.is_meta for block in sub.blocks for tensor in block.parameters())


def test_the_files_of_a_task_are_its_heads_and_its_deltas(tiny_delta):
    bundle = read_bundle(tiny_delta)
    names = ["base.safetensors", "flow.safetensors", "flow_delta.safetensors", "height.safetensors"]
    assert [path.name for path in bundle.weight_files(["flow", "height"])] == names
    assert bundle.entry.weight_names() == [
        "base.safetensors",
        "parts.safetensors",
        "height.safetensors",
        "flow.safetensors",
        "flow_delta.safetensors",
        "hands.safetensors",
    ]


def test_a_delta_is_fetched_with_the_rest(tiny_delta, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    files = fsspec.filesystem("memory")
    files.put(tiny_delta, "/models/tiny_delta", recursive=True)
    try:
        bundle = read_bundle("memory://models/tiny_delta")
    finally:
        files.rm("/models", recursive=True)
    assert set(load_model(bundle, choose_tasks(bundle, None)).sub_tasks) == {"height", "flow"}


def test_a_delta_that_the_description_forgets_is_refused(copied):
    """Else the task would run on the base's activations with a head that was trained on others."""
    path = copied / "height.safetensors"
    rewrite(copied / "bundle.yaml", "delta: height.safetensors, ", "")
    heads = sum(name.startswith("head.") for name in load_file(path))
    assert loading_error(copied).startswith(f"weights {path}: expected {heads} tensors; found ")
    assert loading_error(copied).endswith("more, first delta.blocks.3.attn.proj.bias")


@pytest.mark.parametrize(
    ("file", "drop", "more", "text"),
    [
        ("height", (), {"tail__x": torch.zeros(1)}, "expected tensors delta.NAME or head.NAME; found tail.x"),
        ("flow_delta", (), {"tail__x": torch.zeros(1)}, "expected tensors delta.NAME; found tail.x"),
        ("flow_delta", (), {"head__x": torch.zeros(1)}, "expected tensors delta.NAME; found head.x"),
        ("flow", (), {"delta__blocks__4__norm1__bias": torch.zeros(64)}, "more, first delta.blocks.4.norm1.bias"),
        (
            "flow_delta",
            (),
            {"delta__blocks__3__norm1__bias": torch.zeros(64)},
            "delta blocks.3.norm1.bias: expected a block from the split on, 4 or later; found 3",
        ),
        (
            "flow_delta",
            (),
            {"delta__blocks__9__norm1__bias": torch.zeros(64)},
            "delta blocks.9.norm1.bias: expected a tensor of the backbone's blocks; found none of that name; "
            "did you mean blocks.5.norm1.bias?",
        ),
        (
            "flow_delta",
            (),
            {"delta__blocks__4__norm1__bias": torch.zeros(63)},
            "delta blocks.4.norm1.bias: expected shape (64,); found (63,)",
        ),
        (
            "flow_delta",
            ("delta.blocks.4.attn.qkv.weight.A",),
            {},
            "delta blocks.4.attn.qkv.weight: expected blocks.4.attn.qkv.weight.A and blocks.4.attn.qkv.weight.B; "
            "found only blocks.4.attn.qkv.weight.B",
        ),
        (
            "height",
            (),
            {"delta__blocks__4__norm1__bias": torch.zeros(64, dtype=torch.int32)},
            "delta.blocks.4.norm1.bias: expected floats; found I32",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named_with_their_file(copied, file, drop, more, text):
    path = copied / f"{file}.safetensors"
    change(path, drop, **more)
    line = loading_error(copied)
    assert line.startswith(f"weights {path}: ")
    assert line.endswith(text)
    assert loading_error(copied, merged=False) == line
    check = check_model(str(copied))
    assert check.problems == (line,)


def test_a_delta_that_is_not_there_is_named(copied):
    path = copied / "flow_delta.safetensors"
    save_file({}, path)
    assert loading_error(copied) == f"weights {path}: expected tensors delta.NAME; found none"
    path.unlink()
    assert loading_error(copied) == f"weights: expected {path}; found no such file"


def test_head_only_in_the_file_that_should_hold_both(copied):
    path = copied / "height.safetensors"
    change(path, [name for name in load_file(path) if name.startswith("delta.")])
    assert loading_error(copied) == f"weights {path}: expected tensors delta.NAME; found none"


def test_a_check_counts_the_blocks_that_a_delta_costs(tiny_delta):
    """13 tokens, width 64; a block: 64 -> 192 -> 64 beside 64 -> 192 and 64 -> 64, and attention over 13."""
    block = 13 * (64 * 192 + 64 * 64 + 64 * 192 + 192 * 64) + 2 * 13 * 13 * 64
    check = check_model(tiny_delta)
    assert check.supported
    assert {name: task.blocks_macs for name, task in check.tasks.items()} == {
        "parts": 0,
        "height": 3 * block,
        "flow": 2 * block,
        "hands": 0,
    }


@torch.no_grad()
@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize(("task", "split"), [("height", 3), ("flow", 4), ("hands", 3)])
def test_a_sub_task_alone_needs_nothing_of_the_base_below_its_split(
    tiny_delta, copied, task, split, merged, x_at_split
):
    """Whatever lies below the split, around the blocks, or belongs to other tasks, is gone from the disk."""
    whole = load_model(read_bundle(tiny_delta), ALL, merged=merged)
    base = load_file(copied / "base.safetensors")
    kept = {f"blocks.{number}." for number in range(split, 6)}
    save_file({n: t for n, t in base.items() if n.startswith(tuple(kept))}, copied / "base.safetensors")
    for other in ALL:
        if other != task:
            (copied / f"{other}.safetensors").unlink()
    bundle = read_folder(copied)

    model = load_sub_task_model(bundle, task, merged=merged)
    assert model.tasks == (task,)
    assert model.sub_tasks.keys() == {task} & whole.sub_tasks.keys()
    for number in range(6):
        assert {tensor.is_meta for tensor in model.backbone.blocks[number].parameters()} == {number < split}
    assert model.backbone.state_dict()["patch_embed.proj.weight"].is_meta
    ours = model.sub_tasks[task].blocks if model.sub_tasks else model.backbone.blocks[split:]
    theirs = whole.sub_tasks[task].blocks if model.sub_tasks else whole.backbone.blocks[split:]
    found, expected = (run_blocks(blocks, x_at_split, {6}, first=split)[6] for blocks in (ours, theirs))
    assert torch.equal(found, expected)
    for name, tensor in whole.heads[task].state_dict().items():
        assert torch.equal(model.heads[task].state_dict()[name], tensor)


def test_a_sub_task_alone_says_what_it_lacks(copied):
    with pytest.raises(BundleError, match=r"tasks\.parts: expected a sub-task, which has a split; found the base"):
        load_sub_task_model(read_folder(copied), "parts")
    path = copied / "base.safetensors"
    change(path, ["blocks.4.norm1.weight"])
    with pytest.raises(BundleError) as caught:
        load_sub_task_model(read_folder(copied), "flow")
    assert str(caught.value) == f"weights {path}: expected tensor blocks.4.norm1.weight; found none"
    change(path, blocks__4__norm1__weight=torch.zeros(63))
    with pytest.raises(BundleError) as caught:
        load_sub_task_model(read_folder(copied), "flow")
    assert str(caught.value) == f"weights {path}: blocks.4.norm1.weight: expected shape (64,); found (63,)"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_is_written_is_read_back(tiny_delta, tmp_path, dtype):
    model = load_model(read_bundle(tiny_delta), ["height"], merged=False)
    stored = load_file(read_bundle(tiny_delta).head_file("height"))
    delta = DeltaWeights.from_tensors(
        {name.removeprefix("delta."): t.float() for name, t in stored.items() if name.startswith("delta.")}
    )
    write_task(tmp_path / "both.safetensors", model.heads["height"], delta, dtype)
    write_delta(tmp_path / "delta.safetensors", delta, dtype)
    both, alone = load_file(tmp_path / "both.safetensors"), load_file(tmp_path / "delta.safetensors")
    assert both.keys() == stored.keys()
    assert alone.keys() == {name for name in stored if name.startswith("delta.")}
    assert {tensor.dtype for tensor in both.values()} == {dtype}
    for name, tensor in both.items():
        assert torch.equal(tensor.float(), stored[name].float())
    (tmp_path / "plain").touch()
    assert (tmp_path / "both.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode  # others may read it
