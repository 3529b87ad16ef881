"""Hyperparameters of a training: the package's YAML, overridden by the user's, overridden by single keys."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deltascene.pipeline.config import parse_override
from deltascene.pipeline.errors import ConfigError, nearest
from deltascene.pipeline.safe_yaml import read_mapping
from deltascene.pipeline.text import first_problem

RUN_ONLY = ("checkpoint_s", "judged", "judgements")


class Recipe(BaseModel):
    """Hyperparameters of a training run. All but `RUN_ONLY` determine the resulting weights.

    Attributes:
        passes: over all images in all their variants.
        variants: of every image (augment.py). They are the same in every pass, so that a frozen base's activations can
            be kept.
        steps: maximum number; 0 is the number of steps of all passes.
        batch: images of a step.
        keep_tokens: share of an image's patch tokens that a step uses, drawn anew each time; fewer are faster.
        learning_rate: peak learning rate of the backbone's own or delta weights.
        head_learning_rate: peak learning rate of the heads.
        layer_decay: factor of the learning rate from each block to the one before it.
        weight_decay: of AdamW, for matrices.
        rank: of the low-rank deltas.
        gate_penalty: penalty of an open hard-concrete gate, lambda_0; 0 trains without gates.
        auxiliary: sub-tasks whose heads are trained together with the base on the sum of the losses, so that the
            shared blocks keep the features that they need.
        seed: of everything random.
        checkpoint_s: seconds between checkpoints.
        judged: number of images of part `val` that are scored.
        judgements: how often they are scored, evenly spaced, the last time at the end.

    Source of `keep_tokens`: Liu et al., "PatchDropout", 2022; of `layer_decay`: Bao et al., "BEiT", 2021.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    passes: int = Field(default=1, ge=1)
    variants: int = Field(default=1, ge=1)
    steps: int = Field(default=0, ge=0)
    batch: int = Field(default=8, ge=1)
    keep_tokens: float = Field(default=1.0, gt=0, le=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    head_learning_rate: float = Field(default=1e-3, gt=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    weight_decay: float = Field(default=0.02, ge=0)
    rank: int = Field(default=16, ge=1)
    gate_penalty: float = Field(default=0.0, ge=0)
    auxiliary: tuple[str, ...] = Field(default=(), strict=False)
    seed: int = Field(default=0, ge=0)
    checkpoint_s: float = Field(default=180.0, ge=0)
    judged: int = Field(default=60, ge=0)
    judgements: int = Field(default=2, ge=1)

    def deciding(self) -> dict[str, Any]:
        """The hyperparameters that must be equal to continue from a checkpoint."""
        return self.model_dump(mode="json", exclude=set(RUN_ONLY))


def load_recipe(step: str, file: Path | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a step.

    Args:
        step: base, stl, frozen or subtask; selects the packaged recipe.
        file: a user's YAML, which overrides it.
        overrides: `key=value`, the value in YAML.

    Raises:
        ConfigError: an unknown key, or a value that doesn't fit.
    """
    data = dict(read_mapping(Path(str(resources.files("deltascene.configs"))) / "training" / f"{step}.yaml"))
    if file is not None:
        data |= _read(file)
    data |= dict(map(parse_override, overrides))
    return _validated(data)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        return read_mapping(file)
    except ValueError as error:
        raise ConfigError(f"recipe {file}: {error}") from error


def _validated(data: Mapping[str, Any]) -> Recipe:
    for key in data:
        if key not in Recipe.model_fields:
            raise ConfigError(f"recipe: unknown key {key!r}{nearest(str(key), Recipe.model_fields)}")
    try:
        return Recipe.model_validate({key: _number(key, value) for key, value in data.items()})
    except ValidationError as error:
        raise ConfigError(f"recipe: {first_problem(error, Recipe)}") from error


def _number(key: str, value: Any) -> Any:
    """A number written as `1e-4`, which YAML reads as a string."""
    if Recipe.model_fields[key].annotation is not float or not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value
