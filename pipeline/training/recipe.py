"""Numbers of a training: YAML of the package, of the user on top of it, single keys last."""

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
    """Numbers of a training run. All but `RUN_ONLY` decide what weights come out.

    Attributes:
        passes: over all images in all their variants.
        variants: of every image (augment.py). They are the same in every pass and for every step, so that a frozen
            base's activations can be kept.
        steps: at most so many; 0 is what the passes come to.
        batch: images of a step.
        keep_tokens: share of an image's patch tokens that a step takes, drawn anew each time; less is faster.
        learning_rate: of the backbone's own or delta weights, at its peak.
        head_learning_rate: of the head.
        layer_decay: factor of the learning rate from each block to the one before it.
        weight_decay: of AdamW, on matrices.
        rank: of the low-rank deltas.
        gate_penalty: of an open hard-concrete gate, lambda_0; 0 trains without gates.
        auxiliary: sub-tasks whose heads are trained along with the base, the losses added up, so that the blocks that
            they will share keep what they need.
        seed: of everything random.
        checkpoint_s: seconds between checkpoints.
        judged: images of part `val` that are scored.
        judgements: how often, evenly spread, the last at the end.

    Source of dropping tokens: Liu et al., "PatchDropout", 2022; of `layer_decay`: Bao et al., "BEiT", 2021.
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
        """The numbers that a run must share to go on from a checkpoint."""
        return self.model_dump(mode="json", exclude=set(RUN_ONLY))


def load_recipe(step: str, file: Path | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a step.

    Args:
        step: base, stl, frozen or subtask: which of the packaged ones it starts from.
        file: a user's YAML on top.
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
    """`1e-4` as people write it: to YAML it is a text, for want of a point."""
    if Recipe.model_fields[key].annotation is not float or not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value
