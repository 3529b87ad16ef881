"""Bundles: what is refused, each with its one line, and what is read, fetched and written."""

import copy
import pickle
import re
import shutil
import tempfile
import textwrap
from pathlib import Path

import fsspec
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from deltascene import Engine
from deltascene.pipeline.bundles.bundle import (
    Bundle,
    choose_tasks,
    packaged_models,
    read_bundle,
    read_folder,
    write_bundle,
)
from deltascene.pipeline.bundles.entry import (
    BackboneArgs,
    BackboneEntry,
    BundleEntry,
    InputEntry,
    StoredEntry,
    TaskEntry,
)
from deltascene.pipeline.bundles.scene_model import load_model, sketch_model
from deltascene.pipeline.bundles.weight_files import read_weights
from deltascene.pipeline.errors import BundleError
from deltascene.stages.errors import StageError

DOCUMENT = {
    "format": 1,
    "backbone": {"timm": "test_vit", "args": {"img_size": 64}},
    "input": {"size": [48, 64]},
    "base": "parts",
    "archive": {"blocks": [3, 4]},
    "tasks": {
        "parts": {"kind": "classes", "labels": ["sky", "road", "car"], "taps": [3, 6]},
        "height": {"kind": "scalar", "unit": "m", "range": [0.1, 5.0], "log": True, "split": 3, "taps": [4, 6]},
        "flow": {"kind": "vector", "split": 4, "taps": [6], "head": "linear", "head_args": {"side": 2}},
        "hands": {"kind": "heatmaps", "names": ["left", "right"], "split": 3, "taps": [3, 6]},
    },
}
DROP = object()


def dumped(document: object) -> str:
    return yaml.safe_dump(document, sort_keys=False)


def changed(path: str, value: object) -> dict:
    document = copy.deepcopy(DOCUMENT)
    *parents, last = path.split(".")
    place = document
    for part in parents:
        place = place[part]
    if value is DROP:
        del place[last]
    else:
        place[last] = value
    return document


