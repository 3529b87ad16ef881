"""What a pilot is to reach, as `deltascene run --max-drift`, `--max-ms` and `--target-fps` take it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from deltascene.pipeline.runs.pilot_record import MEAN as MEAN

Bounds = Mapping[str, float]
"""Largest excess drift in the moving region by task, or of the tasks' mean under `MEAN`; 0.05 is five percent."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Bounds on drift, to be kept with the least compute, or on time, in which as much as possible is computed.

    It is false where there is neither. There aren't both.

    Attributes:
        max_drift: bounds on drift.
        max_ms: largest mean time of computing a frame, in milliseconds.
    """

    max_drift: Bounds = field(default_factory=dict)
    max_ms: float | None = None

    def __bool__(self) -> bool:
        return bool(self.max_drift) or self.max_ms is not None

    def __str__(self) -> str:
        """As it is typed."""
        return f"--max-drift {bounds_text(self.max_drift)}" if self.max_ms is None else f"--max-ms {self.max_ms:g}"

    def record(self) -> dict[str, Any]:
        """As plain values, for run.yaml."""
        return {"max_drift": dict(self.max_drift)} if self.max_ms is None else {"max_ms": self.max_ms}

    @classmethod
    def recorded(cls, pilot: Mapping[str, Any]) -> "Goal":
        """The goal of a pilot's record; a false one if it is empty."""
        return cls(pilot.get("max_drift", {}), pilot.get("max_ms"))


def bounds_text(bounds: Bounds, *, up: bool = False) -> str:
    """Bounds as they are typed; rounded up to a tenth of a percent if `up`."""
    texts = {of: f"{ceil(1000 * most) / 10 if up else round(100 * most, 6):g}%" for of, most in bounds.items()}
    return ",".join(text if of == MEAN else f"{of}={text}" for of, text in texts.items())
