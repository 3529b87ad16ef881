"""`deltascene models`: what is listed, what is supported, and bundles made for somebody's own tasks."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file, save_file

from deltascene.errors import DeltasceneError
from deltascene.pipeline.bundles import backbone_weights
from deltascene.pipeline.bundles.bundle import packaged_models, read_folder
from deltascene.pipeline.bundles.check import (
    archive_points,
    check_model,
    head_taps,
    sketch_backbone,
)
from deltascene.pipeline.bundles.new import new_model
from deltascene.pipeline.bundles.packaged import about, list_models
from deltascene.pipeline.bundles.task_grammar import parse_tasks
from deltascene.pipeline.commands.models import check_command, print_models
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.errors import BundleError, UsageError
from deltascene.stages.backbone import create_backbone

TASKS = ["anomaly:scalar", "hands:heatmaps:21"]
IMAGE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)


@pytest.fixture(scope="module")
def own_weights(tmp_path_factory):
    """A file as timm would save it: with a classifier, and positions of 64x64 images."""
    torch.manual_seed(3)
    vit = create_backbone("test_vit", {"img_size": 64, "num_classes": 5})
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    save_file(vit.state_dict(), path)
    return path


def printed(show, *values: object) -> tuple[str, object]:
    console = Console(file=io.StringIO(), width=140)
    result = show(console, *values)
    return console.file.getvalue(), result


def printed_check(model: str) -> tuple[str, object]:
    return printed(lambda console: check_command(model, console))


def refusal(*args: object, **options: object) -> str:
    with pytest.raises(UsageError) as caught:
        new_model(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_new_bundle_runs_at_once_with_its_own_tasks(tmp_path):
    """Another network than the packaged one: 3 blocks of timm's vit_tiny, a scalar base and 21 heatmaps."""
    folder = tmp_path / "mine"
    bundle = new_model(folder, "timm:vit_tiny_patch16_224", TASKS, random=True, size=(96, 128), args={"depth": 3})
    assert sorted(path.name for path in folder.iterdir()) == [
        "anomaly.safetensors",
        "base.safetensors",
        "bundle.yaml",
        "hands.safetensors",
    ]
    assert bundle.entry.base == "anomaly"
    assert bundle.entry.tasks["hands"].split == 1
    assert "untrained" in bundle.entry.evidence["summary"]

    result = Engine.load(str(folder)).open_stream("s")(IMAGE)
    assert result["anomaly"].array.shape == (96, 128)
    assert result["hands"].array.shape == (96, 128, 21)
    assert 0 <= result["hands"].array.min() <= result["hands"].array.max() <= 1
    assert result.cost.tasks["anomaly"].executed.blocks > 0
    check = check_model(str(folder))
    assert check.supported
    assert check.tasks["hands"].kind == "heatmaps of 21"


