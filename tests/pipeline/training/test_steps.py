"""The steps from bundle to bundle: what they write and leave alone, and that a kill at any moment loses nothing."""

import builtins
import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors import safe_open

from deltascene.pipeline.bundles.bundle import read_folder
from deltascene.pipeline.bundles.check import check_model
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.errors import BundleError, UsageError
from deltascene.pipeline.training import fit as fit_module
from deltascene.pipeline.training.steps import train_step, work_folder

pytestmark = pytest.mark.usefixtures("one_thread")

SUBTASKS = ("height", "flow", "hands")


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def model(tiny, tmp_path) -> Path:
    """A copy of the tiny bundle that may be written to."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def tensors(path: Path) -> set[str]:
    with safe_open(path, framework="pt") as file:
        return set(file.keys())


def refusal(order) -> str:
    with pytest.raises(UsageError) as caught:
        train_step(order)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- what comes out


def test_images_are_those_that_were_seen(tiny, ordered):
    order = ordered("frozen", tiny, "out", "hands", steps=3, batch=2)
    assert train_step(order).entry.evidence["training"]["hands"]["images"] == 6


def test_a_new_base_with_untrained_sub_tasks(tiny_delta, ordered, written, labelled):
    before = written(Path(tiny_delta))
    order = ordered("base", tiny_delta, "out")
    bundle = train_step(order)
    assert bundle.folder == order.out
    assert set(written(order.out)) == set(before) - {"flow_delta.safetensors"}
    assert all(entry.delta is None for entry in bundle.entry.tasks.values())
    told = bundle.entry.evidence["training"]["base"]
    assert told["images"] == 16
    assert set(told["val"]) == {"miou", "pixel_accuracy"}
    assert sorted(path.name for path in work_folder(order).iterdir()) == ["log.jsonl", "recipe.json"]
    assert check_model(str(order.out)).supported
    assert (order.out / "base.safetensors").read_bytes() != before["base.safetensors"]
    result = Engine.load(str(order.out)).open_stream("s")(labelled.image("a18"))
    assert set(result.predictions) == {"parts", *SUBTASKS}
    assert written(Path(tiny_delta)) == before


def test_auxiliary_heads_are_trained_along_and_written(tiny, ordered, written):
    alone = train_step(ordered("base", tiny, "alone"))
    both = train_step(ordered("base", tiny, "both", auxiliary=("height",)))
    one, other = written(alone.folder), written(both.folder)
    assert {name for name in one if one[name] != other[name]} >= {"base.safetensors", "height.safetensors"}
    assert one["hands.safetensors"] == other["hands.safetensors"]  # untrained in both
    assert all(entry.delta is None for entry in both.entry.tasks.values())


def test_the_same_order_makes_the_same_bytes_untrained_heads_too(tiny, ordered, written):
    one, other = ordered("base", tiny, "one"), ordered("base", tiny, "other")
    train_step(one)
    np.random.seed(3)
    train_step(other)
    assert written(one.out) == written(other.out)


def test_of_the_old_evidence_a_new_base_keeps_the_licence(model, ordered):
    data = yaml.safe_load((model / "bundle.yaml").read_text())
    data["evidence"] = {"licence": "mine", "test": {"parts": {"miou": 0.9}}}
    (model / "bundle.yaml").write_text(yaml.safe_dump(data))
    evidence = train_step(ordered("base", model, "out", passes=1)).entry.evidence
    assert evidence.keys() == {"licence", "training"}


def test_a_single_task_network_is_a_bundle_of_its_own(tiny_delta, ordered, labelled):
    bundle = train_step(ordered("stl", tiny_delta, "out", "height"))
    assert bundle.entry.base == "height"
    assert list(bundle.entry.tasks) == ["height"]
    assert bundle.entry.tasks["height"].split is None
    assert {path.name for path in bundle.folder.glob("*.safetensors")} == {"base.safetensors", "height.safetensors"}
    assert tensors(bundle.folder / "height.safetensors") == {
        f"head.{name}" for name in ("norms.0.weight", "norms.0.bias", "norms.1.weight", "norms.1.bias")
    } | {"head.layers.0.weight", "head.layers.0.bias"}
    assert Engine.load(str(bundle.folder)).open_stream("s")(labelled.image("a18"))["height"].array.shape == (48, 64)


def test_a_sub_task_in_place_changes_its_own_files_alone(model, ordered, written, labelled):
    before, was = written(model), read_folder(model).entry
    bundle = train_step(ordered("subtask", model, "model", "height"))
    after, now = written(model), bundle.entry
    assert {name for name in after if after[name] != before.get(name)} == {"bundle.yaml", "height.safetensors"}
    assert after.keys() == before.keys()
    assert now.evidence.keys() == {"training"}
    trained = was.tasks["height"].model_copy(update={"delta": "height.safetensors"})
    assert now.model_copy(update={"evidence": {}}) == was.model_copy(update={"tasks": {**was.tasks, "height": trained}})
    assert any(name.startswith("delta.blocks.3.") for name in tensors(model / "height.safetensors"))
    image = labelled.image("a18")
    ours = Engine.load(str(model)).open_stream("s")(image)["height"].array
    without = train_step(ordered("frozen", model, "model", "height"))
    assert without.entry.tasks["height"].delta is None
    assert not any(name.startswith("delta.") for name in tensors(model / "height.safetensors"))
    assert not np.array_equal(Engine.load(str(model)).open_stream("s")(image)["height"].array, ours)


def test_a_sub_task_into_a_new_folder_brings_the_rest_along(tiny_delta, ordered, written):
    before = written(Path(tiny_delta))
    order = ordered("subtask", tiny_delta, "out", "height")
    train_step(order)
    after = written(order.out)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"bundle.yaml", "height.safetensors"}
    assert written(Path(tiny_delta)) == before
    assert read_folder(order.out).entry.tasks["flow"].delta == "flow_delta.safetensors"
    assert check_model(str(order.out)).supported


def test_what_was_trained_meanwhile_stays(tiny, ordered, written):
    """Two sub-tasks from the same model into one folder, one after the other."""
    train_step(ordered("subtask", tiny, "out", "height"))
    first = written(ordered("subtask", tiny, "out", "height").out)
    bundle = train_step(ordered("subtask", tiny, "out", "flow"))
    assert written(bundle.folder)["height.safetensors"] == first["height.safetensors"]
    assert bundle.entry.tasks["height"].delta == "height.safetensors"
    assert bundle.entry.evidence["training"].keys() == {"height", "flow"}


def test_evidence_may_hold_anything(model, ordered):
    data = yaml.safe_load((model / "bundle.yaml").read_text())
    (model / "bundle.yaml").write_text(yaml.safe_dump({**data, "evidence": {"training": "in May", "who": "me"}}))
    evidence = train_step(ordered("frozen", model, "model", "hands", steps=1)).entry.evidence
    assert evidence["who"] == "me"
    assert evidence["training"].keys() == {"hands"}


def test_another_split_moves_the_task(model, ordered):
    bundle = train_step(ordered("subtask", model, "model", "height", split=4))
    assert bundle.entry.tasks["height"].split == 4
    assert not any(name.startswith("delta.blocks.3.") for name in tensors(model / "height.safetensors"))


def test_gates_that_closed_are_left_out_and_the_evidence_says_what_is_open(model, ordered, labelled, monkeypatch):
    opened = train_step(ordered("subtask", model, "model", "height", gate_penalty=1e-9))
    assert opened.entry.evidence["training"]["height"]["open_blocks"] == [3, 4, 5]
    monkeypatch.setattr(fit_module, "GATE_RATE", 1.0)
    closed = train_step(ordered("subtask", model, "model", "height", gate_penalty=50.0, passes=2))
    assert closed.entry.evidence["training"]["height"]["open_blocks"] == []
    assert closed.entry.tasks["height"].delta is None
    assert not any(name.startswith("delta.") for name in tensors(model / "height.safetensors"))
    Engine.load(str(model)).open_stream("s")(labelled.image("a18"))


def test_activations_are_kept_for_every_task_and_split_at_once(model, ordered, tmp_path):
    folder, told = tmp_path / "kept", []
    train_step(ordered("subtask", model, "model", "height", activations=folder), told.append)
    assert sorted(path.name for path in folder.glob("*.npy")) == ["block_03.npy", "block_04.npy", "block_06.npy"]
    assert [event for event in told if "activations" in event] == [{"activations": 16, "of": 16}]
    for step, task in (("subtask", "flow"), ("frozen", "hands")):
        told.clear()
        train_step(ordered(step, model, "model", task, activations=folder), told.append)
        assert not [event for event in told if "activations" in event]


# ---- what is refused, before anything is written


@pytest.mark.parametrize("step", ["base", "stl"])
def test_a_new_backbone_is_never_written_over_a_bundle(model, ordered, written, step):
    before = written(model)
    said = refusal(ordered(step, model, "model"))
    assert said == f"{model}: expected a new folder; found a bundle; name another, or remove it"
    assert written(model) == before
    assert not (model / "training").exists()


def test_a_bundle_on_another_base_is_left_alone(model, tiny, ordered, written):
    (model / "base.safetensors").write_bytes((model / "base.safetensors").read_bytes() + b" ")
    before = written(model)
    said = refusal(ordered("subtask", tiny, "model", "height"))
    assert said.endswith(f"model: expected a bundle on the base of {tiny}; found one on another base")
    assert written(model) == before


def test_a_bundle_that_the_task_does_not_fit_is_left_alone(model, tiny, ordered, written):
    text = (model / "bundle.yaml").read_text()
    (model / "bundle.yaml").write_text(text.replace("size: [48, 64]", "size: [64, 64]"))
    assert refusal(ordered("subtask", tiny, "model", "height")).endswith("found another")
    without = text.replace("blocks: [3, 4]", "blocks: [3]").replace("split: 4, taps: [6]", "split: 3, taps: [6]")
    (model / "bundle.yaml").write_text(without)
    before = written(model)
    said = refusal(ordered("subtask", tiny, "model", "flow"))
    assert said == "bundle: tasks.flow.split: expected one of archive.blocks [3]; found 4"
    assert written(model) == before


@pytest.mark.parametrize(
    ("step", "options", "said"),
    [
        (
            "subtask",
            {"task": "hieght"},
            "expected one of parts, height, flow, hands; found 'hieght'; did you mean 'height'?",
        ),
        (
            "subtask",
            {"task": "parts"},
            "--task: expected a sub-task of tiny, height, flow, hands; found its base 'parts'",
        ),
        (
            "frozen",
            {"task": "parts"},
            "--task: expected a sub-task of tiny, height, flow, hands; found its base 'parts'",
        ),
        (
            "base",
            {"task": "height"},
            "--task: expected the base, parts; found 'height'; use `train subtask` for sub-tasks",
        ),
        (
            "subtask",
            {"task": "height", "split": 5},
            "tasks.height.split: expected one of archive.blocks [3, 4]; found 5",
        ),
        ("subtask", {"task": "hands", "split": 4}, "tasks.hands.taps: a head reads only at or after its split, 4"),
        ("base", {"auxiliary": ("depth",)}, "auxiliary: expected other tasks, height, flow, hands; found 'depth'"),
        (
            "subtask",
            {"task": "height", "device": "gpu"},
            "--device: expected cpu or a device of this torch; found 'gpu'",
        ),
    ],
)
def test_an_order_that_makes_no_sense_is_one_line(model, ordered, written, step, options, said):
    before = written(model)
    out = "out" if step == "base" else "model"
    assert said in refusal(ordered(step, model, out, **options))
    assert written(model) == before
    assert sorted(path.name for path in model.parent.iterdir()) == ["model"]


def test_a_model_that_is_not_there_is_named(ordered):
    with pytest.raises(BundleError, match="no packaged model or folder 'nowhere'"):
        train_step(ordered("subtask", "nowhere", "out", "height"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: (root / "split.csv").unlink(), "expected a data folder with split.csv; found none"),
        (lambda root: (root / "images" / "a13.png").unlink(), r"images: no image a13\.png"),
        (lambda root: (root / "height" / "a17.npy").unlink(), r"height: no truth a17\.npy or \.png"),
        (
            lambda root: np.save(root / "height" / "a00.npy", np.ones((48, 64, 2))),
            r"height/a00: expected scalar of shape",
        ),
        (
            lambda root: np.save(root / "height" / "a16.npy", np.ones((9, 9))),
            r"height/a16: expected truth of the input's",
        ),
    ],
)
def test_data_that_does_not_fit_is_said_before_the_first_step(
    model, labelled, ordered, written, tmp_path, damage, said
):
    root, before = Path(shutil.copytree(labelled.root, tmp_path / "data")), written(model)
    damage(root)
    assert re.search(said, refusal(ordered("subtask", model, "model", "height", data=root)))
    assert written(model) == before
    assert not (model / "training").exists()


# ---- killed at any moment


@pytest.fixture
def killed_before(tmp_path):
    """`with killed_before(number)`: the process ends at the so-many-th change of a file, torn if it was open."""

    @contextmanager
    def kill(number: int) -> Iterator[None]:
        left = [number]

        def is_last(path: object) -> bool:
            left[0] -= str(path).startswith(str(tmp_path))
            return left[0] == 0

        def dying(original):
            def change(path, *args, **options):
                if is_last(path):
                    raise Killed
                return original(path, *args, **options)

            return change

        def opening(original):
            def open_(path, mode="r", *args, **options):
                if isinstance(path, str | Path) and set(mode) & set("wa+x") and is_last(path):
                    if "+" not in mode:
                        with original(path, mode.replace("b", "")) as file:
                            file.write("to")
                    raise Killed
                return original(path, mode, *args, **options)

            return open_

        with pytest.MonkeyPatch.context() as patch:
            for owner, name in ((os, "replace"), (os, "unlink"), (os, "mkdir")):
                patch.setattr(owner, name, dying(getattr(owner, name)))
            patch.setattr(io, "open", opening(io.open))
            patch.setattr(builtins, "open", opening(builtins.open))
            yield

    return kill


@pytest.mark.parametrize(
    ("step", "task", "numbers", "is_kept", "every"),
    [
        ("base", None, {"steps": 1}, False, 5),
        ("subtask", "height", {"steps": 1}, True, 4),
        ("subtask", "flow", {"steps": 1, "gate_penalty": 0.01}, False, 3),
        ("frozen", "hands", {"steps": 1}, False, 3),
    ],
    ids=["base", "subtask, kept", "subtask, gates", "frozen"],
)
def test_a_kill_at_any_moment_loses_nothing(
    tiny, ordered, written, killed_before, tmp_path, step, task, numbers, is_kept, every
):
    """Killed, called again, and the bundle is what an undisturbed call writes: every file, byte for byte."""

    def order_in(name):
        kept = tmp_path / f"{name}_kept" if is_kept else None
        return ordered(step, tiny, name, task, activations=kept, **numbers)

    if step != "base":  # in place
        shutil.copytree(tiny, tmp_path / "whole")
    train_step(replace(order_in("whole"), model=tiny if step == "base" else str(tmp_path / "whole")))
    expected = written(tmp_path / "whole")
    number, died = 1, 0
    while True:
        name = f"cut{number}"
        if step != "base":
            shutil.copytree(tiny, tmp_path / name)
        order = replace(order_in(name), model=tiny if step == "base" else str(tmp_path / name))
        try:
            with killed_before(number):
                train_step(order)
            break
        except Killed:
            died += 1
        if step != "base":
            read_folder(order.out)
        train_step(order)
        found = written(order.out)
        assert {file for file in found if not file.endswith(".part")} == set(expected), f"killed before change {number}"
        for file, data in expected.items():
            assert found[file] == data, f"{file}, killed before change {number}"
        assert not (work_folder(order) / "checkpoint.safetensors").exists()
        number += every
    assert died >= 4
    assert written(order.out) == expected


def test_another_recipe_does_not_pass_for_a_finished_one(tiny, ordered, written, monkeypatch):
    """Cut after its last file but before its checkpoint was removed: finished for the same recipe alone."""
    order = ordered("base", tiny, "out", steps=1)
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
    train_step(order)
    monkeypatch.undo()
    before = written(order.out)
    assert (work_folder(order) / "checkpoint.safetensors").is_file()
    assert "another recipe: seed: expected 1; found 0" in refusal(ordered("base", tiny, "out", steps=1, seed=1))
    train_step(order)
    assert written(order.out) == before
    assert not (work_folder(order) / "checkpoint.safetensors").exists()
    assert refusal(order).endswith("found a bundle; name another, or remove it")
