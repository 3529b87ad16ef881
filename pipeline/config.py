"""The resolved config of a run: presets, files with `extends`, dotted overrides; one frozen, typed object.

Every key is marked as changing the results or only how a run goes; only result keys enter fingerprints.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from deltascene.pipeline.errors import ConfigError, nearest
from deltascene.pipeline.safe_yaml import parse_yaml, read_mapping, render_yaml
from deltascene.pipeline.text import first_problem, shown

DEFAULT_PRESET = "balanced"
LONGEST_TIMEOUT_S = 86400
_LARGEST_SIDE = 16384


def _result(**rules: Any) -> Any:
    """A key that changes results. One with a `default` is newer than some stores, which go on with that value."""
    return Field(json_schema_extra={"affects": "result"}, **rules)


def _run_only(**rules: Any) -> Any:
    return Field(json_schema_extra={"affects": "run"}, **rules)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class InputConfig(_Section):
    """Size of the model's input, and how frames of another shape are resized to it."""

    size: int | tuple[int, int] | None = _result()
    resize: Literal["stretch", "letterbox", "aspect"] | None = _result(default=None)

    @field_validator("size", mode="before")
    @classmethod
    def _in_pixels(cls, value: object) -> object:
        sides = value if isinstance(value, list | tuple) and len(value) == 2 else [value]
        if value is not None and not all(type(side) is int and 1 <= side <= _LARGEST_SIDE for side in sides):
            raise ValueError(f"expected a short side or [height, width] in pixels, 1 to {_LARGEST_SIDE}")
        return tuple(sides) if isinstance(value, list) else value


class PolicyConfig(_Section):
    """What may be reused, and how often everything is computed; `stages.policy.Rules` documents each number."""

    reuse: bool = _result()
    hold_identical: bool = _result()
    every: int | None = _result(ge=1, le=1000)
    max_age_s: float = _result(gt=0)
    flow: Literal["afresh", "onward"] = _result(default="afresh")
    rolling: float = _result(default=0.0, ge=0, le=1)
    refresh: int | None = _result(ge=1, le=100_000)
    refresh_s: float = _result(gt=0)
    refresh_idle: bool = _result(default=True)
    camera_share: float = _result(ge=0, le=1)
    camera_standing: float = _result(ge=0, le=1)
    camera_from: Literal["computed", "dense"] = _result(default="computed")
    camera_every: int | None = _result(ge=1, le=1000)
    camera_s: float | None = _result(default=None, gt=0)
    camera_price: float | None = _result(default=None, gt=0)
    cut_share: float = _result(ge=0, le=1)
    light_step: float = _result(gt=1)


class Zone(_Section):
    """A part of the picture whose changes are ignored.

    Attributes:
        polygon: corners x, y from 0 to 1, or in pixels of the frame if one of the numbers is over 1.
        source: id of the source that it is for, or a glob; None is every source.
    """

    polygon: tuple[tuple[float, float], ...]
    source: str | None = Field(default=None, min_length=1)

    @field_validator("polygon", mode="before")
    @classmethod
    def _corners(cls, value: object) -> object:
        corners = value if isinstance(value, list | tuple) else []
        pairs = [tuple(corner) for corner in corners if isinstance(corner, list | tuple) and len(corner) == 2]
        sides = [side for pair in pairs for side in pair if type(side) in (int, float) and 0 <= side <= _LARGEST_SIDE]
        if len(corners) < 3 or len(sides) != 2 * len(corners):
            raise ValueError(f"expected three corners [x, y] or more, none below 0; found {shown(value)}")
        return tuple((float(x), float(y)) for x, y in pairs)