def test_the_yaml_is_what_a_person_would_write(tmp_path):
    new_model(tmp_path, "timm:test_vit", [*TASKS, "things:classes:12"], random=True, base="things")
    assert yaml.safe_load((tmp_path / "bundle.yaml").read_text()) == {
        "format": 1,
        "backbone": {"timm": "test_vit"},
        "input": {"size": [160, 160], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
        "base": "things",
        "archive": {"blocks": [3, 4]},
        "tasks": {
            "things": {"kind": "classes", "channels": 12, "taps": [3, 4, 6], "head_args": {"hidden": 64, "side": 2}},
            "anomaly": {"kind": "scalar", "split": 3, "taps": [3, 4, 6], "head_args": {"hidden": 64, "side": 2}},
            "hands": {
                "kind": "heatmaps",
                "channels": 21,
                "split": 3,
                "taps": [3, 4, 6],
                "head_args": {"hidden": 64, "side": 2},
            },
        },
        "evidence": {"summary": "untrained: backbone and heads are random"},
    }


def test_own_weights_bring_their_grid_and_leave_their_classifier(tmp_path, own_weights):
    bundle = new_model(tmp_path / "mine", "timm:test_vit", TASKS, weights=own_weights, size=48)
    assert bundle.entry.backbone.args == {"img_size": 64}
    assert (bundle.entry.input.size, bundle.entry.input.short_side) == (None, 48)
    assert "own.safetensors" in bundle.entry.evidence["summary"]
    engine = Engine.load(str(tmp_path / "mine"), tasks=["anomaly"])
    given = load_file(own_weights)
    for name, tensor in engine.model.backbone.state_dict().items():
        assert torch.equal(tensor, given[name])
    assert engine.open_stream("s")(IMAGE)["anomaly"].array.shape == (48, 64)


def test_new_bundles_are_the_same_every_time(tmp_path):
    state = torch.random.get_rng_state()
    for name in ("a", "b"):
        new_model(tmp_path / name, "timm:test_vit", TASKS, random=True)
    assert torch.equal(torch.random.get_rng_state(), state)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda tensors: tensors.pop("norm.bias"), "expected tensor norm.bias; found none"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "expected 78 tensors; found 1 more, first extra"),
        (
            lambda tensors: tensors.update({"norm.bias": torch.zeros(3)}),
            "norm.bias: expected shape (64,); found (3,)",
        ),
    ],
)
def test_own_weights_that_dont_fit_are_told_by_their_first_tensor(tmp_path, own_weights, change, line):
    tensors = load_file(own_weights)
    change(tensors)
    path = tmp_path / "wrong.safetensors"
    save_file(tensors, path)
    assert refusal(tmp_path / "mine", "timm:test_vit", TASKS, weights=path) == f"weights {path}: {line}"
    assert not (tmp_path / "mine").exists()


def test_without_a_network_the_way_out_is_named(tmp_path, monkeypatch):
    def offline(*args: object, **options: object) -> None:
        assert options == {"pretrained": True}
        raise ConnectionError("Name or service\nnot known")

    monkeypatch.setattr(backbone_weights, "create_backbone", offline)
    assert refusal(tmp_path / "mine", "timm:test_vit", TASKS) == (
        "test_vit: timm's weights can't be had: Name or service not known; give --weights FILE.safetensors, or --random"
    )
    assert not (tmp_path / "mine").exists()


def test_timms_own_weights_bring_their_licence(tmp_path, monkeypatch):
    def downloaded(name, args, *, pretrained):
        assert pretrained
        return create_backbone(name, args)

    monkeypatch.setattr(backbone_weights, "create_backbone", downloaded)
    evidence = new_model(tmp_path / "mine", "timm:test_vit", TASKS).entry.evidence
    assert evidence == {
        "summary": "heads are untrained; backbone weights are timm's timm/test_vit.r160_in1k",
        "licence": "apache-2.0",
    }


@pytest.mark.parametrize(
    ("backbone", "options", "line"),
    [
        ("test_vit", {}, "--backbone: expected timm:NAME; found 'test_vit'"),
        ("timm:resnet50", {}, "resnet50: expected a plain vision transformer"),
        ("timm:deit_tiny_distilled_patch16_224", {}, "VisionTransformerDistilled: expected timm's plain VisionTransf"),
        ("timm:nothing", {}, "backbone: timm "),
        ("timm:test_vit", {"size": (50, 64)}, "input size: expected multiples of the patch, 16; found 50x64"),
        ("timm:test_vit", {"size": 10**9}, "new bundle: input.short_side: expected less than or equal to 16384"),
        ("timm:test_vit", {"args": {"depht": 3}}, "backbone.args: depht: unknown key; did you mean 'depth'?"),
        ("timm:test_vit", {"weights": Path("x.safetensors")}, "--random: expected no --weights beside it; found both"),
        (
            "timm:test_vit",
            {"base": "hand"},
            "--base: expected one of anomaly, hands; found 'hand'; did you mean 'hands'?",
        ),
    ],
)
def test_what_cant_be_made_is_told_in_one_line(tmp_path, backbone, options, line):
    assert refusal(tmp_path / "mine", backbone, TASKS, random=True, **options).startswith(line)
    assert not (tmp_path / "mine").exists()


