"""What isn't given is as the run in OUT was begun; what is given and differs is refused as it was typed."""

from dataclasses import replace

import pytest
import yaml

from deltascene.cache.places import place
from deltascene.pipeline.batch.choose_config import Given, choose_config
from deltascene.pipeline.batch.keys import _MEANING_OF_BYTES, archive_key, result_key
from deltascene.pipeline.batch.resume import refuse_other
from deltascene.pipeline.bundles.bundle import read_bundle
from deltascene.pipeline.bundles.scene_model import sketch_model
from deltascene.pipeline.config import as_before, load_config, recorded_config
from deltascene.pipeline.errors import ConfigError, OutputError
from deltascene.pipeline.numerics.settle import settle
from deltascene.pipeline.runs.folder import RunFolder, read_run_yaml, write_run_yaml


@pytest.fixture
def begin(tmp_path):
    """`begin(config, name)`: OUT with the record of a run with this config, and the preset's name if there is one."""

    def write(config, name=None, lacking=()):
        key = {f"config.{each}": value for each, value in config.result_keys().items() if each not in lacking}
        record = {"config": config.model_dump(mode="json"), "key": key}
        for section, _, each in (name.partition(".") for name in lacking):
            del record["config"][section][each]
        write_run_yaml(RunFolder(tmp_path), record | ({} if name is None else {"preset": name}))
        return RunFolder(tmp_path)

    return write


def choose(folder, *overrides, **how):
    """The choice, once its keys are compared with the record as a run does it."""
    choice = choose_config(folder, overrides=overrides, **how)
    refuse_other(folder, {f"config.{name}": value for name, value in choice.config.result_keys().items()}, choice.typed)
    return choice


def refused(folder, *overrides, **how):
    with pytest.raises(OutputError) as caught:
        choose(folder, *overrides, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_a_run_it_is_balanced_and_nobody_chose_it(tmp_path):
    for folder in (RunFolder(tmp_path), None):
        choice = choose_config(folder, overrides=["source.stride=2"])
        assert choice.config == load_config("balanced", overrides=["source.stride=2"])
        assert (choice.preset, choice.chosen) == ("balanced", False)
    assert choose_config(None, "exact").chosen
    assert choose_config(None, overrides=["policy.every=4"]).chosen
    file = tmp_path / "mine.yaml"
    file.write_text("extends: fast\nchange.threshold: 9\n")
    choice = choose_config(None, file=file)
    assert (choice.preset, choice.chosen, choice.config.change.threshold) == ("fast", True, 9.0)


def test_what_is_not_given_is_as_the_run_was_begun(begin):
    config = load_config("fast", overrides=["change.threshold=10", "save.video=false"], values={"tasks": ("seg",)})
    folder = begin(config, "fast")
    size = Given("input.size", None, "--size None")
    assert choose(folder, options=[size]).config == config
    assert choose(folder, "change.threshold=10.0", preset="fast").config == config
    assert choose(folder).preset == "fast"
    assert choose(folder).chosen
    other = choose(folder, "run.workers=3", options=[Given("save.video", True, "--save")]).config  # affect the run only
    assert (other.run.workers, other.save.video) == (3, True)


def test_what_is_given_and_differs_is_refused_as_it_was_typed(begin, tmp_path):
    folder = begin(load_config("fast", overrides=["policy.every=2"], values={"tasks": ("seg", "depth")}), "fast")
    assert refused(folder, preset="balanced").startswith(f"--preset balanced: {tmp_path} was begun with fast; leave it")
    assert refused(folder, "policy.every=3").startswith(
        f"--set policy.every=3: {tmp_path} has 2; leave it out to go on"
    )
    assert f"{tmp_path} has 1; " in refused(folder, "source.stride=2")
    assert f"{tmp_path} has true; " in refused(folder, "policy.reuse=false")
    tasks = Given("tasks", ("seg",), "--tasks seg")
    assert refused(folder, options=[tasks]).startswith(f"--tasks seg: {tmp_path} has seg, depth; ")
    model = Given("model", "s3://me:secret@host/x", "--model s3://me:secret@host/x")
    assert refused(folder, options=[model]).startswith(f"--model s3://…@host/x: {tmp_path} has rooms; ")
    file = tmp_path / "mine.yaml"
    file.write_text("policy: {rolling: 0.02, every: 5}\n")
    assert refused(folder, file=file).startswith(f"--config {file}, policy.every: {tmp_path} has 2; ")
    file.write_text("extends: exact\n")
    assert refused(folder, file=file).startswith(f"--config {file}, extends exact: {tmp_path} was begun with fast; ")
    file.write_text("extends: fast\npolicy.rolling: 0.02\n")
    assert choose(folder, preset="exact", file=file).config.policy.every == 2  # as anew
    with pytest.raises(ConfigError, match="did you mean 'balanced'"):
        choose(folder, preset="balancd")


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("exact", {"reuse": False, "every": 2, "refresh": 12, "camera_every": 6}),
        ("balanced", {"reuse": True, "every": 4, "refresh": 12, "camera_every": 3}),  # --set policy.every=4
        ("fast", {"reuse": True, "every": 3, "refresh": 32, "camera_every": 6}),
    ],
)
def test_numbers_that_a_preset_had_then_stay(begin, name, numbers):
    """Also where neither the preset's name nor the newer keys were recorded."""
    config = recorded_config({"policy": numbers, "change.threshold": 9.0})
    folder = begin(config, lacking=[key for key in as_before() if key.startswith("policy.")])
    assert choose(folder, preset=name).config == choose(folder, "change.threshold=9").config == config
    assert choose(folder).preset == name
    folder = begin(config, "fast")
    assert choose(folder, preset="fast").config == config