def refusal(folder: Path) -> str:
    """The one line that a bundle is refused with, without its path."""
    with pytest.raises(BundleError) as caught:
        read_folder(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{folder / 'bundle.yaml'}: ")
    return text.removeprefix(f"{folder / 'bundle.yaml'}: ")


RULES = [
    ("format", 2, "format: expected 1; found 2"),
    ("format", DROP, "format: expected 1; found None"),
    ("colour", 1, "colour: unknown key"),
    ("archives", {}, "archives: unknown key; did you mean 'archive'?"),
    ("backbone.tim", "x", "backbone.tim: unknown key; did you mean 'timm'?"),
    ("tasks.parts.colors", [], "tasks.parts.colors: unknown key; did you mean 'colours'?"),
    ("tasks.parts.tap", [3], "tasks.parts.tap: unknown key; did you mean 'taps'?"),
    (
        "tasks.hands.stored",
        {"dtype": "uint8", "scal": 2},
        "tasks.hands.stored.scal: unknown key; did you mean 'scale'?",
    ),
    ("tasks.parts.taps", DROP, "tasks.parts.taps: expected a value; found none"),
    ("tasks.parts.taps", [6, 3], "tasks.parts.taps: expected increasing numbers; found [6, 3]"),
    ("tasks.flow.split", 5, "tasks.flow.split: expected one of archive.blocks [3, 4]; found 5"),
    ("tasks.flow.split", DROP, "tasks.flow.split: expected one of archive.blocks [3, 4]; found None"),
    ("tasks.flow.taps", [3, 6], "tasks.flow.taps: a head reads only at or after its split, 4; found [3, 6]"),
    ("tasks.parts.split", 3, "tasks.parts: the base has no split and no delta"),
    ("tasks.parts.delta", "d.safetensors", "tasks.parts: the base has no split and no delta"),
    ("base", "part", "base: expected one of the tasks, parts, height, flow, hands; found 'part'"),
    ("tasks", {}, "tasks: expected at least 1 item"),
    (
        "tasks.parts.kind",
        "class",
        "tasks.parts.kind: expected 'classes', 'scalar', 'vector' or 'heatmaps'; found 'class'",
    ),
    (
        "tasks.parts.unit",
        "m",
        "tasks.parts: unit: a key of kind scalar; expected those of kind classes, labels, colours",
    ),
    ("tasks.parts.labels", [], "tasks.parts.labels: expected labels or channels for kind classes; found neither"),
    ("tasks.parts.labels", ["a", "a"], "tasks.parts.labels: expected each only once; found ['a', 'a']"),
    ("tasks.parts.labels", ["a\x1b[2J"], "tasks.parts.labels.0: expected printable text; found 'a\\x1b[2J'"),
    ("tasks.parts.colours", [[1, 2, 3]], "tasks.parts.colours: expected one per label, 3; found 1"),
    ("tasks.parts.channels", 4, "tasks.parts.channels: expected 3 for its classes; found 4"),
    ("tasks.parts.resample", "linear", "tasks.parts: resample: expected nearest, as ids have no mean; found linear"),
    (
        "tasks.parts.stored",
        {"dtype": "uint8", "fill": 2},
        "tasks.parts: stored.fill: expected a number that is no id, 3 or more; found 2",
    ),
    (
        "tasks.parts.stored",
        {"dtype": "int8"},
        "tasks.parts: stored: expected uint8 or uint16 that holds 3 ids, unscaled; found int8",
    ),
    (
        "tasks.flow.stored",
        {"dtype": "int8", "fill": 300},
        "tasks.flow.stored: fill: expected a number that int8 holds; found 300.0",
    ),
    ("tasks.flow.stored", {"dtype": "int8", "scale": 0}, "tasks.flow.stored.scale: expected greater than 0; found 0"),
    ("tasks.height.range", [5, 1], "tasks.height.range: expected low < high, both positive; found (5.0, 1.0)"),
    ("tasks.height.range", [0.1, float("inf")], "tasks.height.range.1: expected a finite number; found inf"),
    ("tasks.flow.head_args", {"side": 0}, "tasks.flow: head_args.side: expected a whole number, 1 to 8192; found 0"),
    ("tasks.flow.channels", 10**12, "tasks.flow.channels: expected less than or equal to 65535; found 1000000000000"),
    (
        "tasks.flow.head",
        "os; rm",
        "tasks.flow.head: expected the name of a head, or package.module:Class; found 'os; rm'",
    ),
    ("input", {}, "input: expected either size or short_side; found neither"),
    ("input.short_side", 224, "input: expected either size or short_side; found both"),
    ("input.std", [1, 1, 0], "input.std.2: expected greater than 0; found 0"),
    ("backbone.args", {"dept": 2}, "backbone.args: dept: unknown key; did you mean 'depth'?"),
    ("backbone.args", {"checkpoint_path": "x.pth"}, "backbone.args: checkpoint_path: unknown key"),
    ("backbone.args", {"depth": 10**9}, "backbone.args: depth: expected less than or equal to 128; found 1000000000"),
]


@pytest.mark.parametrize(("path", "value", "line"), RULES)
def test_rules_are_told_in_one_exact_line(tmp_path, path, value, line):
    (tmp_path / "bundle.yaml").write_text(dumped(changed(path, value)))
    assert refusal(tmp_path) == line


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "x.pt", ".safetensors"])
@pytest.mark.parametrize("key", ["backbone.weights", "tasks.flow.weights"])
def test_a_weights_file_lies_in_the_folder_and_is_safetensors(tmp_path, name, key):
    (tmp_path / "bundle.yaml").write_text(dumped(changed(key, name)))
    wanted = "expected the bare name of a .safetensors file in the bundle's folder"
    assert refusal(tmp_path) == f"{key}: {wanted}; found {name!r}"


@pytest.mark.parametrize("name", ["valid", "index", "age", "pts_s", "Seg", "a-b", "x" * 33, ""])
def test_a_task_may_not_have_the_name_of_another_array(tmp_path, name):
    document = copy.deepcopy(DOCUMENT)
    document["tasks"][name] = document["tasks"].pop("flow")
    (tmp_path / "bundle.yaml").write_text(dumped(document))
    assert refusal(tmp_path).startswith(f"tasks.{name}: expected ")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"[1, 2]", "expected a mapping; found list"),
        (b"", "format: expected 1; found None"),
        (b"\xff\xfe\x00\x01", "not readable as YAML: not UTF-8 text"),
        (b"\x7fELF\x02\x01\x01\x00", "not readable as YAML: unacceptable character #x007f: special characters are not"),
        (b"a: [", "not readable as YAML: line 1, column 5: "),
        (b"a: &x [1]\nb: *x", "not readable as YAML: line 2, column 4: aliases aren't allowed"),
        (b"a: 1\na: 2", "not readable as YAML: line 2, column 1: 'a' stands twice"),
        (b"a: !!python/object/apply:os.system [ls]", "not readable as YAML: line 1, column 4: could not determine"),
        (b"a: 2024-99-99", "not readable as YAML: month must be in 1..12"),
        (b'a: !!int ""', "not readable as YAML: "),
        (b"[" * 5000, "not readable as YAML: maximum recursion depth exceeded"),
        (b"a: " * 900, "not readable as YAML: "),
        (b"#" * (1 << 20) + b"#", "expected at most 1048576 bytes; found 1048577"),
    ],
)
def test_what_isnt_a_plain_mapping_is_told_in_one_line(tmp_path, content, line):
    (tmp_path / "bundle.yaml").write_bytes(content)
    assert refusal(tmp_path).startswith(line)


