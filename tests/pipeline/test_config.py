"""The config: every key is declared, presets differ as stated, errors name the key and the nearest known one."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from deltascene import configs
from deltascene.pipeline.config import (
    flatten,
    key_effects,
    known_keys,
    load_config,
    presets,
    render_config,
)
from deltascene.pipeline.errors import ConfigError

CONFIGS = Path(configs.__file__).parent
DEFAULTS = flatten(yaml.safe_load((CONFIGS / "defaults.yaml").read_text()))
# Another valid value of every key; a new key needs one here.
OTHER = {
    "model": "other",
    "tasks": ["seg"],
    "input.size": [224, 308],
    "input.resize": "aspect",
    "policy.reuse": True,
    "policy.hold_identical": False,
    "policy.every": 3,
    "policy.max_age_s": 1.0,
    "policy.flow": "onward",
    "policy.rolling": 0.02,
    "policy.refresh": 16,
    "policy.refresh_s": 4.0,
    "policy.refresh_idle": False,
    "policy.camera_share": 0.4,
    "policy.camera_standing": 0.25,
    "policy.camera_from": "dense",
    "policy.camera_every": 8,
    "policy.camera_s": 0.6,
    "policy.camera_price": 0.03,
    "policy.cut_share": 0.7,
    "policy.light_step": 1.5,
    "change.threshold": 8.0,
    "change.cell_px": 7,
    "change.cut_threshold": 40.0,
    "change.ignore": [{"polygon": [[0.0, 0.0], [0.5, 0.0], [0.5, 0.2]], "source": "cam-*"}],
    "segment.frames": 64,
    "source.start_s": 1.5,
    "source.end_s": 9.0,
    "source.stride": 2,
    "source.fps": 12.5,
    "source.decoder": "opencv",
    "source.threads": 2,
    "source.timeout_s": 60.0,
    "numerics.dtype": None,
    "numerics.threads": 1,
    "numerics.split_dtype": "bfloat16",
    "numerics.kernel": "torch",
    "numerics.delta": "lowrank",
    "save.video": False,
    "save.png": True,
    "save.npz": True,
    "save.size": "frame",
    "archive.enabled": False,
    "archive.budget_gb": 2.5,
    "run.executor": "ray",
    "run.placement": "split",
    "run.workers": 3,
    "run.address": "127.0.0.1:6379",
    "run.silent_s": 60.0,
    "run.audit": 0.5,
    "run.audit_seed": 7,
    "run.audit_every": 5,
    "run.device": "cpu",
    "run.verify": "full",
}


def settings_of(config) -> dict:
    return flatten(config.model_dump(mode="json"))


def problem(*overrides: str, **options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=overrides, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_and_config_have_the_same_keys_and_each_says_what_it_affects():
    assert list(DEFAULTS) == known_keys()
    assert set(key_effects().values()) == {"result", "run"}
    assert set(OTHER) == set(DEFAULTS)


def test_presets_state_only_what_differs():
    assert presets() == ["balanced", "exact", "fast"]
    for name in presets():
        stated = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        extends = stated.pop("extends")
        config = settings_of(load_config(name))
        below = DEFAULTS if extends == "defaults" else settings_of(load_config(extends))
        assert {key: config[key] for key in config if config[key] != below[key]} == flatten(stated)


def test_exact_reuses_nothing_but_what_is_byte_identical():
    exact = load_config("exact")
    assert settings_of(exact) == DEFAULTS | {"policy.reuse": False}
    assert exact.policy.hold_identical


def test_balanced_goes_by_time_and_fast_computes_less_often():
    balanced, fast = load_config("balanced"), load_config("fast")
    assert load_config() == balanced
    assert (balanced.policy.every, balanced.policy.refresh, balanced.policy.camera_every) == (None, None, None)
    assert {key for key, value in settings_of(fast).items() if value != settings_of(balanced)[key]} == {
        "policy.max_age_s",
        "policy.camera_s",
        "policy.camera_price",
    }
    assert fast.policy.max_age_s > balanced.policy.max_age_s
    assert fast.policy.camera_price > balanced.policy.camera_price


@pytest.mark.parametrize("key", sorted(OTHER))
def test_result_keys_change_exactly_with_result_keys(key):
    if OTHER[key] is None:
        return  # has one value only, in this version
    before, after = load_config("exact"), load_config("exact", values={key: OTHER[key]})
    assert settings_of(after)[key] == OTHER[key] != settings_of(before)[key]
    expected = {key: OTHER[key]} if key_effects()[key] == "result" else {}
    found = after.result_keys()
    assert {each: found[each] for each in found if found[each] != before.result_keys()[each]} == expected


def test_a_config_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        load_config().model = "other"


def test_overrides_win_over_options_over_file_over_preset(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("segment:\n  frames: 8\nsource:\n  stride: 3\nmodel: mine\nsave:\n")
    config = load_config(file=file, overrides=["source.stride=4"], values={"model": "cli", "tasks": None})
    assert (config.segment.frames, config.source.stride, config.model) == (8, 4, "cli")
    assert config.tasks is None
    assert config.save == load_config().save


def test_a_file_may_use_dotted_keys_and_name_its_preset(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: exact\nsource.stride: 2\nsource: {start_s: 1}\n")
    config = load_config("no such preset is looked for", file)
    assert (config.source.stride, config.source.start_s) == (2, 1.0)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("sorce.stride=2", "config: unknown key 'sorce.stride'; did you mean 'source.stride'?"),
        ("modle=x", "config: unknown key 'modle'; did you mean 'model'?"),
        ("model.name=x", "config: unknown key 'model.name'"),
        ("source.stride=0", "config: source.stride: expected greater than or equal to 1; found 0"),
        ("source.stride=two", "config: source.stride: expected a valid integer; found 'two'"),
        ("source.stride=true", "config: source.stride: expected a valid integer; found True"),
        ("source.stride=[", "--set source.stride: not readable as YAML: line 1, column 2: expected the node content"),
        ("policy.every=0", "config: policy.every: expected greater than or equal to 1; found 0"),
        ("policy.light_step=1", "config: policy.light_step: expected greater than 1; found 1"),
        ("policy.camera_share=1.1", "config: policy.camera_share: expected less than or equal to 1; found 1.1"),
        ("policy.max_age_s=0", "config: policy.max_age_s: expected greater than 0; found 0"),
        ("change.treshold=3", "config: unknown key 'change.treshold'; did you mean 'change.threshold'?"),
        (
            "numerics.split_dtype=int8",
            "config: numerics.split_dtype: expected 'native', 'float32' or 'bfloat16'; found",
        ),
        ("source.fps=.inf", "config: source.fps: expected a finite number; found inf"),
        ("source.end_s=0", "config: source.end_s: expected greater than 0; found 0"),
        (
            "source=7",
            "config: source: expected a mapping with start_s, end_s, stride, fps, decoder, threads, timeout_s; found 7",
        ),
        ("tasks=seg", "config: tasks: expected a list; found 'seg'"),
        ("input.size=0", "config: input.size: expected a short side or [height, width] in pixels, 1 to 16384; found 0"),
        ("input.size=[1]", "config: input.size: expected a short side or [height, width] in pixels, 1 to 16384; found"),
        ("run.device=cuda", "config: run.device: expected 'auto' or 'cpu'; found 'cuda'"),
        ("source.stride", "--set: expected key=value; found 'source.stride'"),
    ],
)
def test_wrong_overrides_are_told_in_one_line(override, line):
    assert problem(override).startswith(line)


def test_times_run_forward():
    line = "config: source: end_s: expected more than start_s, 5; found 4"
    assert problem("source.start_s=5", "source.end_s=4") == line


def test_unknown_presets_are_named_with_the_nearest():
    names = ", ".join(presets())
    assert problem(preset="exat") == f"preset: expected one of {names}; found 'exat'; did you mean 'exact'?"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"- 1", "expected a mapping; found list"),
        (b"a: [", "not readable as YAML: line 1, column 5: "),
        (b"\xff", "not readable as YAML: not UTF-8 text"),
    ],
)
def test_files_that_arent_configs_are_told_in_one_line(tmp_path, content, line):
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    assert problem(file=file).startswith(f"config {file}: {line}")


@pytest.mark.parametrize("extends", ["nothing", "[1]", "../exact", "null", "7"])
def test_extends_names_a_preset(tmp_path, extends):
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: {extends}")
    assert problem(file=file).startswith("preset: expected one of ")


def test_a_missing_file_is_named(tmp_path):
    assert (
        problem(file=tmp_path / "no.yaml") == f"config {tmp_path / 'no.yaml'}: can't be read: No such file or directory"
    )


def test_what_is_shown_says_what_each_key_affects():
    lines = render_config(load_config(overrides=["input.size=[224, 308]"])).splitlines()
    assert lines[0].split("#")[0].strip() == "model: rooms"
    assert [line.split() for line in lines if line.split()[0] == "size:"] == [
        ["size:", "[224,", "308]", "#", "result"],
        ["size:", "model", "#", "result"],
    ]
    assert len({line.index("#") for line in lines if "#" in line}) == 1
    assert sum("#" in line for line in lines) == len(DEFAULTS)


@settings(max_examples=40, deadline=None)
@given(
    st.text(st.characters(max_codepoint=0x24F), min_size=1, max_size=30),
    st.none() | st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=3),
    st.floats(0, 1e9) | st.none(),
)
def test_what_is_shown_is_read_back(tmp_path_factory, model, tasks, start_s):
    config = load_config(values={"model": model, "tasks": tasks, "source.start_s": start_s})
    file = tmp_path_factory.mktemp("shown") / "config.yaml"
    file.write_text(render_config(config), encoding="utf-8", newline="")
    assert load_config(file=file) == config
