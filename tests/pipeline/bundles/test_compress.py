"""`deltascene compress`: fine-tuned networks come back as sub-tasks, and what doesn't fit is told in one line."""

import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from deltascene import open_run
from deltascene.pipeline.bundles.bundle import read_folder
from deltascene.pipeline.bundles.check import check_model
from deltascene.pipeline.bundles.compress import CompressRequest, compress
from deltascene.pipeline.bundles.compress_inputs import load_backbone
from deltascene.pipeline.bundles.scene_model import load_model
from deltascene.pipeline.bundles.weight_files import read_weights
from deltascene.pipeline.commands.compress import warnings
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.evaluation.compress_drift import measure_drift
from deltascene.pipeline.sources.find import find_sources
from deltascene.stages.backbone import create_backbone
from deltascene.stages.delta import DeltaWeights, LowRank, start_delta

pytestmark = pytest.mark.usefixtures("one_thread")

DROP = object()
QKV = "blocks.4.attn.qkv.weight"
IMAGE = np.random.default_rng(0).integers(0, 256, (72, 96, 3), np.uint8)


def known_delta(split: int, rank: int, seed: int) -> DeltaWeights:
    """A change of every tensor from a split on, of known rank, large enough to change every answer."""
    generator = torch.Generator().manual_seed(seed)
    start = start_delta(create_backbone("test_vit", {"img_size": 64}).blocks, split, rank, generator)
    flat = start.to_tensors().items()
    return DeltaWeights.from_tensors({name: 0.2 * torch.randn(x.shape, generator=generator) for name, x in flat})


def tuned_tensors(bundle: str, split: int, rank: int = 2, seed: int = 1) -> dict[str, torch.Tensor]:
    """The bundle's backbone, fine-tuned: a known change from a split on."""
    tensors = load_file(Path(bundle) / "base.safetensors")
    for name, delta in known_delta(split, rank, seed).tensors.items():
        tensors[name] = tensors[name] + (delta.product() if isinstance(delta, LowRank) else delta)
    return tensors