def test_a_yaml_bomb_stays_small(tmp_path):
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    (tmp_path / "bundle.yaml").write_text("\n".join(lines))
    assert refusal(tmp_path) == "not readable as YAML: line 2, column 10: aliases aren't allowed"


def test_missing_bundles_are_named(tmp_path):
    with pytest.raises(BundleError, match=r"expected a folder with bundle\.yaml; found none in it"):
        read_bundle(str(tmp_path))
    with pytest.raises(
        BundleError, match=r"no packaged model or folder 'room'; packaged: .*rooms.*; did you mean 'rooms'"
    ):
        read_bundle("room")


@pytest.fixture
def copied(tiny, tmp_path):
    return Path(shutil.copytree(tiny, tmp_path / "copied"))


def loading_error(folder: Path, **options: object) -> str:
    bundle = read_folder(folder)
    with pytest.raises(BundleError) as caught:
        load_model(bundle, choose_tasks(bundle, None), **options)
    return str(caught.value)


@pytest.mark.parametrize("name", ["base", "flow"])
def test_weights_fit_exactly(copied, name):
    path = copied / f"{name}.safetensors"
    tensors = load_file(path)
    first = min(tensors)
    shape = tuple(tensors[first].shape)

    save_file({**tensors, "zz": torch.zeros(1)}, path)
    assert loading_error(copied) == f"weights {path}: expected {len(tensors)} tensors; found 1 more, first zz"
    save_file({**tensors, first: torch.zeros(2, 2, 2)}, path)
    assert loading_error(copied) == f"weights {path}: {first}: expected shape {shape}; found (2, 2, 2)"
    save_file({key: value for key, value in tensors.items() if key != first}, path)
    assert loading_error(copied) == f"weights {path}: expected tensor {first}; found none"
    save_file({**tensors, first: torch.zeros(shape, dtype=torch.int32)}, path)
    assert loading_error(copied) == f"weights {path}: {first}: expected floats; found I32"
    path.unlink()
    assert loading_error(copied) == f"weights: expected {path}; found no such file"


@pytest.mark.parametrize("content", [pickle.dumps({"a": [1]}), b"", b"PK\x03\x04" + bytes(64), b"\x08" + bytes(15)])
def test_what_isnt_safetensors_is_refused_whatever_its_name(copied, content):
    (copied / "base.safetensors").write_bytes(content)
    line = loading_error(copied)
    assert line.startswith(f"weights {copied / 'base.safetensors'}: not readable as safetensors: ")
    assert "\n" not in line


def test_weights_come_as_float32_in_memory_of_their_own(tiny):
    bundle = read_bundle(tiny)
    model = load_model(bundle, ["height"])
    assert set(model.heads) == {"height"}
    (copied_over,) = {tensor.dtype for tensor in read_weights(bundle.head_file("height")).values()}
    assert copied_over == torch.float32
    stored = load_file(bundle.backbone_file())
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, stored[name])
        assert tensor.data_ptr() != stored[name].data_ptr()