def test_arithmetic_that_is_left_open_is_as_the_run_was_begun(begin):
    settled = ["numerics.dtype=bfloat16", "numerics.threads=3", "numerics.kernel=torch"]
    folder = begin(load_config(overrides=settled), "balanced")
    choice = choose(folder, "numerics.threads=null", options=[Given("numerics.dtype", "auto", "--dtype auto")])
    assert choice.config.numerics == load_config(overrides=settled).numerics
    given = Given("numerics.dtype", "float32", "--dtype float32")
    assert refused(folder, options=[given]).startswith("--dtype float32: ")


@pytest.mark.parametrize("config", [None, 3, {"policy": 3}, {"policy": {"evry": 2}}, {"model": 3}])
def test_a_damaged_record_is_refused(tmp_path, config):
    write_run_yaml(RunFolder(tmp_path), {} if config is None else {"config": config})
    with pytest.raises(OutputError, match=r"run\.yaml: expected the config of a run; .*--force"):
        choose_config(RunFolder(tmp_path))


@pytest.mark.parametrize(("version", "newer"), [(1, False), (None, False), ("x", False), (2, True), (10, True)])
def test_a_newer_schema_is_told_in_a_line(tmp_path, version, newer):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"schema_version": version}))
    folder = RunFolder(place(str(tmp_path)))
    if not newer:
        assert read_run_yaml(folder) == {"schema_version": version}
        return
    with pytest.raises(OutputError, match=rf"run\.yaml: was written by a newer deltascene: schema_version {version}, "):
        read_run_yaml(folder)


@pytest.fixture(scope="module")
def key_of(tiny, tmp_path_factory):
    """`key_of(old, new, before)`: key of the tiny model with a part of its `bundle.yaml` replaced."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    folder.mkdir()
    config = settle(load_config(overrides=["numerics.dtype=float32"], values={"model": str(folder)}))
    text = (read_bundle(tiny).folder / "bundle.yaml").read_text()
    for path in read_bundle(tiny).folder.glob("*.safetensors"):
        (folder / path.name).symlink_to(path)
    model = sketch_model(read_bundle(tiny), tuple(read_bundle(tiny).entry.tasks))

    def key(old="", new="", before=None):
        assert old in text
        (folder / "bundle.yaml").write_text(text.replace(old, new) if old else text)
        bundle = read_bundle(str(folder))
        key = result_key(config, replace(model, bundle=bundle), before)
        return key, archive_key(key, bundle, "input", "av")

    return key


def test_the_meaning_of_a_bundle_counts_not_its_text(key_of):
    plain = key_of()
    for old, new in (
        ("format: 1\n", "format: 1 # a comment\n\n"),
        ("name: tiny\nbackbone:", "evidence: {licence: MIT, share: .nan}\nname: other\nbackbone:"),
        ("kind: scalar, unit: m,", "unit: m, kind: scalar,"),
        ("args: {img_size: 64}", "weights: base.safetensors, args: {img_size: 64}"),
        ("input: {size: [48, 64]}", "input: {resize: stretch, size: [48, 64], mean: [0.485, 0.456, 0.406]}"),
    ):
        assert key_of(old, new) == plain, new
    for old, new in (("log: true", "log: false"), ("road, car", "car, road"), ("split: 4", "split: 3")):
        changed = key_of(old, new)
        assert [name for name in plain[0] if changed[0][name] != plain[0][name]] == ["weights.bundle"]
        assert changed[1] == plain[1]


def test_the_packaged_model_goes_on_with_keys_of_what_its_bytes_were():
    bundle = read_bundle("rooms")
    (of_bytes,) = _MEANING_OF_BYTES
    config = settle(load_config(overrides=["numerics.dtype=float32"]))
    key = result_key(config, sketch_model(bundle, ("seg",)), {"weights.bundle.yaml": of_bytes})
    assert key["weights.bundle.yaml"] == of_bytes


def test_a_store_whose_key_is_of_a_bundle_s_bytes_keeps_that_form(key_of):
    before = key_of(before={"weights.bundle.yaml": ""})
    assert "weights.bundle" not in before[0]
    assert key_of(before=before[0]) == before
    assert key_of("format: 1", "format: 1 ", before=before[0])[0] != before[0]
    assert before[1]["bundle.input"] != key_of()[1]["bundle.input"]