def new_head(bundle: str, task: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    own = read_weights(Path(bundle) / f"{task}.safetensors")
    return {name: 0.3 * torch.randn(x.shape, generator=generator) for name, x in own.items()}


@pytest.fixture(scope="module")
def flow(tiny, tmp_path_factory):
    """A fine-tuned network for flow, its head with it, as one file."""
    path = tmp_path_factory.mktemp("tuned") / "flow_tuned.safetensors"
    save_file(tuned_tensors(tiny, 4) | new_head(tiny, "flow"), path)
    return path


@pytest.fixture(scope="module")
def alone(tiny, tmp_path_factory):
    """A single-task bundle for hands, as `deltascene train stl` writes it: the task is its base."""
    folder = tmp_path_factory.mktemp("tuned") / "hands_alone"
    folder.mkdir()
    entry = yaml.safe_load((Path(tiny) / "bundle.yaml").read_text())
    hands = {key: value for key, value in entry["tasks"]["hands"].items() if key != "split"}
    entry |= {"name": "tiny", "base": "hands", "tasks": {"hands": hands}}
    (folder / "bundle.yaml").write_text(yaml.safe_dump(entry, sort_keys=False))
    half = {name: tensor.half() for name, tensor in tuned_tensors(tiny, 3, seed=2).items()}
    save_file(half, folder / "base.safetensors")
    save_file({name: x.half() for name, x in new_head(tiny, "hands").items()}, folder / "hands.safetensors")
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "compressed"


def made(tiny, out, *tasks, **options):
    return compress(CompressRequest(tiny, tasks, out, **options))


def refusal(tiny, out, *tasks, **options) -> str:
    with pytest.raises(UsageError) as caught:
        made(tiny, out, *tasks, **options)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    return str(caught.value)


def answer(folder, task):
    engine = Engine.load(str(folder), tasks=[task], overrides=["numerics.dtype=float32"])
    return engine.open_stream("s")(IMAGE)[task].array


def full_network(tiny, task, backbone, head, folder):
    """The fine-tuned network itself, as a bundle whose backbone it is."""
    shutil.copytree(tiny, folder)
    for path, there in ((backbone, "base"), (head, task)):
        is_head = there == task
        found = {name: x for name, x in load_file(path).items() if name.startswith("head.") == is_head}
        save_file(found, folder / f"{there}.safetensors")
    return folder


def changed(path, to, change):
    """A copy of a safetensors file with its tensors changed."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, to)
    return to


def test_fine_tuned_networks_come_back_as_sub_tasks(tiny, flow, alone, out, tmp_path):
    """A file with a head and a single-task bundle, each with its own change of rank 2, in one call."""
    result = made(tiny, out, f"flow={flow}", f"hands={alone}", rank=2)
    assert sorted(path.name for path in out.iterdir()) == [
        "base.safetensors",
        "bundle.yaml",
        "flow.safetensors",
        "hands.safetensors",
        "height.safetensors",
        "parts.safetensors",
    ]
    for task, backbone, head in (
        ("flow", flow, flow),
        ("hands", alone / "base.safetensors", alone / "hands.safetensors"),
    ):
        full = full_network(tiny, task, backbone, head, tmp_path / f"full_{task}")
        expected, found = answer(full, task), answer(out, task)
        atol = 2e-3 if task == "hands" else 1e-4  # that checkpoint is float16, and its rounding has full rank
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol * np.abs(expected).max())
        assert np.abs(found - answer(tiny, task)).max() > 0.1 * np.abs(expected).max()
    for task in ("parts", "height"):
        assert np.array_equal(answer(out, task), answer(tiny, task))
    assert (out / "base.safetensors").read_bytes() == (Path(tiny) / "base.safetensors").read_bytes()
    assert check_model(str(out)).supported
    ranks = {fit.rank for fit in result.tasks["flow"].fits}
    assert ranks == {2, None}


def test_the_description_says_how_it_was_made(tiny, flow, out):
    made(tiny, out, f"flow={flow}", rank=1)
    entry, before = (yaml.safe_load((Path(each) / "bundle.yaml").read_text()) for each in (out, tiny))
    assert "name" not in entry  # else there were two bundles of one name
    assert entry["tasks"]["flow"] == before["tasks"]["flow"] | {"delta": "flow.safetensors"}
    evidence = entry["evidence"]
    assert evidence["summary"] == "flow: separately fine-tuned networks as deltas of rank 1; not scored since"
    assert evidence["made_from"] == {"name": "tiny"}
    told = evidence["compress"]["tasks"]["flow"]
    assert evidence["compress"]["cut"] == "rank 1"
    assert (told["checkpoint"], told["head"], told["split"]) == ("flow_tuned.safetensors", "the checkpoint's", 4)
    assert 0.3 < told["relative_error"] < 0.8
    assert told["change_below_split"] == 0
    low_rank = (192 + 64) + (64 + 64) + (192 + 64) + (64 + 192)
    assert told["parameters"] == 2 * (low_rank + 4 * 64 + 192 + 64 + 192 + 64) == 3328


def test_evidence_goes_along_but_not_as_its_own(tiny, flow, out, tmp_path):
    source = Path(shutil.copytree(tiny, tmp_path / "source"))
    told = {"summary": "the best", "licence": "MIT", "test": {"flow": 1.5}, "single_task": {"flow": {"mean_deg": 3.0}}}
    with (source / "bundle.yaml").open("a") as file:
        file.write(f"evidence: {json.dumps(told)}\n")
    evidence = made(str(source), out, f"flow={flow}").bundle.entry.evidence
    assert evidence["summary"].startswith("flow: separately fine-tuned")
    assert evidence["licence"] == "MIT (of tiny; the checkpoints' own isn't known here)"
    assert evidence["single_task"] == told["single_task"]
    assert evidence["made_from"]["evidence"] == {"summary": "the best", "test": {"flow": 1.5}}


def test_a_delta_beside_its_head_is_replaced(tiny_delta, tmp_path, out):
    """The packaged form: head and delta of height in one file; a checkpoint without a head keeps the head alone."""
    path = tmp_path / "height.safetensors"
    save_file(tuned_tensors(tiny_delta, 3), path)
    result = made(tiny_delta, out, f"height={path}", rank=2)
    before, after = (load_file(Path(each) / "height.safetensors") for each in (tiny_delta, out))
    heads = {name for name in before if name.startswith("head.")}
    assert {name for name in after if name.startswith("head.")} == heads
    assert all(torch.equal(after[name], before[name].float()) for name in heads)
    full = full_network(tiny_delta, "height", path, Path(tiny_delta) / "height.safetensors", tmp_path / "full")
    description = (full / "bundle.yaml").read_text()
    (full / "bundle.yaml").write_text(description.replace("delta: height.safetensors, ", ""))
    np.testing.assert_allclose(answer(out, "height"), answer(full, "height"), rtol=1e-4)
    kept = "height: height.safetensors has no head of this task, so the bundle's own head stays"
    assert list(warnings(result)) == [kept]
    assert np.array_equal(answer(out, "flow"), answer(tiny_delta, "flow"))


def test_a_classifier_is_no_head(tiny, flow, tmp_path, out):
    def classify(tensors):
        for name in [name for name in tensors if name.startswith("head.")]:
            del tensors[name]
        tensors.update({"head.weight": torch.zeros(5, 64), "head.bias": torch.zeros(5)})

    path = changed(flow, tmp_path / "classifier.safetensors", classify)
    result = made(tiny, out, f"flow={path}", base=path, rank=2)
    assert not result.tasks["flow"].checkpoint.own_head
    assert set(load_file(out / "base.safetensors")) == set(load_file(Path(tiny) / "base.safetensors"))
    assert load_model(read_folder(out), ["flow"]).sub_tasks == {}


def test_a_network_that_is_the_base_gets_no_delta(tiny, tmp_path, out):
    result = made(tiny, out, f"flow={Path(tiny) / 'base.safetensors'}")
    assert result.bundle.entry.tasks["flow"].delta is None
    assert np.array_equal(answer(out, "flow"), answer(tiny, "flow"))
    assert "flow: from its split on, base.safetensors is the base: the sub-task has a head and no delta" in list(
        warnings(result)
    )


def test_another_base_is_the_one_that_differences_are_taken_from(tiny, flow, tmp_path, out):
    """The base itself was fine-tuned: the same change below the split and above it, then flow's on top."""
    path = tmp_path / "new_base.safetensors"
    save_file(tuned_tensors(tiny, 0, seed=5), path)
    ours = tmp_path / "ours.safetensors"
    both = tuned_tensors(tiny, 0, seed=5)
    for name, delta in known_delta(4, 2, 1).tensors.items():
        both[name] = both[name] + (delta.product() if isinstance(delta, LowRank) else delta)
    save_file(both | new_head(tiny, "flow"), ours)
    result = made(tiny, out, f"flow={ours}", base=path, rank=2)
    full = full_network(tiny, "flow", ours, ours, tmp_path / "full")
    np.testing.assert_allclose(answer(out, "flow"), answer(full, "flow"), rtol=0, atol=1e-4)
    assert list(warnings(result)) == ["parts, height, hands: made for the bundle's own base, not for that of --base"]
    assert result.bundle.entry.evidence["compress"]["base"] == "new_base.safetensors"


def test_what_lies_below_the_split_is_told(tiny, tmp_path, out):
    """All of what separates block 3 from the base is lost for a task that starts at block 4."""
    path = tmp_path / "deep.safetensors"
    save_file(tuned_tensors(tiny, 3) | new_head(tiny, "flow"), path)
    (line,) = warnings(made(tiny, out, f"flow={path}", rank=2))
    assert re.fullmatch(
        r"flow: below its split, 4, deep\.safetensors differs from the base by [\d.]+ % \(relative Frobenius norm; "
        r"most in blocks\.3\.\S+, [\d.]+ %\): the sub-task lacks that",
        line,
    )
    lower = made(tiny, tmp_path / "lower", f"flow={path}", rank=2, split=3)
    assert list(warnings(lower)) == []
    assert lower.bundle.entry.tasks["flow"].split == 3
    full = full_network(tiny, "flow", path, path, tmp_path / "full")
    np.testing.assert_allclose(answer(tmp_path / "lower", "flow"), answer(full, "flow"), rtol=0, atol=1e-4)


def test_a_file_name_that_another_task_has_is_left_to_it(tiny, flow, tmp_path, out):
    """Hands keeps its head in the file that flow's would be."""
    source = Path(shutil.copytree(tiny, tmp_path / "source"))
    shutil.move(source / "flow.safetensors", source / "other.safetensors")
    shutil.move(source / "hands.safetensors", source / "flow.safetensors")
    text = (source / "bundle.yaml").read_text()
    text = text.replace(
        "head: linear, head_args: {side: 2}", "weights: other.safetensors, head: linear, head_args: {side: 2}"
    )
    (source / "bundle.yaml").write_text(
        text.replace("split: 3, taps: [3, 6]", "weights: flow.safetensors, split: 3, taps: [3, 6]")
    )
    entry = made(str(source), out, f"flow={flow}", rank=2).bundle.entry
    assert (entry.tasks["flow"].weights, entry.tasks["flow"].delta) == ("flow_.safetensors",) * 2
    assert (out / "flow.safetensors").read_bytes() == (source / "flow.safetensors").read_bytes()
    assert np.array_equal(answer(out, "hands"), answer(tiny, "hands"))


def test_energy_chooses_a_rank_for_each_weight(tiny, flow, out):
    """Changes of rank 2: almost all of their energy is in two directions, and more than a half in one."""
    made(tiny, out, f"flow={flow}", energy=0.9999)
    ranks = {delta.rank for delta in deltas(out).values() if isinstance(delta, LowRank)}
    assert ranks == {2}
    fewer = out.with_name("fewer")
    assert made(tiny, fewer, f"flow={flow}", energy=0.5).bundle.entry.evidence["compress"]["cut"] == "energy 0.5"
    assert {delta.rank for delta in deltas(fewer).values() if isinstance(delta, LowRank)} == {1}


def deltas(folder):
    flat = {name.removeprefix("delta."): x for name, x in load_file(folder / "flow.safetensors").items()}
    return DeltaWeights.from_tensors({n: x for n, x in flat.items() if not n.startswith("head.")}).tensors


def test_drift_is_nothing_where_nothing_was_cut_and_grows_with_the_cut(tiny, flow, make_clip, tmp_path):
    clip, found = find_sources([str(make_clip(4))])[0], {}
    for rank in (1, 2):
        bundle = made(tiny, tmp_path / str(rank), f"flow={flow}", rank=rank).bundle
        found[rank] = measure_drift(bundle, "flow", load_backbone(bundle, flow), clip, 3)
    assert len(found[2].compressed) == len(found[2].without) == 3
    assert found[2].unit == "degrees"
    assert found[2].mean < 0.1 < found[1].mean < min(found[1].without)
    assert found[1].p95 <= max(found[1].compressed)


def test_the_command_end_to_end(run_cli, tiny, flow, alone, make_clip, out, tmp_path):
    clip = make_clip(6)
    tasks = ("--task", f"flow={flow}", "--task", f"hands={alone}")
    code, text, error = run_cli("compress", tiny, *tasks, "-o", out, "--rank", 2, "--clip", clip, "--frames", 3)
    assert (code, error) == (0, "")
    lines = [line.split() for line in text.splitlines()]
    assert ["blocks.4.attn.qkv.weight", "2", "<", "0.1", "%"] in [line[:5] for line in lines]
    assert ["blocks.4.norm1.bias", "dense", "0", "%"] in [line[:4] for line in lines]
    assert "Drift from the fine-tuned networks on clip, 3 frames" in text
    (row,) = [line for line in lines if line[:1] == ["flow"] and line[-1] == "degrees"]
    assert float(row[1]) < 0.1 < float(row[4])
    assert f"{out}: flow, hands at rank 2" in text
    assert run_cli("models", "check", out)[0] == 0
    assert run_cli("run", clip, "-o", tmp_path / "run", "--model", out, "--tasks", "flow", "--save", "arrays")[0] == 0
    assert open_run(tmp_path / "run")["clip"].frame(2)["flow"].shape == (48, 64, 3)


def refused_by_command(run_cli, out, *arguments):
    code, text, error = run_cli("compress", *arguments, "-o", out)
    assert (code, text) == (2, "")
    assert error.count("\n") == 1
    assert not out.exists()
    return error


def test_refusals_reach_the_screen_as_one_line(run_cli, tiny, flow, out):
    line = refused_by_command(run_cli, out, tiny, "--task", f"flow={flow}", "--rank", 0)
    assert line == "deltascene: --rank: expected 1 or more; found 0\n"


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ("flow", "--task: expected NAME=CHECKPOINT; found 'flow'"),
        ("flow=", "--task: expected NAME=CHECKPOINT; found 'flow='"),
        ("parts=x", "--task: expected a sub-task of tiny, height, flow, hands; found its base 'parts', whose weights"),
        ("flwo=x", "--task: expected a sub-task of tiny, height, flow, hands; found 'flwo'; did you mean 'flow'?"),
        ("flow=nowhere.safetensors", "--task flow: expected nowhere.safetensors; found no such file or folder"),
    ],
)
def test_tasks_that_make_no_sense(tiny, out, task, line):
    assert refusal(tiny, out, task).startswith(line)


