"""Delta training: it learns on a frozen base, a cut run ends as an uncut one, and what was learned is written."""

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deltascene.pipeline.bundle import read_bundle, read_folder
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.model import load_model
from deltascene.pipeline.training import train_delta
from deltascene.pipeline.training.data import LabelledFolder
from deltascene.pipeline.training.images import TaskImages
from deltascene.pipeline.training.train_delta import Recipe, score, start_trainee, train
from deltascene.stages.base_task import run_base
from deltascene.stages.heads import stack_taps
from deltascene.stages.sub_task import build_sub_task

RECIPE = Recipe(rank=2, epochs=3, batch=4, learning_rate=5e-3)
STEPS = 3 * 16 // 4

pytestmark = pytest.mark.usefixtures("one_thread")


class Killed(Exception):  # noqa: N818
    """Stands for the end of the process."""


def images_of(trainee, labelled):
    return TaskImages(trainee.bundle, trainee.task, labelled, trainee.backbone.patch, trainee.head.side)


def trained(bundle, task, labelled, work, recipe=RECIPE, **options):
    work.mkdir(exist_ok=True)
    trainee = start_trainee(bundle, task, recipe)
    train(trainee, images_of(trainee, labelled), work, recipe, judged=2, **options)
    return trainee


def logged(work):
    return [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("checkpoint_s", [0, 1000])
def test_it_learns_and_a_cut_run_ends_with_the_same_weights(tiny, labelled, tmp_path, monkeypatch, checkpoint_s):
    bundle = read_bundle(tiny)
    base = {name: value.clone() for name, value in load_model(bundle, ()).backbone.vit.state_dict().items()}
    whole = trained(bundle, "height", labelled, tmp_path / "whole")

    original = train_delta.learning_rate

    def dying(peak, step, steps):
        if step == STEPS - 2:
            raise Killed
        return original(peak, step, steps)

    monkeypatch.setattr(train_delta, "learning_rate", dying)
    with pytest.raises(Killed):
        trained(bundle, "height", labelled, tmp_path / "cut", checkpoint_s=checkpoint_s)
    monkeypatch.setattr(train_delta, "learning_rate", original)
    again = trained(bundle, "height", labelled, tmp_path / "cut", checkpoint_s=checkpoint_s)

    assert again.parameters().keys() == whole.parameters().keys()
    for name, value in whole.parameters().items():
        torch.testing.assert_close(again.parameters()[name], value, rtol=0, atol=0)
    losses = [event["loss"] for event in logged(tmp_path / "whole") if "loss" in event]
    assert len(losses) == RECIPE.epochs
    assert losses[-1] < 0.8 * losses[0]
    assert not whole.delta().is_zero
    for name, value in whole.backbone.vit.state_dict().items():
        assert torch.equal(value, base[name]), name


def test_everything_from_the_split_on_is_trained_and_nothing_else(tiny):
    trainee = start_trainee(read_bundle(tiny), "flow", RECIPE)
    names = set(trainee.parameters())
    assert {name.split(".")[1] for name in names if name.startswith("blocks.")} == {"4", "5"}
    assert {"blocks.4.attn.qkv.A", "blocks.4.mlp.fc2.B", "blocks.5.norm2.bias", "blocks.5.attn.proj.bias"} <= names
    assert not any(name.endswith(("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight")) for name in names)
    assert all(parameter.requires_grad for parameter in trainee.parameters().values())
    assert not any(parameter.requires_grad for parameter in trainee.backbone.vit.parameters())


@pytest.mark.parametrize("task", ["height", "flow", "hands", "parts"])
def test_every_kind_is_trained(tiny, labelled, tmp_path, task):
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    if task == "parts":  # make it a sub-task
        text = (folder / "bundle.yaml").read_text()
        text = text.replace("base: parts", "base: hands").replace("[left, right], split: 3,", "[left, right],")
        (folder / "bundle.yaml").write_text(text.replace("[sky, road, car],", "[sky, road, car], split: 3,"))
    trainee = trained(read_folder(folder), task, labelled, tmp_path / "work", replace(RECIPE, epochs=1))
    (line,) = [event for event in logged(tmp_path / "work") if "loss" in event]
    assert np.isfinite(line["loss"])
    assert not trainee.delta().is_zero


@torch.no_grad()
def test_with_a_delta_of_zero_the_cells_are_those_of_the_base(tiny, labelled):
    bundle = read_bundle(tiny)
    trainee = start_trainee(bundle, "height", RECIPE)
    input_FCHW, truth = images_of(trainee, labelled).draw(labelled.stems("test")[:3], None)
    model = load_model(bundle, ["height"])
    grid = model.backbone.grid((48, 64))
    assert truth.shape[:2] == (3, grid.patches)
    for image_CHW, found in zip(input_FCHW, trainee.cells(input_FCHW), strict=True):
        tapped = run_base(model.backbone, model.backbone.embed(image_CHW, model.backbone.positions(grid)), [4, 6])
        expected = model.heads["height"].cells(stack_taps(tapped, [4, 6], grid.prefix))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_command_puts_head_and_delta_into_the_bundle(tiny, labelled, tmp_path, monkeypatch, capsys):
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    numbers = {"rank": 2, "epochs": 1, "batch": 4, "learning-rate": 0.005}
    arguments = [str(part) for name, value in numbers.items() for part in (f"--{name}", value)]
    command = ["train_delta", str(labelled.root), str(folder), "--task", "height", "--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", [*command, *arguments])
    train_delta.main()
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {folder / 'height.safetensors'}"

    bundle = read_folder(folder)
    assert bundle.entry.tasks["height"].delta == "height.safetensors"
    assert {task: entry.delta for task, entry in bundle.entry.tasks.items() if task != "height"} == {
        "parts": None,
        "flow": None,
        "hands": None,
    }
    model = load_model(bundle, ["height"])
    again = start_trainee(read_bundle(tiny), "height", replace(RECIPE, epochs=1))
    train(again, images_of(again, labelled), tmp_path / "work", replace(RECIPE, epochs=1))  # was finished: only loads
    merged = build_sub_task(again.backbone, 3, again.delta(), merged=True)
    for ours, theirs in zip(model.sub_tasks["height"].blocks, merged.blocks, strict=True):
        for name, value in theirs.named_parameters():
            torch.testing.assert_close(ours.get_parameter(name), value, rtol=0, atol=2e-3)


def test_a_checkpoint_of_another_recipe_is_not_gone_on_with(tiny, labelled, tmp_path):
    bundle = read_bundle(tiny)
    trained(bundle, "height", labelled, tmp_path / "work", replace(RECIPE, epochs=1))
    with pytest.raises(UsageError, match=r"a checkpoint of another recipe: epochs: expected 3; found 1"):
        trained(bundle, "height", labelled, tmp_path / "work")


@pytest.mark.parametrize("task", ["parts", "smell"])
def test_only_a_sub_task_has_a_delta_to_train(tiny, task):
    with pytest.raises(UsageError, match=f"--task: expected a sub-task of tiny, height, flow, hands; found '{task}'"):
        start_trainee(read_bundle(tiny), task, RECIPE)


def test_the_part_that_is_judged_may_be_missing(tiny, labelled):
    trainee = start_trainee(read_bundle(tiny), "height", RECIPE)
    assert score(trainee, images_of(trainee, labelled), "val", 3) == {}
    assert set(score(trainee, images_of(trainee, labelled), "test", 3)) == {"rmse", "abs_rel", "delta1"}


def test_picture_and_truth_are_mirrored_together(tiny, labelled):
    """The square is nearer and redder than what is around it, wherever a draw puts it."""
    trainee = start_trainee(read_bundle(tiny), "height", RECIPE)
    images, places = images_of(trainee, labelled), set()
    for seed in range(12):
        input_FCHW, truth = images.draw(["a00"], np.random.default_rng(seed))
        grid = trainee.grid(input_FCHW)
        red = input_FCHW[0, 0].view(grid.height, grid.patch, grid.width, grid.patch).mean((1, 3)).flatten()
        near = (truth[0].float() < 1).float().mean(1)
        assert torch.corrcoef(torch.stack([red, near]))[0, 1] > 0.9
        places.add(tuple(near.tolist()))
    assert len(places) == 2
    plain, _ = images.draw(["a00"], None)
    assert torch.equal(plain, images.draw(["a00"], None)[0])


def test_truth_of_another_size_is_named(tiny, labelled, tmp_path):
    root = Path(shutil.copytree(labelled.root, tmp_path / "data"))
    np.save(root / "height" / "a03.npy", np.ones((24, 64), np.float16))
    trainee = start_trainee(read_bundle(tiny), "height", RECIPE)
    with pytest.raises(UsageError, match=r"a03: expected truth of the input's size, \(48, 64\); found \(24, 64\)"):
        images_of(trainee, LabelledFolder(root, labelled.split)).draw(["a03"], None)


def test_a_recipe_is_numbers_alone():
    assert Recipe(**json.loads(json.dumps(asdict(RECIPE)))) == RECIPE
