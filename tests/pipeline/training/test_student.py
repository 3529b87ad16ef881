"""What is trained, and that what a student computes is what the bundle that comes out of it computes."""

import re
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_model import is_zero

from deltascene.pipeline.bundles.bundle import read_bundle, read_folder
from deltascene.pipeline.bundles.networks import build_backbone
from deltascene.pipeline.bundles.scene_model import load_model
from deltascene.pipeline.bundles.weight_files import write_head, write_task, write_weights
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.training.recipe import Recipe
from deltascene.pipeline.training.student import (
    new_head,
    open_blocks,
    start_frozen,
    start_head,
    start_network,
    start_subtask,
)
from deltascene.stages.delta import LowRank
from deltascene.stages.heads import stack_taps
from deltascene.stages.rows import run_blocks
from deltascene.stages.sub_task import build_sub_task

RECIPE = Recipe(rank=2)
LINEAR = ("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bundle(tiny):
    return read_bundle(tiny)


@pytest.fixture
def pictures(bundle, samples_of):
    samples = samples_of(bundle, "test")
    return torch.stack([samples.picture(number) for number in range(3)])


@torch.no_grad()
def shaken(student, seed=5):
    """Changes everything that is trained, and leaves numbers that float16 holds."""
    generator = torch.Generator().manual_seed(seed)
    base = dict(student.backbone.named_parameters())
    for name, value in student.parameters().items():
        noise = 0.1 * torch.randn(value.shape, generator=generator)
        origin = base[name] if name in base and not student.embeds else torch.zeros_like(value)
        value.copy_(origin + (value - origin + noise).half().float())
    return student


def cells_of_bundle(folder, task, pictures):
    """The heads' cells of a bundle on disk, as the engine gets them."""
    model = load_model(read_folder(folder), [task])
    backbone, entry = model.backbone, model.bundle.entry.tasks[task]
    grid, taps = backbone.grid((48, 64)), entry.taps
    found = []
    for image in pictures:
        x_ND = backbone.embed(image, backbone.positions(grid))
        if task in model.sub_tasks:
            sub = model.sub_tasks[task]
            x_ND = run_blocks(backbone.blocks, x_ND, [sub.split])[sub.split]
            tapped = run_blocks(sub.blocks, x_ND, taps, first=sub.split)
        else:
            tapped = run_blocks(backbone.blocks, x_ND, taps)
        found.append(model.heads[task].cells(stack_taps(tapped, taps, grid.prefix)))
    return torch.stack(found)


@torch.no_grad()
@pytest.mark.parametrize(
    ("task", "start"), [("parts", start_network), ("flow", start_subtask), ("hands", start_frozen)]
)
def test_with_all_tokens_a_student_is_the_model_that_is_written(tiny, bundle, pictures, tmp_path, task, start):
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    student = shaken(start(bundle, task, RECIPE))
    if start is start_network:
        state = student.backbone.state_dict()
        write_weights(folder / "base.safetensors", {name: value.half() for name, value in state.items()})
    if start is start_subtask:
        write_task(folder / "flow.safetensors", student.head, student.delta())
        yaml = (folder / "bundle.yaml").read_text()
        (folder / "bundle.yaml").write_text(yaml.replace("split: 4,", "split: 4, delta: flow.safetensors,"))
    else:
        write_head(folder / f"{task}.safetensors", student.head)
    ours = student.cells(student.embed(pictures), student.grid((48, 64)))
    torch.testing.assert_close(ours, cells_of_bundle(folder, task, pictures), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("task", "start"), [("parts", start_network), ("flow", start_subtask), ("hands", start_frozen)]
)
def test_a_subset_of_tokens_is_the_blocks_on_just_these(bundle, pictures, task, start):
    student = shaken(start(bundle, task, RECIPE))
    grid, generator = student.grid((48, 64)), torch.Generator().manual_seed(1)
    kept_FM = torch.stack([torch.randperm(grid.patches, generator=generator)[:5].sort().values for _ in pictures])
    points = student.embed(pictures)
    for image, kept, found in zip(range(3), kept_FM, student.cells(points, grid, kept_FM), strict=True):
        rows = [*range(grid.prefix), *(kept + grid.prefix).tolist()]
        tapped = {point: value[image : image + 1, rows] for point, value in points.items()}
        x_FMD = tapped.get(student.first)
        for number, block in enumerate(student.blocks, start=student.first + 1):
            x_FMD = tapped[number] = block(x_FMD)
        expected = student.head.cells(torch.stack([tapped[tap][0, grid.prefix :] for tap in student.taps], dim=1))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    everything = torch.arange(grid.patches).expand(3, -1)
    torch.testing.assert_close(student.cells(points, grid, everything), student.cells(points, grid))


@torch.no_grad()
def test_a_delta_of_zero_is_the_base(bundle, pictures):
    student, frozen = start_subtask(bundle, "height", RECIPE), start_frozen(bundle, "height", RECIPE)
    grid = student.grid((48, 64))
    assert is_zero(student.delta())
    ours, theirs = (each.cells(each.embed(pictures), grid) for each in (student, frozen))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert student.points == (3,)
    assert frozen.points == (4, 6)


def test_everything_from_the_split_on_is_trained_and_nothing_else(bundle):
    student = start_subtask(bundle, "flow", RECIPE)
    names = set(student.parameters())
    assert {name.split(".")[1] for name in names if name.startswith("blocks.")} == {"4", "5"}
    assert {"blocks.4.attn.qkv.A", "blocks.4.mlp.fc2.B", "blocks.5.norm2.bias", "blocks.5.attn.proj.bias"} <= names
    assert not any(name.endswith(LINEAR) for name in names)
    assert all(parameter.requires_grad for parameter in student.parameters().values())
    assert not any(parameter.requires_grad for parameter in student.backbone.parameters())
    assert open_blocks(student.delta()) == [4, 5]


def test_of_a_frozen_base_the_head_alone_is_trained(bundle):
    student = start_frozen(bundle, "hands", RECIPE)
    assert all(name.startswith("head.") for name in student.parameters())
    assert not any(parameter.requires_grad for parameter in student.backbone.parameters())


def test_of_a_network_all_that_its_head_sees_is_trained(bundle, pictures):
    student = start_network(bundle, "parts", RECIPE)
    raw = student.cells(student.embed(pictures), student.grid((48, 64)))
    raw.square().mean().backward()
    without = [name for name, value in student.parameters().items() if value.grad is None]
    assert without == []
    assert {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight"} <= set(student.parameters())
    assert not any(name.startswith("norm.") for name in student.parameters())


def test_the_frozen_base_gets_no_gradient(bundle, pictures):
    student = start_subtask(bundle, "height", RECIPE)
    student.cells(student.embed(pictures), student.grid((48, 64))).square().mean().backward()
    assert all(parameter.grad is None for parameter in student.backbone.parameters())
    assert student.parameters()["blocks.3.attn.qkv.B"].grad.abs().sum() > 0


def test_a_new_head_is_the_same_for_the_same_seed(bundle):
    backbone = build_backbone(bundle)
    torch.manual_seed(0)
    one = new_head(bundle, backbone, "hands", RECIPE).state_dict()
    here = torch.rand(1)
    torch.manual_seed(0)
    torch.rand(1)
    again = new_head(bundle, backbone, "hands", RECIPE).state_dict()
    other = new_head(bundle, backbone, "hands", Recipe(seed=1)).state_dict()
    assert all(torch.equal(again[name], value) for name, value in one.items())
    assert not torch.equal(other["layers.0.weight"], one["layers.0.weight"])
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), here), "starting a student takes nothing from the common generator"