def test_a_folder_with_files_is_left_alone(tmp_path):
    (tmp_path / "theirs.txt").write_text("mine")
    assert refusal(tmp_path, "timm:test_vit", TASKS, random=True) == (
        f"{tmp_path}: expected no such folder, or an empty one; found files in it"
    )
    assert refusal(tmp_path / "theirs.txt", "timm:test_vit", TASKS, random=True).endswith("found a file")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.txt"]


def test_a_bundle_that_cant_be_finished_is_taken_back(tmp_path, monkeypatch):
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deltascene.pipeline.bundles.new.write_head", full)
    with pytest.raises(OSError, match="No space left"):
        new_model(tmp_path / "mine", "timm:test_vit", TASKS, random=True)
    assert not list((tmp_path / "mine").iterdir())


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("anomaly", "--task: expected NAME:KIND[:CHANNELS], e.g. hands:heatmaps:21; found 'anomaly'"),
        ("a:b:c:d", "--task: expected NAME:KIND[:CHANNELS], e.g. hands:heatmaps:21; found 'a:b:c:d'"),
        (
            "hands:heatmap:21",
            "--task hands:heatmap:21: expected kind classes, scalar, vector, heatmaps; found 'heatmap'; "
            "did you mean 'heatmaps'?",
        ),
        ("things:classes", "--task things:classes: expected a number of classes, things:classes:NUMBER; found none"),
        ("hands:heatmaps:many", "--task hands:heatmaps:many: expected a number of channels, 1 to 65535; found 'many'"),
        ("hands:heatmaps:0", "--task hands:heatmaps:0: expected a number of channels, 1 to 65535; found '0'"),
        ("hands:heatmaps:²", "--task hands:heatmaps:²: expected a number of channels, 1 to 65535; found '²'"),
        ("d:scalar:2", "--task d:scalar:2: expected 1 channel, as kind scalar has one; found 2"),
        (
            "Hands:scalar",
            "--task Hands:scalar: expected a name of a-z, 0-9 and _, at most 32, a letter first; found 'Hands'",
        ),
        ("valid:scalar", "--task valid:scalar: expected another name than age, change, index, pts_s, valid, "),
    ],
)
def test_the_grammar_of_tasks_is_told_in_one_line(text, line):
    with pytest.raises(UsageError) as caught:
        parse_tasks([text])
    assert str(caught.value).startswith(line)


def test_tasks_have_their_kinds_channels_and_the_base_comes_first():
    texts = ["a:scalar", "b:vector", "c:heatmaps", "d:classes:4", "e:vector:2"]
    specs = parse_tasks(texts, base="c")
    assert [(spec.name, spec.channels) for spec in specs] == [("c", 1), ("a", 1), ("b", 3), ("d", 4), ("e", 2)]
    with pytest.raises(UsageError, match="--task: expected each name once; found 'a' twice"):
        parse_tasks(["a:scalar", "a:vector"])
    with pytest.raises(UsageError, match="--task: expected at least one"):
        parse_tasks([])


@pytest.mark.parametrize("depth", range(1, 49))
def test_places_fit_every_depth(depth):
    points, taps = archive_points(depth), head_taps(depth)
    assert 0 <= min(points) <= max(points) < depth
    assert points[0] == taps[0] <= taps[-1] == depth
    assert list(points) == sorted(set(points))
    assert list(taps) == sorted(set(taps))
    if depth == 12:
        assert (points, taps) == ((6, 8, 9), (6, 9, 12))