class ChangeConfig(_Section):
    """Which patches count as moved."""

    threshold: float = _result(ge=0, le=255)
    cell_px: int = _result(ge=1, le=256)
    cut_threshold: float = _result(ge=0, le=255)
    ignore: tuple[Zone, ...] | None = _result(default=None)

    @field_validator("ignore", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return (tuple(value) or None) if isinstance(value, list | tuple) else value

    def ignored_in(self, source: str) -> list[tuple[tuple[float, float], ...]]:
        """Polygons that are ignored in a source."""
        return [
            zone.polygon
            for zone in self.ignore or ()
            if zone.source in (None, source) or fnmatchcase(source, zone.source)
        ]


class SegmentConfig(_Section):
    """Segments, which are computed on their own."""

    frames: int = _result(ge=1, le=65536)


class SourceConfig(_Section):
    """Which frames are processed, and by which decoder."""

    start_s: float | None = _result(ge=0)
    end_s: float | None = _result(gt=0)
    stride: int = _result(ge=1, le=1_000_000)
    fps: float | None = _result(gt=0)
    decoder: Literal["auto", "av", "decord", "opencv"] = _result()
    threads: int = _run_only(ge=1, le=64)
    timeout_s: float = _run_only(gt=0, le=LONGEST_TIMEOUT_S)

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.end_s is not None and self.end_s <= (self.start_s or 0):
            raise ValueError(f"end_s: expected more than start_s, {self.start_s or 0:g}; found {self.end_s:g}")
        return self


class NumericsConfig(_Section):
    """Arithmetic."""

    dtype: Literal["auto", "float32", "bfloat16"] = _result()
    threads: int | None = _result(ge=1, le=1024)
    split_dtype: Literal["native", "float32", "bfloat16"] = _result()
    kernel: Literal["auto", "torch", "compiled"] = _run_only()
    delta: Literal["merged", "lowrank"] = _result()


class SaveConfig(_Section):
    """What a run writes."""

    video: bool = _run_only()
    png: bool = _run_only()
    npz: bool = _run_only()
    size: Literal["model", "frame"] = _result()


class ArchiveConfig(_Section):
    """The archive of the base's activations."""

    enabled: bool = _run_only()
    budget_gb: float | None = _run_only(ge=0)


class RunConfig(_Section):
    """How a run goes."""

    executor: Literal["auto", "local", "ray"] = _run_only()
    placement: Literal["fused", "split"] = _run_only()
    workers: int | None = _run_only(ge=1, le=10_000)
    address: str | None = _run_only(min_length=1)
    silent_s: float = _run_only(gt=0, le=86400)
    audit: Literal["auto", "off"] | float = _run_only(default="auto")
    audit_seed: int = _run_only(default=0)
    audit_every: int | None = _run_only(ge=1)
    device: Literal["auto", "cpu"] = _run_only()
    verify: Literal["quick", "full"] = _run_only()

    @field_validator("audit", mode="before")
    @classmethod
    def _as_typed(cls, value: object) -> object:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is False:  # YAML's `off`
            return "off"
        if value not in ("auto", "off") and not (number and 0 < value <= 1000):  # type: ignore[operator]
            raise ValueError("expected auto, off, or a share of the run's compute, above 0")
        return float(value) if number else value  # type: ignore[arg-type]

    @model_validator(mode="after")
    def _one_way_to_draw(self) -> Self:
        if self.audit_every is not None and isinstance(self.audit, float):
            raise ValueError(f"audit: expected auto or off beside audit_every; found {self.audit:g}")
        return self

    @property
    def cluster(self) -> str | None:
        """Address of the Ray cluster to join: `address`, or Ray's variable RAY_ADDRESS; None starts a cluster."""
        return self.address or os.environ.get("RAY_ADDRESS") or None


class Config(_Section):
    """Everything that a run depends on, besides its inputs."""

    model: str = _result(min_length=1)
    tasks: tuple[str, ...] | None = _result()
    input: InputConfig
    policy: PolicyConfig
    change: ChangeConfig
    segment: SegmentConfig
    source: SourceConfig
    numerics: NumericsConfig
    save: SaveConfig
    archive: ArchiveConfig
    run: RunConfig

    @field_validator("tasks", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    def result_keys(self) -> dict[str, Any]:
        """Dotted keys that change results, with their values, for fingerprints."""
        effects = key_effects()
        return {key: value for key, value in flatten(self.model_dump(mode="json")).items() if effects[key] == "result"}


def presets() -> list[str]:
    """Names of the packaged presets."""
    root = Path(str(resources.files("deltascene.configs")))
    return sorted(path.stem for path in root.glob("*.yaml") if path.stem != "defaults")


def load_config(
    preset: str | None = None,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    *,
    begun: Config | None = None,
) -> Config:
    """Resolves a config.

    Args:
        preset: name of a packaged preset; None is `DEFAULT_PRESET`.
        file: a user's YAML, whose values replace the preset's; its key `extends` names another preset.
        overrides: `dotted.key=value`, the value in YAML.
        values: dotted keys from options of the command line; None values are left out.
        begun: the config of a run that goes on, which takes the place of any preset.

    Raises:
        ConfigError: an unknown preset, key or value; the text names the nearest known one.
    """
    above = read_user_file(file) if file is not None else {}
    name = above.pop("extends", preset or DEFAULT_PRESET)
    data = _merged(_read_preset(name) if begun is None else begun.model_dump(mode="json"), above)
    for text in overrides:
        _assign(data, *parse_override(text))
    for key, value in (values or {}).items():
        if value is not None:
            _assign(data, key, value)
    return _validate(data)


def recorded_config(recorded: Mapping[str, Any]) -> Config:
    """The config that a run recorded; a key that its version lacked has the value under which that one behaved.

    Raises:
        ConfigError: it isn't a config of this version or an earlier one.
    """
    data = _read_preset("defaults")
    for key, value in {**as_before(), **flatten(recorded)}.items():
        _assign(data, key, value)
    return _validate(data)


def in_full(config: Config) -> Config:
    """A config of dense prediction of every frame, with all else as it is."""
    return config.model_copy(update={"policy": config.policy.model_copy(update={"reuse": False})})


def render_config(config: Config) -> str:
    """A config as YAML that `--config` can read; a comment at every key says what it affects."""
    lines = list(_lines(config.model_dump(mode="json"), key_effects()))
    width = max(len(text) for text, _ in lines) + 2
    return "".join(f"{text:<{width}}# {effect}\n" if effect else f"{text}\n" for text, effect in lines)


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
    """All dotted keys of a config."""
    return list(key_effects())


def key_effects(section: type[BaseModel] = Config, prefix: str = "") -> dict[str, str]:
    """What every dotted key affects: the `result`, or only the `run`."""
    effects: dict[str, str] = {}
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            effects |= key_effects(inner, f"{prefix}{name}.")
        else:
            assert isinstance(field.json_schema_extra, dict), name
            effects[f"{prefix}{name}"] = str(field.json_schema_extra["affects"])
    return effects


def as_before() -> dict[str, Any]:
    """Dotted keys that earlier versions lacked, with the values under which those behaved: the defaults in the code."""
    return dict(_defaults(Config))


def _defaults(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _defaults(inner, f"{prefix}{name}.")
        elif not field.is_required():
            yield f"{prefix}{name}", field.default


def _validate(data: dict[str, Any]) -> Config:
    known = known_keys()
    for key, value in flatten(data).items():
        if key not in known:
            raise ConfigError(f"config: {_unknown(key, value, known)}")
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"config: {first_problem(error, Config)}") from error


def _unknown(key: str, value: object, known: Iterable[str]) -> str:
    inside = [each.removeprefix(f"{key}.") for each in known if each.startswith(f"{key}.")]
    if inside:
        return f"{key}: expected a mapping with {', '.join(inside)}; found {shown(value)}"
    return f"unknown key {shown(key)}{nearest(key, known)}"


def _read_preset(name: object) -> dict[str, Any]:
    known = presets()
    if not isinstance(name, str) or name not in (*known, "defaults"):
        hint = nearest(name, known) if isinstance(name, str) else ""
        raise ConfigError(f"preset: expected one of {', '.join(known)}; found {shown(name)}{hint}")
    path = Path(str(resources.files("deltascene.configs"))) / f"{name}.yaml"
    data = read_mapping(path)
    return _merged(_read_preset(data.pop("extends")), data) if "extends" in data else data


def read_user_file(file: Path) -> dict[str, Any]:
    """Content of a user's YAML file, its dotted keys as sections; the preset that it names is the key `extends`.

    Raises:
        ConfigError: it can't be read.
    """
    try:
        data = read_mapping(file)
    except ValueError as error:
        raise ConfigError(f"config {file}: {error}") from error
    nested: dict[str, Any] = {}
    for key, value in flatten(data).items():
        _assign(nested, key, value)
    return nested


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(below)
    for key, value in above.items():
        if not isinstance(out.get(key), dict):
            out[key] = value
        elif value is not None:  # a section whose keys are all commented out changes nothing
            out[key] = _merged(out[key], value) if isinstance(value, dict) else value
    return out


def _assign(data: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        inner = data.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"config: unknown key {shown(key)}{nearest(key, known_keys())}")
        data = inner
    data[last] = value


def parse_override(text: str) -> tuple[str, Any]:
    """Key and value of `--set key=value`, the value in YAML.

    Raises:
        ConfigError: the text has no `=`, or its value isn't YAML.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise ConfigError(f"--set: expected key=value; found {text!r}")
    try:
        return key, parse_yaml(value)
    except ValueError as error:
        raise ConfigError(f"--set {key}: {error}") from error


def _lines(data: Mapping[str, Any], effects: Mapping[str, str], path: str = "") -> Iterator[tuple[str, str]]:
    indent = "  " * path.count(".")
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}:", ""
            yield from _lines(value, effects, f"{path}{key}.")
        else:
            text = render_yaml([value], inline=True).strip()[1:-1]
            yield f"{indent}{key}: {text}", effects[f"{path}{key}"]
