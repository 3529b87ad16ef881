"""Bounds on drift, as `deltascene run --max-drift` takes them."""

from collections.abc import Mapping
from math import ceil

from deltascene.pipeline.runs.pilot_record import MEAN as MEAN

Bounds = Mapping[str, float]
"""Largest excess drift in the moving region by task, or of the tasks' mean under `MEAN`; 0.05 is five percent."""


def bounds_text(bounds: Bounds, *, up: bool = False) -> str:
    """Bounds as they are typed; rounded up to a tenth of a percent if `up`."""
    texts = {of: f"{ceil(1000 * most) / 10 if up else round(100 * most, 6):g}%" for of, most in bounds.items()}
    return ",".join(text if of == MEAN else f"{of}={text}" for of, text in texts.items())
