"""A ladder of presets: the same policy, looser from step to step, each cheaper than the one before.

What is scaled is how long outputs stand for (`policy.max_age_s`) and, by the same factor, the price of a moving
camera's dense frame (`policy.camera_price`). Below the step at which rows run on every frame, smaller changes count as
moved and more of the stalest tokens join instead, as nothing can be younger.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log
from typing import Any

from deltascene.pipeline.config import Config, flatten
from deltascene.pipeline.errors import UsageError

SCALES = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
STRICTER = (0.25, 0.5)  # of the least scale
KEYS = ("policy.max_age_s", "policy.camera_price", "policy.rolling", "change.threshold")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a ladder: the preset with its numbers scaled."""

    scale: float
    config: Config

    @property
    def numbers(self) -> dict[str, Any]:
        """Its values of `KEYS`."""
        values = flatten(self.config.model_dump())
        return {key: values[key] for key in KEYS}


def ladder(base: Config, fps: float) -> list[Step]:
    """The steps of a preset, the strictest first.

    Of steps under which rows run on every n-th frame of one n, the one next to the preset's own numbers stands.

    Args:
        base: config with a preset that reuses.
        fps: processed frames per second.

    Raises:
        UsageError: rows don't go by time, or never run.
    """
    policy = base.policy
    if not policy.reuse or policy.every is not None:
        found = "policy.reuse: false" if not policy.reuse else f"policy.every: {policy.every}"
        raise UsageError(f"preset: expected one whose rows go by policy.max_age_s, such as balanced; found {found}")
    by_frames: dict[int, float] = {}
    for scale in sorted(SCALES, key=lambda scale: abs(log(scale))):
        by_frames.setdefault(ceil(scale * policy.max_age_s * fps - 1e-6), scale)
    scales = sorted(by_frames.values())
    strict = [_step(base, part * scales[0], scales[0]) for part in STRICTER]
    return [*strict, *(_step(base, scale, scale) for scale in scales)]


def with_numbers(config: Config, numbers: Mapping[str, Any]) -> Config:
    """A config with a step's values of `KEYS`."""
    policy = {key.removeprefix("policy."): numbers[key] for key in KEYS if key.startswith("policy.")}
    change = config.change.model_copy(update={"threshold": numbers["change.threshold"]})
    return config.model_copy(update={"policy": config.policy.model_copy(update=policy), "change": change})


def falling(steps: Sequence[Step], costs: Sequence[float]) -> list[Step]:
    """The steps that cost less than every stricter one; on a clip where nothing moves all but the first may not."""
    return [step for at, step in enumerate(steps) if all(costs[at] < before for before in costs[:at])]


def _step(base: Config, scale: float, age: float) -> Step:
    """A step whose ages are scaled by `age`, not below `scale`; the threshold takes the rest of it."""
    price, rest = base.policy.camera_price, scale / age
    numbers = {
        "policy.max_age_s": age * base.policy.max_age_s,
        "policy.camera_price": None if price is None else scale * price,
        "policy.rolling": min(1.0, base.policy.rolling / rest**2),
        "change.threshold": base.change.threshold * rest,
    }
    return Step(scale, with_numbers(base, numbers))