def test_heads_of_new_bundles_keep_to_their_share_beside_usual_backbones(tmp_path):
    new_model(tmp_path, "timm:vit_tiny_patch16_224", TASKS, random=True)
    check = check_model(str(tmp_path))
    assert check.warnings == ()
    assert all(0 < task.share <= 0.03 for task in check.tasks.values())
    dense = check.tasks["anomaly"].head_macs / check.tasks["anomaly"].share
    tokens, width = 197, 192
    assert dense == pytest.approx(12 * (12 * tokens * width**2 + 2 * tokens**2 * width) + 196 * 3 * 256 * width)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("vit_small_patch16_18x2_224", "VisionTransformer.blocks.0: expected Block"),
        ("vit_dwee_patch16_reg1_gap_256", "VisionTransformer.blocks.0.attn: expected Attention"),
        ("convnext_tiny", "convnext_tiny: expected a plain vision transformer"),
        ("vit_smal", "has no model 'vit_smal'"),
    ],
)
def test_unsupported_backbones_are_told_by_their_part(name, problem):
    check = check_model(f"timm:{name}")
    assert not check.supported
    assert problem in check.problems[0]
    text, code = printed_check(f"timm:{name}")
    assert code == 2
    assert f"timm:{name}: not supported" in text
    assert problem in text


@pytest.mark.parametrize("name", ["vit_giant_patch14_dinov2", "vit_so400m_patch14_siglip_384", "test_vit3"])
def test_supported_backbones_need_no_memory_to_be_told(name):
    check = check_model(f"timm:{name}")
    assert check.supported
    assert all(parameter.is_meta for parameter in sketch_backbone(name).parameters())
    text, code = printed_check(f"timm:{name}")
    assert code == 0
    assert f"timm:{name}: supported" in text
    if name == "vit_giant_patch14_dinov2":
        assert check.facts["a new bundle's archive.blocks"] == "20, 26, 30"
        assert check.facts["a new head's taps"] == "20, 30, 40"
        assert check.facts["input"] == "518x518 pixels, 1370 tokens"


def test_a_bundles_problems_are_told_all_at_once(tiny, tmp_path):
    folder = Path(shutil.copytree(tiny, tmp_path / "copied"))
    (folder / "flow.safetensors").unlink()
    (folder / "base.safetensors").write_bytes(b"no weights")
    check = check_model(str(folder))
    assert not check.supported
    assert check.problems[0].startswith(f"weights {folder / 'base.safetensors'}: not readable as safetensors")
    assert check.problems[1] == f"weights: expected {folder / 'flow.safetensors'}; found no such file"
    assert list(check.tasks) == ["parts", "height", "flow", "hands"]
    with pytest.raises(BundleError, match="no packaged model or folder"):
        check_model(str(tmp_path / "nowhere"))


def test_what_is_printed_shows_every_task_and_no_markup(tiny, tmp_path):
    folder = Path(shutil.copytree(tiny, tmp_path / "[red]copied"))
    text, code = printed_check(str(folder))
    assert code == 0
    for part in ("tiny: supported", "parts", "classes of 3", "flow", "vector of 3", "linear", "token_mlp"):
        assert part in text
    document = (folder / "bundle.yaml").read_text()
    (folder / "bundle.yaml").write_text(document.replace("hidden: 8", "hidden: 512"))
    text, code = printed_check(str(folder))
    assert code == 2
    assert f"problem: weights {folder / 'hands.safetensors'}: head.layers.0.weight: expected shape (512, 128)" in text
    assert "warning: tasks.hands.head: expected up to 3% of the backbone's MACs; found" in text


def test_packaged_models_are_listed():
    rows = list_models()
    assert [row.name for row in rows] == list(packaged_models())
    for row in rows:
        assert next(iter(row.tasks)) == read_folder(packaged_models()[row.name]).entry.base
        assert row.size_bytes > 1000
    text, _ = printed(print_models, rows)
    for row in rows:
        assert row.name in text
        assert row.backbone in text
        assert all(f"{task} ({kind})" in text for task, kind in row.tasks.items())
    assert printed(print_models, [])[0] == "no packaged models in this installation\n"


def test_evidence_is_told_in_one_line():
    assert about({"summary": "trained on\nrooms", "licence": "MIT", "metrics": {}}) == "trained on rooms; MIT"
    assert about({"metrics": {"miou": 1}}) == "no summary and no licence in its evidence"


def test_every_error_is_meant_for_the_user():
    assert issubclass(UsageError, DeltasceneError)