def test_each_task_once_and_at_least_one(tiny, flow, out):
    assert refusal(tiny, out, f"flow={flow}", "flow=x") == "--task: expected each name once; found 'flow' twice"
    assert refusal(tiny, out) == "--task: expected at least one NAME=CHECKPOINT; found none"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"rank": 4, "energy": 0.9}, "--rank, --energy: expected one of them; found 4 and 0.9"),
        ({"energy": 0.0}, "--energy: expected a share above 0 and at most 1; found 0"),
        ({"energy": 1.5}, "--energy: expected a share above 0 and at most 1; found 1.5"),
        ({"energy": float("nan")}, "--energy: expected a share above 0 and at most 1; found nan"),
        ({"split": 5}, "--split: tasks.flow.split: expected one of archive.blocks [3, 4]; found 5"),
        ({"base": Path("nowhere.safetensors")}, "--base: expected nowhere.safetensors; found no such file or folder"),
        ({"base": Path("base.pth")}, "--base: expected base.pth; found no such file or folder"),
    ],
)
def test_options_that_make_no_sense(tiny, flow, out, options, line):
    assert refusal(tiny, out, f"flow={flow}", **options) == line


def test_a_head_never_reads_before_the_split(tiny, alone, out):
    assert refusal(tiny, out, f"hands={alone}", split=4) == (
        "--split: tasks.hands.taps: a head reads only at or after its split, 4; found [3, 6]"
    )


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda x: x.update({QKV: torch.zeros(192, 32)}),
            f"{QKV}: expected shape (192, 64); found (192, 32); the netw",
        ),
        (lambda x: x.pop(QKV), f"expected tensor {QKV}; found none; the network has to be test_vit as tiny has it"),
        (lambda x: x.update(extra=torch.zeros(1)), "found 1 more, first extra; the network has to be test_vit as tiny"),
        (
            lambda x: x.update({"head.layers.0.bias": torch.zeros(5)}),
            "head.layers.0.bias: expected shape (12,); found (5,)",
        ),
        (lambda x: x.pop("head.norms.0.bias"), "expected tensor head.norms.0.bias; found none"),
        (lambda x: x.update({"head.more": torch.zeros(1)}), "found 1 more, first head.more"),
        (lambda x: x.update({QKV: torch.zeros(192, 64, dtype=torch.int32)}), f"{QKV}: expected floats; found I32"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tiny, flow, tmp_path, out, change, line):
    path = changed(flow, tmp_path / "wrong.safetensors", change)
    said = refusal(tiny, out, f"flow={path}")
    assert said.startswith(f"--task flow: weights {path}: ")
    assert line in said
    if "head." not in line and "floats" not in line:
        assert refusal(tiny, out, f"flow={flow}", base=path).startswith(f"--base: weights {path}: ")