def rewrite(folder: Path, old: str, new: str) -> None:
    path = folder / "bundle.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_places_lie_inside_the_network(copied):
    rewrite(copied, "taps: [3, 6], head: token_mlp, head_args: {hidden: 16", "taps: [3, 7], head_args: {hidden: 16")
    assert loading_error(copied).endswith("bundle.yaml: tasks.parts.taps: expected 0 to 6; found [3, 7]")
    rewrite(copied, "blocks: [3, 4]", "blocks: [3, 4, 40]")
    assert loading_error(copied).endswith("bundle.yaml: archive.blocks: expected 0 to 6; found [3, 4, 40]")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("timm: test_vit", "timm: resnet50", "resnet50: expected a plain vision transformer"),
        ("timm: test_vit", "timm: test_vitt", "has no model 'test_vitt'; similar names: test_vit"),
        ("head: linear}", "head: lineal}", "head: expected one of linear, token_mlp; found 'lineal'"),
        ("{hidden: 8}", "{hiden: 8}", "head token_mlp: .*unexpected keyword argument 'hiden'"),
    ],
)
def test_parts_that_dont_exist_are_named(copied, old, new, line):
    rewrite(copied, old, new)
    bundle = read_folder(copied)
    with pytest.raises(StageError, match=line):
        sketch_model(bundle, choose_tasks(bundle, None))


OWN_HEAD = """\
import torch
from torch import nn


class Mean(nn.Module):
    receptive_field = {field}
    side = 1

    def __init__(self, width, taps, channels):
        super().__init__()
        self.linear = nn.Linear(width, channels)

    def cells(self, taps_RTD):
        return self.linear(taps_RTD.mean(1))

    def macs_per_token(self):
        return self.linear.in_features * self.linear.out_features
"""


def with_own_head(folder: Path, where: Path, name: str, text: str) -> None:
    """Puts a head of somebody's own package into the tiny bundle."""
    (where / f"{name}.py").write_text(text)
    rewrite(folder, "taps: [4, 6], head: linear}", f'taps: [4, 6], head: "{name}:Mean"}}')
    save_file(
        {"head.linear.weight": torch.ones(1, 64), "head.linear.bias": torch.zeros(1)}, folder / "height.safetensors"
    )


def test_a_head_of_ones_own_runs_only_where_code_is_allowed(copied, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    with_own_head(copied, tmp_path, "own_head", OWN_HEAD.format(field=0))
    assert loading_error(copied) == (
        "tasks.height.head: own_head:Mean is code of the bundle's author; --allow-code lets it run"
    )
    model = load_model(read_folder(copied), ["height"], allow_code=True)
    assert model.heads["height"].cells(torch.ones(5, 2, 64)).tolist() == [[64.0]] * 5


def test_a_head_of_ones_own_may_look_at_its_neighbours(copied, tmp_path, monkeypatch, make_clip):
    monkeypatch.syspath_prepend(tmp_path)
    text = OWN_HEAD.format(field=1).replace("taps_RTD.mean(1)", "taps_RTD.mean((1, 2))")
    with_own_head(copied, tmp_path, "near_head", text)
    engine = Engine.load(str(copied), "balanced", ["height"], allow_code=True)
    frames = [result for result in engine.run(make_clip(8)) if result.policy == "rows"]
    assert frames
    for result in frames:
        ran = result.cost.tasks["height"].executed.head
        assert 64 * (len(result.record.rows) - 1) < ran <= 64 * 12  # the moved patches and their neighbours


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("wide_head", OWN_HEAD.format(field=9), "expected receptive_field 0 to 8; found 9"),
        ("bare_head", OWN_HEAD.format(field="None"), "expected an integer `receptive_field` in tokens; found none"),
        ("sideless_head", OWN_HEAD.format(field=0).replace("side = 1", "edge = 1"), "macs_per_token; found no side"),
        ("broken_head", "import nothing_like_this", "can't be imported: No module named 'nothing_like_this'"),
    ],
)
def test_a_head_of_ones_own_says_what_it_needs(copied, tmp_path, monkeypatch, name, text, line):
    monkeypatch.syspath_prepend(tmp_path)
    with_own_head(copied, tmp_path, name, text)
    assert line in loading_error(copied, allow_code=True)


def test_tasks_are_chosen_in_the_bundles_order(tiny):
    bundle = read_bundle(tiny)
    assert choose_tasks(bundle, ["hands", "parts"]) == ("parts", "hands")
    assert bundle.taps(["parts", "height"]) == (3, 4, 6)
    assert [path.name for path in bundle.weight_files(["flow"])] == ["base.safetensors", "flow.safetensors"]
    with pytest.raises(
        BundleError, match=r"task: tiny has parts, height, flow, hands; found 'hand'; did you mean 'hands'"
    ):
        choose_tasks(bundle, ["hand"])
    with pytest.raises(BundleError, match="expected at least one"):
        choose_tasks(bundle, [])


