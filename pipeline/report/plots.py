"""SVG path data of the report's plots, in a box one unit wide per point and 100 units high, and places in per cent."""

from collections.abc import Sequence
from typing import Any

HEIGHT = 100.0


def stacked_paths(layers: Sequence[Sequence[float]], top: float) -> list[str]:
    """Closed step shapes of layers stacked on each other.

    Args:
        layers: [layers, points], none below 0.
        top: value at the upper edge.
    """
    if not layers or not layers[0]:
        return ["" for _ in layers]
    lower, paths = [0.0] * len(layers[0]), []
    for layer in layers:
        upper = [below + value for below, value in zip(lower, layer, strict=True)]
        back = "".join(f"V{_y(value, top)}H{place}" for place, value in reversed(list(enumerate(lower))))
        paths.append(f"M0 {_y(upper[0], top)}{_steps(upper, top)}{back}Z" if any(layer) else "")
        lower = upper
    return paths


def step_line(values: Sequence[float], top: float) -> str:
    """A step line, left to right."""
    return f"M0 {_y(values[0], top)}{_steps(values, top)}" if values else ""


def runs(values: Sequence[Any]) -> list[tuple[int, int, Any]]:
    """Runs of equal values as (start, length, value)."""
    found: list[tuple[int, int, Any]] = []
    for place, value in enumerate(values):
        if found and found[-1][2] == value:
            start, length, _ = found[-1]
            found[-1] = (start, length + 1, value)
        else:
            found.append((place, 1, value))
    return found


def percent(value: float, top: float, *, down: bool = False) -> str:
    """Place of a value on an axis from 0 to `top`, from its start or, `down`, from its end."""
    part = min(value / top, 1)
    return f"{100 * (1 - part if down else part):.2f}%"


def _steps(values: Sequence[float], top: float) -> str:
    """One horizontal step per run of equal values."""
    return "".join(f"V{_y(value, top)}H{start + length}" for start, length, value in runs(values))


def _y(value: float, top: float) -> str:
    return f"{HEIGHT * (1 - min(value / top, 1)):.1f}".removesuffix(".0")