@pytest.mark.parametrize(("value", "found"), [(float("nan"), "NaN"), (float("inf"), "infinity")])
@pytest.mark.parametrize("name", [QKV, "cls_token", "head.layers.0.bias"])
def test_numbers_that_are_none_are_refused(tiny, flow, tmp_path, out, name, value, found):
    path = changed(flow, tmp_path / "broken.safetensors", lambda tensors: tensors[name].view(-1)[:1].fill_(value))
    line = f"weights {path}: {name}: expected finite numbers; found {found}"
    assert refusal(tiny, out, f"flow={path}") == line
    if not name.startswith("head."):
        assert refusal(tiny, out, f"flow={flow}", base=path) == line


def test_pickles_are_never_opened(tiny, tmp_path, out):
    for suffix in (".pt", ".pth", ".bin", ""):
        path = tmp_path / f"tuned{suffix}"
        path.write_bytes(pickle.dumps({}))
        assert refusal(tiny, out, f"flow={path}") == (
            f"--task flow: {path}: expected a .safetensors file; found {suffix or 'no suffix'}; pickles aren't opened, "
            "as they run code: save the tensors with safetensors.torch.save_file"
        )
    path = tmp_path / "disguised.safetensors"
    path.write_bytes(pickle.dumps({}))
    assert refusal(tiny, out, f"flow={path}").startswith(f"--task flow: weights {path}: not readable as safetensors")