@pytest.mark.parametrize("start", [start_frozen, start_subtask])
def test_training_starts_from_the_bundles_head(bundle, tmp_path, start):
    copied = read_folder(shutil.copytree(bundle.folder, tmp_path / "copy"))
    untrained = new_head(copied, build_backbone(copied), "hands", RECIPE)
    for parameter in untrained.parameters():
        parameter.detach().fill_(0.25)
    write_head(copied.head_file("hands"), untrained)
    head = start(copied, "hands", RECIPE).head
    assert all((value == 0.25).all() and value.requires_grad for value in head.parameters())


@pytest.mark.parametrize("lacking", ["file", "shape", "delta in the file", "delta in the description"])
def test_training_starts_from_a_new_head_where_the_bundles_is_no_start(bundle, tmp_path, lacking):
    copied = read_folder(shutil.copytree(bundle.folder, tmp_path / "copy"))
    new = new_head(copied, build_backbone(copied), "hands", RECIPE)
    stored = deepcopy(new)
    for parameter in stored.parameters():
        torch.nn.init.constant_(parameter, 0.25)
    path = copied.head_file("hands")
    write_head(path, stored)
    if lacking == "file":
        path.unlink()
    elif lacking == "shape":
        write_weights(path, {"head.layers.0.weight": torch.ones(1)})
    elif lacking == "delta in the file":
        write_task(path, stored, start_subtask(copied, "hands", RECIPE).delta())
    else:
        hands = copied.entry.tasks["hands"].model_copy(update={"delta": "elsewhere.safetensors"})
        copied = replace(
            copied, entry=copied.entry.model_copy(update={"tasks": {**copied.entry.tasks, "hands": hands}})
        )
    start = start_head(copied, build_backbone(copied), "hands", RECIPE).state_dict()
    assert all(torch.equal(start[name], value) for name, value in new.state_dict().items())


