"""The config of a run: what its user gave, and for the rest what an earlier run in the same folder was begun with.

Without an earlier run, the rest is a preset's. A store goes on with its own numbers, whatever the preset is today.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deltascene.cache.keys import shortened
from deltascene.pipeline.config import (
    DEFAULT_PRESET,
    Config,
    flatten,
    load_config,
    parse_override,
    read_user_file,
    recorded_config,
)
from deltascene.pipeline.errors import ConfigError, OutputError
from deltascene.pipeline.runs.folder import RunFolder, read_run_yaml

WAY_OUT = "leave it out to go on, choose another -o, or --force to replace what is there"

# The presets that reuse, of the version that didn't record a preset's name, by the keys in which they differ.
_UNNAMED: Mapping[str, Mapping[str, Any]] = {
    "balanced": {"policy.every": 2, "policy.refresh": 12, "policy.camera_every": 3},
    "fast": {"policy.every": 3, "policy.refresh": 32, "policy.camera_every": 6},
}


@dataclass(frozen=True, slots=True)
class Given:
    """A key of the config that has an option of its own.

    Attributes:
        key: dotted key.
        value: its value; None where the option wasn't given.
        typed: the option as its user typed it.
    """

    key: str
    value: Any
    typed: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The config of a run, and who chose it.

    Attributes:
        config: the resolved config.
        preset: name of the preset that it is based on.
        chosen: whether the user chose a preset, or some of what it decides, or an earlier run did.
        typed: what the user typed, by the dotted key that it gives a value.
        pilot: record of the pilot that chose some of its numbers; empty where there was none.
    """

    config: Config
    preset: str
    chosen: bool = True
    typed: Mapping[str, str] = field(default_factory=dict)
    pilot: Mapping[str, Any] = field(default_factory=dict)


def choose_config(
    folder: RunFolder | None,
    preset: str | None = None,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    options: Sequence[Given] = (),
) -> Choice:
    """Resolves the config of a run.

    Args:
        folder: where an earlier run may have begun; None begins afresh.
        preset: name of the preset asked for, if any.
        file: a user's YAML, as of `load_config`.
        overrides: `dotted.key=value`, as of `load_config`.
        options: keys that have options of their own.

    Raises:
        ConfigError: an unknown preset, key or value.
        OutputError: the earlier run was begun with another preset, or its record is damaged.
    """
    values = {each.key: each.value for each in options if each.value is not None}
    stated = flatten(read_user_file(file)) if file is not None else {}
    extends = stated.pop("extends", None)
    typed = {key: f"--config {file}, {key}" for key in stated}
    typed |= {parse_override(text)[0]: f"--set {text}" for text in overrides}
    typed |= {each.key: each.typed for each in options if each.value is not None}
    asked = preset if extends is None else extends
    if folder is None or not folder.run_yaml.is_file():
        chosen = asked is not None or any(key.startswith("policy.") for key in typed)
        return Choice(load_config(preset, file, overrides, values), asked or DEFAULT_PRESET, chosen, typed)
    name, begun = _begun_with(folder)
    if asked not in (None, name):
        load_config(asked)  # unknown ones are refused as such
        said = f"--preset {asked}" if extends is None else f"--config {file}, extends {extends}"
        raise OutputError(f"{said}: {folder.root} was begun with {shortened(name)}; {WAY_OUT}")
    config = load_config(None, file, overrides, values, begun=begun)
    return Choice(_closed(config, begun), name, True, typed)


def _begun_with(folder: RunFolder) -> tuple[str, Config]:
    """Preset and config that the run in a folder was begun with."""
    record = read_run_yaml(folder)
    try:
        recorded = record["config"]
        config = recorded_config(recorded if isinstance(recorded, dict) else {"config": recorded})
    except (KeyError, ConfigError) as error:
        raise OutputError(
            f"{folder.run_yaml}: expected the config of a run; {error}; choose another -o, or --force to replace it"
        ) from error
    name = record.get("preset")
    return name if isinstance(name, str) else _unnamed(config), config


def _unnamed(config: Config) -> str:
    """The preset of an earlier version that a config is most like."""
    if not config.policy.reuse:
        return "exact"
    found = flatten(config.model_dump())
    return max(_UNNAMED, key=lambda name: sum(found[key] == value for key, value in _UNNAMED[name].items()))


def _closed(config: Config, begun: Config) -> Config:
    """The config with numerics that it leaves open (None or `auto`) as the run was begun with them.

    Otherwise they could differ because a measurement came out differently, or because the run computes on another
    machine.
    """
    before = begun.numerics.model_dump()
    open_ = {name: before[name] for name, value in config.numerics.model_dump().items() if value in (None, "auto")}
    return config.model_copy(update={"numerics": config.numerics.model_copy(update=open_)})