@pytest.mark.parametrize("name", packaged_models())
def test_packaged_bundles_fit_their_weights(name):
    bundle = read_bundle(name)
    model = load_model(bundle, choose_tasks(bundle, None))
    assert set(model.heads) == set(bundle.entry.tasks)


def test_a_file_url_is_read_where_it_lies(tiny):
    assert read_bundle(f"file://{tiny}").folder == Path(tiny)


@pytest.fixture
def remote(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    files.put(tiny, "/models/tiny", recursive=True)
    yield files
    files.rm("/models", recursive=True)


def test_a_url_is_copied_once_and_again_when_it_changed(remote, tiny, monkeypatch):
    fetched = []
    original = type(remote).get_file
    monkeypatch.setattr(
        type(remote),
        "get_file",
        lambda self, *args, **options: (fetched.append(args[0]), original(self, *args, **options)),
    )
    bundle = read_bundle("memory://models/tiny")
    assert load_model(bundle, ["flow"]).tasks == ("flow",)
    assert bundle.name == "tiny"
    assert len(fetched) == 6
    assert read_bundle("memory://models/tiny/").folder == bundle.folder
    assert len(fetched) == 6

    before = (bundle.folder / "flow.safetensors").read_bytes()
    remote.pipe("/models/tiny/flow.safetensors", before[::-1])  # as long, so that only its time tells
    read_bundle("memory://models/tiny")
    assert fetched[6:] == ["/models/tiny/flow.safetensors"]
    assert (bundle.folder / "flow.safetensors").read_bytes() == before[::-1]


def test_a_fetch_that_breaks_off_leaves_nothing_half(remote, monkeypatch):
    def broken(self, there, here, **options):
        Path(here).write_bytes(b"half")
        raise OSError("connection reset")

    with monkeypatch.context() as patched:
        patched.setattr(type(remote), "get_file", broken)
        with pytest.raises(BundleError, match="model memory://models/tiny: can't be fetched: connection reset"):
            read_bundle("memory://models/tiny")
    assert read_bundle("memory://models/tiny").name == "tiny"


def test_a_fetched_description_is_checked_before_its_files_are_fetched(remote):
    document = dumped(changed("tasks.flow.weights", "../../x.safetensors"))
    remote.pipe("/models/tiny/bundle.yaml", document.encode())
    with pytest.raises(
        BundleError, match=r"model memory://models/tiny: bundle.yaml: tasks.flow.weights: expected the bare"
    ):
        read_bundle("memory://models/tiny")


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("memory://nowhere", "model memory://nowhere: can't be fetched: "),
        ("file:///nowhere/at/all", "model file:///nowhere/at/all: can't be fetched: no bundle.yaml in /nowhere/at/all"),
        (
            "nosuch://me:secret@host/x?token=abc",
            "model nosuch://…@host/x?…: can't be fetched: Protocol not known: nosuch",
        ),
    ],
)
def test_urls_that_cant_be_read_are_told_without_their_passwords(url, line, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(BundleError) as caught:
        read_bundle(url)
    assert str(caught.value).startswith(line)
    assert "secret" not in str(caught.value)


def test_a_bundle_is_written_as_people_write_it(tmp_path):
    entry = BundleEntry.model_validate(DOCUMENT)
    assert write_bundle(tmp_path, entry) == tmp_path / "bundle.yaml"
    assert (tmp_path / "bundle.yaml").read_text().splitlines()[:16] == [
        "format: 1",
        "backbone:",
        "  timm: test_vit",
        "  args:",
        "    img_size: 64",
        "input:",
        "  size: [48, 64]",
        "base: parts",
        "archive:",
        "  blocks: [3, 4]",
        "tasks:",
        "  parts:",
        "    kind: classes",
        "    labels: [sky, road, car]",
        "    taps: [3, 6]",
        "  height:",
    ]
    assert read_folder(tmp_path).entry == entry


DOCS = (Path(__file__).parents[3] / "docs" / "bundles.md").read_text(encoding="utf-8")


def test_the_documented_example_is_a_bundle(tmp_path):
    block = DOCS.split("    format: 1\n")[1].split("\n\n")[0]
    (tmp_path / "bundle.yaml").write_text(textwrap.dedent("    format: 1\n" + block))
    bundle = read_folder(tmp_path)
    assert {name: kind.channels for name, kind in bundle.kinds.items()} == {"anomaly": 1, "hands": 21}


@pytest.mark.parametrize("model", [BundleEntry, BackboneEntry, BackboneArgs, InputEntry, TaskEntry, StoredEntry])
def test_every_key_is_documented(model):
    words = set(re.findall(r"\w+", DOCS))
    assert set(model.model_fields) <= words


EVIDENCE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


LABELS = st.text(st.characters(min_codepoint=32, max_codepoint=0x24F), max_size=40).filter(str.isprintable)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(
        LABELS,
        min_size=1,
        max_size=30,
        unique=True,
    ),
    fill=st.sampled_from([0.0, float("nan"), -1.0]),
    evidence=st.dictionaries(st.text(max_size=10), EVIDENCE, max_size=4),
)
def test_what_is_written_is_read_again(labels, fill, evidence):
    document = changed("tasks.parts.labels", labels)
    document["tasks"]["hands"]["stored"] = {"dtype": "float32", "fill": fill}
    document["tasks"]["parts"]["colours"] = [[n % 256, 0, 255] for n in range(len(labels))]
    entry = BundleEntry.model_validate(document | {"evidence": evidence})
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(Path(folder), entry)
        again = read_folder(Path(folder)).entry
    assert repr(again) == repr(entry)  # NaN isn't equal to itself


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["classes", "linear", "../x.safetensors", "timm", 0, 1, 3, 6]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def places(document: object) -> list[tuple[dict | list, object]]:
    """Every (container, key) of a document."""
    if not isinstance(document, dict | list):
        return []
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    return [(document, key) for key in keys] + [place for key in keys for place in places(document[key])]


