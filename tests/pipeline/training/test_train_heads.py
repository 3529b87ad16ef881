"""Training on a tiny labelled folder: it learns, and a run that was cut off ends with the same weights."""

import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file

from deltascene.pipeline.bundle import choose_tasks, read_bundle
from deltascene.pipeline.engine import Engine
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.model import build_task_head, load_model
from deltascene.pipeline.training.data import open_labelled
from deltascene.pipeline.training.evaluate import evaluate
from deltascene.pipeline.training.train_heads import Recipe, load_samples, train

RECIPE = Recipe(epochs=4, batch_images=4, tokens=32, learning_rate=3e-3)


class Killed(Exception):  # noqa: N818
    """Stands for the end of the process in the middle of an epoch."""


class Dying(Recipe):
    def rate(self, step, steps):
        if step == steps // 2 + 1:
            raise Killed
        return super().rate(step, steps)


def fresh_heads(bundle):
    torch.manual_seed(1)
    backbone = load_model(bundle, ()).backbone
    return {task: build_task_head(bundle, backbone, task).train() for task in bundle.entry.tasks}


def test_it_learns_and_a_cut_run_ends_with_the_same_weights(tiny, labelled, tmp_path):
    bundle = read_bundle(tiny)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    samples = load_samples(bundle, choose_tasks(bundle, None), labelled, whole)
    heads = fresh_heads(bundle)
    train(bundle, heads, samples, whole, RECIPE)

    with pytest.raises(Killed):
        train(bundle, fresh_heads(bundle), samples, cut, Dying(**asdict(RECIPE)))
    again = fresh_heads(bundle)
    train(bundle, again, samples, cut, RECIPE)
    for task, head in heads.items():
        for name, value in head.state_dict().items():
            torch.testing.assert_close(again[task].state_dict()[name], value, rtol=0, atol=0)
    lines = (whole / "log.jsonl").read_text().splitlines()
    first, last = (json.loads(line)["loss"] for line in (lines[0], lines[-1]))
    assert all(last[task] < 0.8 * first[task] for task in ("parts", "height", "flow"))
    assert load_file(cut / "checkpoint.safetensors").keys() == load_file(whole / "checkpoint.safetensors").keys()


def test_evaluate_scores_every_task(tiny, labelled):
    numbers = evaluate(Engine.load(tiny), labelled, "test")
    assert set(numbers) == {"parts", "height", "flow", "hands"}
    assert 0 <= numbers["parts"]["miou"] <= 1
    assert numbers["height"]["rmse"] > 0


def test_missing_things_are_named(labelled, tmp_path):
    with pytest.raises(UsageError, match=r"split\.csv"):
        open_labelled(tmp_path)
    (tmp_path / "split.csv").write_text("name\nx\n")
    with pytest.raises(UsageError, match="expected columns stem and split; found \\['name'\\]"):
        open_labelled(tmp_path)
    with pytest.raises(UsageError, match="no truth a00"):
        labelled.truth("smell", "a00")
    with pytest.raises(UsageError, match="no image zz"):
        labelled.image("zz")
    with pytest.raises(UsageError, match="part 'val'; found \\['test', 'train'\\]"):
        labelled.stems("val")