@pytest.mark.parametrize(
    ("where", "changes", "line"),
    [
        ("tasks.hands", {"taps": [4, 6]}, "tasks.hands.taps: expected (3, 6); found (4, 6)"),
        ("tasks.hands", {"names": ["top", "right"]}, "tasks.hands.names: expected ('left', 'right'); found ('top', "),
        (
            "tasks.hands",
            {"kind": "vector", "channels": 2, "names": DROP},
            "tasks.hands.kind: expected 'heatmaps'; found 'vector'",
        ),
        ("backbone", {"args": {"num_heads": 1}}, "backbone.args: expected {'img_size': 64}; found {'num_heads': 1}"),
        ("backbone", {"timm": "test_vit2"}, "backbone.timm: expected 'test_vit'; found 'test_vit2'"),
        ("input", {"mean": [0, 0, 0]}, "input.mean: expected (0.485, 0.456, 0.406); found (0.0, 0.0, 0.0)"),
    ],
)
def test_a_bundle_that_means_something_else_is_refused(tiny, alone, tmp_path, out, where, changes, line):
    """Tensors of the same shapes would be taken, and answer another question."""
    other = Path(shutil.copytree(alone, tmp_path / "other"))
    document = yaml.safe_load((other / "bundle.yaml").read_text())
    section = document
    for key in where.split("."):
        section = section[key]
    section |= changes
    for key in [key for key, value in section.items() if value is DROP]:
        del section[key]
    (other / "bundle.yaml").write_text(yaml.safe_dump(document))
    said = refusal(tiny, out, f"hands={other}")
    assert said.startswith(f"--task hands: {other / 'bundle.yaml'}: ")
    assert line in said