@st.composite
def mutated_documents(draw: st.DrawFn) -> dict:
    document = copy.deepcopy(DOCUMENT)
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from(places(document)))
        if draw(st.booleans()):
            container[key] = draw(VALUES)
        elif isinstance(container, dict) and draw(st.booleans()):
            container[draw(st.text(max_size=6))] = container.pop(key)
        else:
            del container[key]
        if not places(document):
            break
    return document


def read_or_refuse(content: bytes) -> Bundle | None:
    """A bundle, or None where it was refused in one line."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bundle.yaml").write_bytes(content)
        try:
            return read_folder(Path(folder))
        except BundleError as error:
            line = str(error)
    assert "\n" not in line
    assert len(line) < 700
    return None


@settings(max_examples=150, deadline=None)
@given(mutated_documents())
def test_fuzz_of_documents_ends_in_a_bundle_or_one_line(document):
    read_or_refuse(dumped(document).encode())


INSERTED = st.binary(max_size=6) | st.sampled_from([b"{", b"*a", b"&a ", b"!!int", b": "])


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 600),
    st.integers(0, 12),
    st.binary(max_size=6) | st.sampled_from([b"{", b"*a", b"&a ", b"!!int", b": "]),
)
def test_fuzz_of_text_ends_in_a_bundle_or_one_line(start, length, insert):
    text = dumped(DOCUMENT).encode()
    read_or_refuse(text[:start] + insert + text[start + length :])


NUMBERS = st.integers(-3, 70000) | st.floats() | st.booleans()
ARGS = [
    "img_size",
    "patch_size",
    "embed_dim",
    "depth",
    "num_heads",
    "mlp_ratio",
    "reg_tokens",
    "class_token",
    "pos_embed",
]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from(ARGS), NUMBERS | st.sampled_from(["", "learn", "none"]), max_size=2),
    st.dictionaries(st.sampled_from(["side", "hidden"]), NUMBERS, max_size=2),
)
def test_fuzz_of_sizes_builds_shapes_or_says_why_not(args, head_args):
    document = changed("backbone.args", args)
    document["tasks"]["hands"]["head_args"] = head_args
    bundle = read_or_refuse(dumped(document).encode())
    if bundle is None:
        return
    try:
        model = sketch_model(bundle, choose_tasks(bundle, None))
    except (BundleError, StageError):
        return
    assert all(parameter.is_meta for parameter in model.backbone.parameters())


@pytest.mark.parametrize("name", ["~nobody-such", "x" * 5000, "a\0b"])
def test_a_model_of_a_name_that_no_disk_takes_is_told_in_a_line(name):
    with pytest.raises(BundleError, match=r"^model"):
        read_bundle(name)
