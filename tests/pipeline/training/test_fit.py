"""The loop of every step: it learns, a cut run ends with the same weights, and nobody goes on with another's."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import is_zero

from deltascene.pipeline.bundles.bundle import read_bundle, read_folder
from deltascene.pipeline.bundles.scene_model import load_model
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.training import fit as fit_module
from deltascene.pipeline.training.activations import keep_activations
from deltascene.pipeline.training.data import open_labelled
from deltascene.pipeline.training.fit import fit, score
from deltascene.pipeline.training.loop import read_log
from deltascene.pipeline.training.recipe import Recipe
from deltascene.pipeline.training.samples import Samples
from deltascene.pipeline.training.student import start_frozen, start_network, start_subtask

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = Recipe(rank=2, passes=2, batch=4, learning_rate=5e-3, head_learning_rate=5e-3, checkpoint_s=0, judged=2)


class Killed(BaseException):
    """Stands for the end of the process."""


@dataclass(frozen=True)
class Flavour:
    start: object
    task: str
    numbers: dict
    is_kept: bool = False


FLAVOURS = {
    "base": Flavour(start_network, "parts", {"keep_tokens": 0.5, "layer_decay": 0.75, "learning_rate": 1e-3}),
    "base, auxiliary": Flavour(
        start_network, "parts", {"keep_tokens": 0.5, "learning_rate": 1e-3, "auxiliary": ("height", "hands")}
    ),
    "subtask": Flavour(start_subtask, "height", {"keep_tokens": 0.5}),
    "subtask, gates": Flavour(start_subtask, "flow", {"gate_penalty": 0.01, "variants": 2, "passes": 1}),
    "subtask, gates, kept": Flavour(start_subtask, "flow", {"gate_penalty": 0.01, "keep_tokens": 0.5}, is_kept=True),
    "frozen": Flavour(start_frozen, "hands", {"keep_tokens": 0.5}),
}


@pytest.fixture(scope="module")
def bundle(tiny):
    return read_bundle(tiny)


@pytest.fixture
def trained(labelled, tmp_path):
    """`trained(bundle, start, task, "work", recipe)`: a student after its training."""

    def train(bundle, start, task, work, recipe=RECIPE, *, is_kept=False, data=labelled, **options):
        student = start(bundle, task, recipe)
        samples = Samples.of(bundle, data, "train", recipe, 16)
        judged = Samples.of(bundle, data, "val", recipe, 16)
        kept = keep_activations(samples, student.backbone, student.points, tmp_path / "kept") if is_kept else None
        fit(student, samples, judged, tmp_path / work, recipe, activations=kept, **options)
        return student

    return train


def state(student):
    return {name: value.detach().numpy().tobytes() for name, value in student.parameters().items()}


@pytest.mark.parametrize("name", FLAVOURS)
def test_a_cut_run_ends_with_the_same_weights(bundle, trained, tmp_path, monkeypatch, name):
    """Cut in the first, a middle and the last step; with a checkpoint at every step, and with none before the end."""
    flavour = FLAVOURS[name]
    recipe = RECIPE.model_copy(update=flavour.numbers)
    train = (bundle, flavour.start, flavour.task)
    whole = state(trained(*train, "whole", recipe, is_kept=flavour.is_kept))
    steps = read_log(tmp_path / "whole" / "log.jsonl")[-1]["of"]
    original = fit_module.learning_rate

    def cut_in(step_to_die, work, checkpoint_s):
        def dying(peak, step, steps):
            if step == step_to_die:
                raise Killed
            return original(peak, step, steps)

        monkeypatch.setattr(fit_module, "learning_rate", dying)
        with pytest.raises(Killed):
            trained(*train, work, recipe.model_copy(update={"checkpoint_s": checkpoint_s}), is_kept=flavour.is_kept)
        monkeypatch.setattr(fit_module, "learning_rate", original)

    for step in (1, steps // 2, steps):  # one run, cut three times
        cut_in(step, "cut", 0)
    assert state(trained(*train, "cut", recipe, is_kept=flavour.is_kept)) == whole
    assert [e["step"] for e in read_log(tmp_path / "cut" / "log.jsonl")] == [
        e["step"] for e in read_log(tmp_path / "whole" / "log.jsonl")
    ]
    assert state(trained(*train, "cut", recipe, is_kept=flavour.is_kept)) == whole, "finished: only loads"
    if not flavour.is_kept:
        cut_in(steps - 1, "late", 1000)
        assert state(trained(*train, "late", recipe)) == whole


def test_it_learns_on_a_base_that_stays_as_it_is(bundle, trained, tmp_path):
    base = load_model(bundle, ()).backbone.state_dict()
    told: list[dict] = []
    student = trained(
        bundle, start_subtask, "height", "work", RECIPE.model_copy(update={"passes": 10}), on_event=told.append
    )
    events = read_log(tmp_path / "work" / "log.jsonl")
    assert events == told
    losses = [event["loss"] for event in events if "loss" in event]
    assert [event["step"] for event in events if "loss" in event] == [20, 40]
    assert losses[-1] < 0.6 * losses[0]
    scores = [event for event in events if "val" in event]
    assert [event["step"] for event in scores] == [20, 40]
    assert set(scores[0]["val"]) == {"rmse", "abs_rel", "delta1"}
    assert not is_zero(student.delta())
    for name, value in student.backbone.state_dict().items():
        assert torch.equal(value, base[name]), name


@pytest.mark.parametrize("task", ["parts", "height", "flow", "hands"])
def test_every_kind_is_trained(tiny, trained, tmp_path, task):
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    if task == "parts":  # make it a sub-task
        text = (folder / "bundle.yaml").read_text()
        text = text.replace("base: parts", "base: hands").replace("[left, right], split: 3,", "[left, right],")
        (folder / "bundle.yaml").write_text(text.replace("[sky, road, car],", "[sky, road, car], split: 3,"))
    recipe = RECIPE.model_copy(update={"passes": 1})
    student = trained(read_folder(folder), start_subtask, task, "work", recipe)
    loss, scores = read_log(tmp_path / "work" / "log.jsonl")[-2:]
    assert np.isfinite(loss["loss"])
    assert all(np.isfinite(value) for value in scores["val"].values())
    assert not is_zero(student.delta())


@pytest.mark.parametrize(("start", "task"), [(start_subtask, "height"), (start_frozen, "hands")])
def test_kept_activations_give_nearly_the_same_training(bundle, trained, tmp_path, start, task):
    recipe = RECIPE.model_copy(update={"keep_tokens": 0.5, "variants": 2})
    computed = trained(bundle, start, task, "computed", recipe)
    kept = trained(bundle, start, task, "kept_too", recipe, is_kept=True)
    for name, value in computed.parameters().items():
        torch.testing.assert_close(kept.parameters()[name], value, rtol=0.05, atol=0.01)
    one, other = (read_log(tmp_path / work / "log.jsonl")[-2]["loss"] for work in ("computed", "kept_too"))
    assert one == pytest.approx(other, rel=0.01)


def test_a_large_penalty_closes_all_gates_and_a_small_one_none(bundle, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_module, "GATE_RATE", 0.5)
    numbers = {"passes": 4, "keep_tokens": 0.5}
    closed = trained(
        bundle, start_subtask, "flow", "closed", RECIPE.model_copy(update={**numbers, "gate_penalty": 10.0})
    )
    opened = trained(
        bundle, start_subtask, "flow", "opened", RECIPE.model_copy(update={**numbers, "gate_penalty": 1e-9})
    )
    assert closed.delta().tensors == {}
    assert set(opened.delta().tensors) == set(opened.gates.names)
    assert read_log(tmp_path / "closed" / "log.jsonl")[-2]["open"] == 0
    assert read_log(tmp_path / "opened" / "log.jsonl")[-2]["open"] == 1


def test_a_checkpoint_of_another_recipe_is_not_gone_on_with(bundle, trained, tmp_path):
    trained(bundle, start_subtask, "height", "work", RECIPE.model_copy(update={"passes": 1}))
    log, recipe = ((tmp_path / "work" / name).read_bytes() for name in ("log.jsonl", "recipe.json"))
    with pytest.raises(UsageError, match=r"a checkpoint of another recipe: passes: expected 2; found 1"):
        trained(bundle, start_subtask, "height", "work")
    assert (tmp_path / "work" / "log.jsonl").read_bytes() == log
    assert (tmp_path / "work" / "recipe.json").read_bytes() == recipe
    often = RECIPE.model_copy(update={"passes": 1, "judgements": 1, "checkpoint_s": 3.0})
    trained(bundle, start_subtask, "height", "work", often)  # what belongs to the run alone may change


def test_a_checkpoint_of_another_training_is_not_gone_on_with(tiny, bundle, trained, labelled, tmp_path):
    """The same numbers, but another split, another way, another base, or other pictures."""
    recipe = RECIPE.model_copy(update={"passes": 1})
    trained(bundle, start_subtask, "height", "work", recipe)
    folder = Path(shutil.copytree(tiny, tmp_path / "later"))
    yaml = (folder / "bundle.yaml").read_text()
    (folder / "bundle.yaml").write_text(yaml.replace("log: true, split: 3,", "log: true, split: 4,"))
    with pytest.raises(UsageError, match="another training: from block: expected 4; found 3"):
        trained(read_folder(folder), start_subtask, "height", "work", recipe)
    with pytest.raises(UsageError, match="another training: from block: expected 6; found 3"):
        trained(bundle, start_frozen, "height", "work", recipe)
    data = Path(shutil.copytree(labelled.root, tmp_path / "data"))
    shutil.copyfile(data / "images" / "a20.png", data / "images" / "a00.png")
    if (data / "images" / "a00.png").stat().st_size == (labelled.root / "images" / "a00.png").stat().st_size:
        (data / "images" / "a00.png").write_bytes((data / "images" / "a00.png").read_bytes() + b"\0")
    with pytest.raises(UsageError, match="another training: pictures: expected"):
        trained(bundle, start_subtask, "height", "work", recipe, data=open_labelled(data))


def test_what_is_judged_may_be_missing(bundle, labelled, samples_of, trained, tmp_path):
    student = start_subtask(bundle, "height", RECIPE)
    assert set(score(student, samples_of(bundle, "test"), 3)) == {"rmse", "abs_rel", "delta1"}
    fit(student, samples_of(bundle), None, tmp_path / "work", RECIPE.model_copy(update={"passes": 1}))
    trained(bundle, start_subtask, "height", "unjudged", RECIPE.model_copy(update={"passes": 1, "judged": 0}))
    for work in ("work", "unjudged"):
        assert [sorted(event) for event in read_log(tmp_path / work / "log.jsonl")] == [
            ["loss", "of", "step", "step_s"]
        ]


def test_the_log_of_an_earlier_training_is_not_mixed_into_that_of_a_new_one(bundle, trained, tmp_path):
    trained(bundle, start_frozen, "hands", "work", RECIPE.model_copy(update={"passes": 2}))
    (tmp_path / "work" / "checkpoint.safetensors").unlink()  # it was finished
    trained(bundle, start_frozen, "hands", "work", RECIPE.model_copy(update={"passes": 1}))
    assert {event["of"] for event in read_log(tmp_path / "work" / "log.jsonl")} == {4}


def test_early_layers_learn_more_slowly_and_norms_are_not_drawn_to_zero(bundle):
    recipe = RECIPE.model_copy(update={"layer_decay": 0.5, "weight_decay": 0.1})
    student = start_network(bundle, "parts", recipe)
    parameters = student.parameters()
    found = dict(zip(parameters, fit_module._groups(student, parameters, recipe), strict=True))
    rates = {name: group["peak"] / recipe.learning_rate for name, group in found.items()}
    assert rates["blocks.5.attn.qkv.weight"] == 1
    assert rates["blocks.0.attn.qkv.weight"] == pytest.approx(0.5**5)
    assert rates["cls_token"] == rates["pos_embed"] == rates["patch_embed.proj.weight"] == pytest.approx(0.5**6)
    assert found["head.layers.0.weight"]["peak"] == recipe.head_learning_rate
    decays = {name: group["weight_decay"] for name, group in found.items()}
    assert decays["blocks.0.attn.qkv.weight"] == 0.1
    assert decays["blocks.0.norm1.weight"] == decays["blocks.0.attn.qkv.bias"] == decays["pos_embed"] == 0
    gated = start_subtask(bundle, "flow", RECIPE.model_copy(update={"gate_penalty": 0.1}))
    groups = dict(zip(gated.parameters(), fit_module._groups(gated, gated.parameters(), RECIPE), strict=True))
    assert (groups["gates"]["peak"], groups["gates"]["weight_decay"]) == (fit_module.GATE_RATE, 0)
