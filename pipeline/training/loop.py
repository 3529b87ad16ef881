"""Parts of a training loop: the learning rate by step, checkpoints that make interruptions harmless, and the log."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from deltascene.cache.keys import first_difference
from deltascene.pipeline.errors import UsageError

_STATE = "optimiser."


def learning_rate(peak: float, step: int, steps: int) -> float:
    """Linear warm-up over a tenth of the steps, then cosine decay to 0."""
    share = step / steps
    return peak * min(share / 0.1, 0.5 + 0.5 * math.cos(math.pi * max(0.0, share - 0.1) / 0.9))


def save_checkpoint(
    path: Path,
    parameters: Mapping[str, nn.Parameter],
    optimiser: Optimizer,
    position: int,
    recipe: Mapping[str, Any],
    training: Mapping[str, Any],
) -> None:
    """Writes everything that the rest of a run depends on, completely or not at all.

    Args:
        path: safetensors file.
        parameters: being trained, by name, in the optimiser's order.
        optimiser: of these parameters.
        position: steps done.
        recipe: hyperparameters of the run; a run that continues from here must have the same.
        training: what is trained on what; likewise.
    """
    tensors = {name: parameter.detach() for name, parameter in parameters.items()}
    names = list(parameters)
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"{_STATE}{key}.{names[number]}": value for key, value in state.items()}
    partial = path.with_suffix(".part")
    metadata = {"position": str(position), "recipe": _text(recipe), "training": _text(training)}
    save_file({name: value.contiguous() for name, value in tensors.items()}, partial, metadata=metadata)
    partial.replace(path)


def load_checkpoint(
    path: Path,
    parameters: Mapping[str, nn.Parameter],
    optimiser: Optimizer,
    recipe: Mapping[str, Any],
    training: Mapping[str, Any],
) -> int:
    """Reads what `save_checkpoint` wrote into the same parameters and optimiser.

    Returns:
        The position; 0 where there is no checkpoint yet.

    Raises:
        UsageError: the checkpoint is of another recipe or another training; the first difference is named.
    """
    if not path.is_file():
        return 0
    metadata = refuse_other_recipe(path, recipe)
    found = json.loads(metadata["training"]) if "training" in metadata else training  # older ones lack it
    _refuse_difference(path, "training", found, training)
    tensors, state = load_file(path), dict[int, dict[str, Tensor]]()
    for number, (name, parameter) in enumerate(parameters.items()):
        parameter.data.copy_(tensors[name])
        kept = {key: tensors.get(f"{_STATE}{key}.{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
        state[number] = {key: value for key, value in kept.items() if value is not None}
    optimiser.load_state_dict({**optimiser.state_dict(), "state": {key: of for key, of in state.items() if of}})
    return int(metadata["position"])


def refuse_other_recipe(path: Path, recipe: Mapping[str, Any]) -> dict[str, str]:
    """Metadata of a checkpoint.

    Raises:
        UsageError: it is of another recipe; the first difference is named.
    """
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata()
    _refuse_difference(path, "recipe", json.loads(metadata["recipe"]), recipe)
    return metadata


def write_log(work: Path, event: Mapping[str, Any]) -> None:
    """Adds a line to `log.jsonl`."""
    line = json.dumps(event)
    with (work / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Events of a `log.jsonl`, without incomplete lines; of repeated steps after an interruption only the last."""
    events: dict[tuple[int, bool], dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        events[event["step"], "val" in event] = event
    return [events[key] for key in sorted(events)]


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(dict(values), sort_keys=True)


def _refuse_difference(path: Path, what: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    difference = first_difference(_without_empty_lists(expected), _without_empty_lists(found))
    if difference is not None:
        key, wanted, there = difference
        raise UsageError(
            f"{path}: a checkpoint of another {what}: {key}: expected {wanted}; found {there}; "
            "name another --out, or remove it"
        )


def _without_empty_lists(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that aren't empty lists: older checkpoints lack some of those."""
    return {key: value for key, value in values.items() if value != []}
