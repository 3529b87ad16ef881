"""A ladder of presets: the same policy, looser from step to step, each cheaper than the one before.

What is scaled is how long outputs stand for (`policy.max_age_s`) and, by the same factor, the price of a moving
camera's dense frame (`policy.camera_price`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log

from deltascene.pipeline.config import Config
from deltascene.pipeline.errors import UsageError

SCALES = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
KEYS = ("policy.max_age_s", "policy.camera_price")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a ladder: the preset with its numbers scaled."""

    scale: float
    config: Config


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
    return [Step(scale, scaled(base, scale)) for scale in sorted(by_frames.values())]


def scaled(base: Config, scale: float) -> Config:
    """The config of a step."""
    price = base.policy.camera_price
    update = {
        "max_age_s": scale * base.policy.max_age_s,
        "camera_price": None if price is None else scale * price,
    }
    return base.model_copy(update={"policy": base.policy.model_copy(update=update)})


def falling(steps: Sequence[Step], costs: Sequence[float]) -> list[Step]:
    """The steps that cost less than every stricter one; on a clip where nothing moves all but the first may not."""
    return [step for at, step in enumerate(steps) if all(costs[at] < before for before in costs[:at])]