def test_bundles_that_have_no_network_for_the_task(tiny, tiny_delta, alone, tmp_path, out):
    assert refusal(tiny, out, f"flow={alone}") == f"--task flow: {alone}: expected a bundle with this task; found hands"
    line = refusal(tiny, out, f"flow={tiny_delta}")
    assert line.endswith("tasks.flow: expected the network fine-tuned for it; found a delta of another")
    assert refusal(tiny, out, f"flow={tmp_path}").startswith(f"--task flow: {tmp_path / 'bundle.yaml'}")


OWN_HEAD = """
from torch import nn


class Mine(nn.Linear):
    receptive_field = 0
    side = 1

    def __init__(self, width, taps, channels):
        super().__init__(width, channels)

    def cells(self, taps_RTD):
        return self(taps_RTD.mean(1))

    def macs_per_token(self):
        return self.in_features * self.out_features
"""


def test_a_head_of_somebodys_own_needs_leave(tiny, tmp_path, out, monkeypatch):
    """Its tensors are called as those of timm's classifier are, and are its own nevertheless."""
    (tmp_path / "own_linear.py").write_text(OWN_HEAD)
    monkeypatch.syspath_prepend(tmp_path)
    source, path = Path(shutil.copytree(tiny, tmp_path / "source")), tmp_path / "tuned.safetensors"
    text = (source / "bundle.yaml").read_text()
    (source / "bundle.yaml").write_text(text.replace("head: linear, head_args: {side: 2}", "head: 'own_linear:Mine'"))
    head = {"head.weight": torch.ones(3, 64), "head.bias": torch.zeros(3)}
    save_file(tuned_tensors(tiny, 4) | head, path)
    assert refusal(str(source), out, f"flow={path}") == (
        "--task flow: tasks.flow.head: own_linear:Mine is code of the bundle's author; --allow-code lets it run"
    )
    result = made(str(source), out, f"flow={path}", allow_code=True)
    assert result.tasks["flow"].checkpoint.own_head
    loaded = load_model(result.bundle, ["flow"], allow_code=True).heads["flow"].state_dict()
    assert torch.equal(loaded["weight"], head["head.weight"])


