"""Learning rate, checkpoints and logs."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.training.loop import learning_rate, load_checkpoint, read_log, save_checkpoint, write_log

RECIPE, TRAINING = {"rank": 2, "seed": 0}, {"task": "height", "base": "abc"}


def parameters_and_optimiser(seed=0):
    torch.manual_seed(seed)
    parameters = {"a": nn.Parameter(torch.randn(3)), "unused": nn.Parameter(torch.randn(2, 2))}
    return parameters, torch.optim.AdamW([{"params": [value], "peak": 0.1} for value in parameters.values()])


def stepped(parameters, optimiser, count):
    for _ in range(count):
        optimiser.zero_grad()
        (parameters["a"] ** 2).sum().backward()
        optimiser.step()


def test_the_rate_warms_up_and_goes_down_to_nothing():
    rates = [learning_rate(2.0, step, 100) for step in range(101)]
    assert rates[5] == pytest.approx(1.0)
    assert rates[10] == max(rates) == pytest.approx(2.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0, abs=1e-12)


def test_a_checkpoint_goes_on_as_if_nothing_had_happened(tmp_path):
    path = tmp_path / "c.safetensors"
    parameters, optimiser = parameters_and_optimiser()
    assert load_checkpoint(path, parameters, optimiser, RECIPE, TRAINING) == 0
    stepped(parameters, optimiser, 3)
    save_checkpoint(path, parameters, optimiser, 3, RECIPE, TRAINING)
    stepped(parameters, optimiser, 3)

    others, other = parameters_and_optimiser(1)
    assert load_checkpoint(path, others, other, RECIPE, TRAINING) == 3
    assert other.param_groups[0]["peak"] == 0.1
    stepped(others, other, 3)
    assert torch.equal(others["a"], parameters["a"])
    assert torch.equal(others["unused"], parameters["unused"])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("recipe", "training", "said"),
    [
        ({"rank": 3, "seed": 0}, TRAINING, "recipe: rank: expected 3; found 2"),
        ({"rank": 2, "seed": 0, "batch": 1}, TRAINING, "recipe: batch: expected 1; found None"),
        (RECIPE, {"task": "flow", "base": "abc"}, "training: task: expected flow; found height"),
        (RECIPE, {"task": "height", "base": "abd"}, "training: base: expected abd; found abc"),
    ],
)
def test_a_checkpoint_of_another_recipe_or_training_is_not_gone_on_with(tmp_path, recipe, training, said):
    path = tmp_path / "c.safetensors"
    parameters, optimiser = parameters_and_optimiser()
    save_checkpoint(path, parameters, optimiser, 3, RECIPE, TRAINING)
    before = parameters["a"].clone()
    with pytest.raises(UsageError, match=rf"c\.safetensors: a checkpoint of another {said}; name another --out"):
        load_checkpoint(path, parameters, optimiser, recipe, training)
    assert torch.equal(parameters["a"], before)


def test_an_older_checkpoint_that_does_not_say_what_it_trains_is_gone_on_with(tmp_path):
    path = tmp_path / "c.safetensors"
    parameters, optimiser = parameters_and_optimiser()
    save_checkpoint(path, parameters, optimiser, 3, RECIPE, TRAINING)
    save_file(load_file(path), path, metadata={"position": "3", "recipe": '{"rank": 2, "seed": 0}'})
    assert load_checkpoint(path, parameters, optimiser, {**RECIPE, "auxiliary": []}, TRAINING) == 3
    with pytest.raises(UsageError, match=r"recipe: auxiliary: expected \['flow'\]; found None"):
        load_checkpoint(path, parameters, optimiser, {**RECIPE, "auxiliary": ["flow"]}, TRAINING)


def test_a_log_is_read_without_what_was_run_again_or_torn(tmp_path):
    for event in ({"step": 20, "loss": 3}, {"step": 20, "val": {"miou": 0.1}}, {"step": 40, "loss": 2}):
        write_log(tmp_path, event)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 60, "lo\n')
    write_log(tmp_path, {"step": 20, "loss": 4})
    assert read_log(tmp_path / "log.jsonl") == [
        {"step": 20, "loss": 4},
        {"step": 20, "val": {"miou": 0.1}},
        {"step": 40, "loss": 2},
    ]
