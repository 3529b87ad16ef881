"""The resolved config of a run: presets, files with `extends`, dotted overrides; one frozen, typed object.

Every key says whether it changes the results or only how a run goes; only result keys enter fingerprints.
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deltascene.pipeline.errors import ConfigError, nearest


def _result(**rules: Any) -> Any:
    return Field(json_schema_extra={"affects": "result"}, **rules)


def _run_only(**rules: Any) -> Any:
    return Field(json_schema_extra={"affects": "run"}, **rules)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputConfig(_Section):
    """Size of the model's input."""

    size: int | tuple[int, int] | None = _result()


class PolicyConfig(_Section):
    """What may be reused."""

    hold_identical: bool = _result()


class SegmentConfig(_Section):
    """The unit of work."""

    frames: int = _result(ge=1, le=65536)


class SourceConfig(_Section):
    """Which frames are processed, and by which decoder."""

    start_s: float | None = _result(ge=0)
    end_s: float | None = _result(gt=0)
    stride: int = _result(ge=1)
    fps: float | None = _result(gt=0)
    decoder: Literal["auto", "decord", "opencv"] = _result()


class NumericsConfig(_Section):
    """Arithmetic."""

    dtype: Literal["float32"] = _result()
    threads: int | None = _result(ge=1)


class SaveConfig(_Section):
    """What a run writes."""

    video: bool = _run_only()
    png: bool = _run_only()
    npz: bool = _run_only()
    size: Literal["model", "frame"] = _result()


class RunConfig(_Section):
    """How a run goes."""

    device: Literal["auto", "cpu"] = _run_only()
    verify: Literal["quick", "full"] = _run_only()


class Config(_Section):
    """Everything that a run depends on, beside its inputs."""

    model: str = _result()
    tasks: tuple[str, ...] | None = _result()
    input: InputConfig
    policy: PolicyConfig
    segment: SegmentConfig
    source: SourceConfig
    numerics: NumericsConfig
    save: SaveConfig
    run: RunConfig

    def result_keys(self) -> dict[str, Any]:
        """The keys that change results, dotted, for fingerprints."""
        return {key: value for key, value in flatten(self.model_dump(mode="json")).items() if _affects(key) == "result"}


def presets() -> list[str]:
    """Names of the packaged presets."""
    root = Path(str(resources.files("deltascene.configs")))
    return sorted(path.stem for path in root.glob("*.yaml") if path.stem != "defaults")


def load_config(
    preset: str = "exact",
    file: Path | None = None,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
) -> Config:
    """Resolves a config.

    Args:
        preset: name of a packaged preset.
        file: a user's YAML on top of it; its own `extends` replaces the preset.
        overrides: `dotted.key=value`, the value in YAML.
        values: dotted keys from options of the command line; None values are left out.

    Raises:
        ConfigError: an unknown preset, key or value; the text names the nearest known one.
    """
    data = _read_user_file(file, preset) if file is not None else _read_preset(preset)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set: expected key=value; found {text!r}")
        _assign(data, key.strip(), _parse(value, f"--set {key}"))
    for key, value in (values or {}).items():
        if value is not None:
            _assign(data, key, value)
    return _validate(data)


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def known_keys() -> list[str]:
    """Every dotted key that a config has."""
    return list(flatten(_read_preset("defaults")))


def _validate(data: dict[str, Any]) -> Config:
    known = known_keys()
    for key in flatten(data):
        if key not in known:
            raise ConfigError(f"config: unknown key {key!r}{nearest(key, known)}")
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(f"config: {where}: {problem['msg']}; found {problem.get('input')!r}") from error


def _read_preset(name: str) -> dict[str, Any]:
    if name not in (known := [*presets(), "defaults"]):
        raise ConfigError(f"preset: expected one of {', '.join(presets())}; found {name!r}{nearest(name, known)}")
    text = (resources.files("deltascene.configs") / f"{name}.yaml").read_text(encoding="utf-8")
    return _extended(_parse(text, f"{name}.yaml"), name)


def _read_user_file(file: Path, preset: str) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {file}: can't be read: {error}") from error
    data = _parse(text, str(file))
    if not isinstance(data, dict):
        raise ConfigError(f"config {file}: expected a mapping; found {type(data).__name__}")
    return _extended({"extends": preset, **data}, str(file))


def _extended(data: dict[str, Any], where: str) -> dict[str, Any]:
    data = dict(data)
    parent = data.pop("extends", None)
    if parent is None:
        return data
    if parent == where:
        raise ConfigError(f"config {where}: extends itself")
    return _merged(_read_preset(parent), data)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    out = dict(below)
    for key, value in above.items():
        out[key] = _merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def _assign(data: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        inner = data.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"config: unknown key {key!r}{nearest(key, known_keys())}")
        data = inner
    data[last] = value


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{where}: not readable as YAML: {' '.join(str(error).split())[:160]}") from error


def _affects(key: str) -> str:
    model: type[BaseModel] = Config
    *path, last = key.split(".")
    for part in path:
        model = model.model_fields[part].annotation  # type: ignore[assignment]
    extra = model.model_fields[last].json_schema_extra
    assert isinstance(extra, dict), key
    return str(extra["affects"])