def test_a_folder_with_files_is_left_alone(tiny, flow, tmp_path):
    (tmp_path / "theirs.txt").write_text("mine")
    with pytest.raises(UsageError, match="expected no such folder, or an empty one; found files in it"):
        made(tiny, tmp_path, f"flow={flow}")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.txt"]
    with pytest.raises(UsageError, match=r"can't be written: Not a directory; choose another"):
        made(tiny, tmp_path / "theirs.txt" / "below", f"flow={flow}")


def test_what_is_missing_of_other_tasks_is_told_before_anything_is_written(tiny, flow, tmp_path, out):
    source = Path(shutil.copytree(tiny, tmp_path / "source"))
    (source / "hands.safetensors").unlink()
    line = refusal(str(source), out, f"flow={flow}")
    assert line == f"weights: expected {source / 'hands.safetensors'}; found no such file"


def test_what_cant_be_finished_is_taken_back(tiny, flow, out, monkeypatch):
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deltascene.pipeline.bundles.compress.write_bundle", full)
    with pytest.raises(OSError, match="No space left"):
        made(tiny, out, f"flow={flow}")
    assert not list(out.iterdir())


def test_clips_that_make_no_sense(run_cli, tiny, flow, make_clip, out):
    arguments = (tiny, "--task", f"flow={flow}", "--clip")
    folder = make_clip(2, name="one").parent
    shutil.copy(folder / "one.avi", folder / "two.avi")
    assert "expected one video; found 2" in refused_by_command(run_cli, out, *arguments, folder)
    line = refused_by_command(run_cli, out, *arguments, folder / "one.avi", "--frames", 0)
    assert line == "deltascene: --frames: expected 1 or more; found 0\n"
    assert run_cli("compress", *arguments, folder / "none.avi", "-o", out)[0] == 2
    assert not out.exists()