def test_training_starts_from_the_bundles_head_where_it_fits(bundle, tmp_path):
    copied = read_folder(shutil.copytree(bundle.folder, tmp_path / "copy"))
    stored = new_head(copied, build_backbone(copied), "hands", RECIPE)
    for parameter in stored.parameters():
        torch.nn.init.constant_(parameter, 0.25)
    write_head(copied.head_file("hands"), stored)
    start = start_head(copied, build_backbone(copied), "hands", RECIPE).state_dict()
    assert all(torch.equal(start[name], value) for name, value in stored.state_dict().items())


@torch.no_grad()
def test_gates_weigh_each_tensors_delta(bundle, pictures):
    student = shaken(start_subtask(bundle, "flow", Recipe(rank=2, gate_penalty=0.1)))
    names, grid = student.gates.names, student.grid((48, 64))
    points = student.embed(pictures)

    def cells(**changed):
        return student.cells(points, grid, gates={name: torch.tensor(changed.get(name, 1.0)) for name in names})

    torch.testing.assert_close(cells(), student.cells(points, grid), rtol=1e-5, atol=1e-5)
    plain = start_subtask(bundle, "flow", RECIPE)
    plain.head.load_state_dict(student.head.state_dict())
    closed = cells(**dict.fromkeys(names, 0.0))
    torch.testing.assert_close(closed, plain.cells(points, grid), rtol=1e-5, atol=1e-5)
    for name in names:
        assert not torch.equal(cells(**{name: 0.0}), cells()), name


@torch.no_grad()
def test_the_delta_leaves_closed_tensors_out_and_carries_the_others_gate(bundle, pictures):
    student = shaken(start_subtask(bundle, "flow", Recipe(rank=2, gate_penalty=0.1)))
    names = student.gates.names
    student.gates.a_T.fill_(5.0)
    closed = {name for name in names if name.startswith("blocks.4.")} | {"blocks.5.norm2.bias"}
    half = "blocks.5.mlp.fc1.weight"
    for place, name in enumerate(names):
        if name in closed:
            student.gates.a_T[place] = -1.0
        elif name == half:
            student.gates.a_T[place] = torch.tensor(2.0).log()
    delta = student.delta()
    assert set(delta.tensors) == set(names) - closed
    assert open_blocks(delta) == [5]
    block = student.blocks[1]
    halved = delta.tensors[half]
    assert isinstance(halved, LowRank)
    torch.testing.assert_close(halved.product(), 0.5 * (block.mlp.fc1.B @ block.mlp.fc1.A))

    sub, grid = build_sub_task(student.backbone, 4, delta, merged=True), student.grid((48, 64))
    points = student.embed(pictures)
    x_FND = points[4]
    for own in sub.blocks:  # the same cells from the delta as from the gates
        x_FND = own(x_FND)
    expected = student.head.cells(x_FND[:, grid.prefix :, None])
    found = student.cells(points, grid, gates=student.gates.final())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_only_a_sub_task_has_a_delta_to_train(bundle):
    with pytest.raises(UsageError, match="--task: expected a sub-task of tiny, height, flow, hands; found its base"):
        start_subtask(bundle, "parts", RECIPE)


def test_a_head_of_the_bundles_author_is_not_trained(tiny, tmp_path):
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    yaml = (folder / "bundle.yaml").read_text()
    (folder / "bundle.yaml").write_text(
        yaml.replace("taps: [4, 6], head: linear", "taps: [4, 6], head: 'mine.heads:Own'")
    )
    said = "tasks.height.head: expected one of linear, token_mlp, as others aren't trained; found mine.heads:Own"
    with pytest.raises(UsageError, match=re.escape(said)):
        start_frozen(read_folder(folder), "height", RECIPE)
