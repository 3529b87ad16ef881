"""Plot of a comparison of models: gain over single-task networks against MACs of an image."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Point(NamedTuple):
    """Point of a model.

    Attributes:
        macs: MACs of an image.
        gain: Delta m in percent.
        interval: 95 % interval of the gain, if known.
    """

    macs: int
    gain: float
    interval: tuple[float, float] | None = None


def plot_tradeoff(points: Mapping[str, Point], path: Path) -> Path | None:
    """Plots models by cost and gain, with 95 % intervals.

    Args:
        points: by name.
        path: SVG or PNG to write.

    Returns:
        The path; None without points or where matplotlib isn't installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    if not points:
        return None
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for name, point in points.items():
        low, high = point.interval or (point.gain, point.gain)
        error = [[point.gain - low], [high - point.gain]]
        axes.errorbar(point.macs / 1e9, point.gain, yerr=error, marker="o", capsize=3)
        axes.annotate(name, (point.macs / 1e9, point.gain), textcoords="offset points", xytext=(6, 6), fontsize=8)
    axes.margins(x=0.2)  # room for the name of the last one
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set(xlabel="GMAC of a dense frame, all tasks", ylabel="Δm against single-task networks, %")
    axes.grid(alpha=0.3)
    figure.savefig(path)
    return path
