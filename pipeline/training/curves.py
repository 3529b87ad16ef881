"""Plots of training logs: the curves of one log, or of several side by side."""

from collections.abc import Mapping
from pathlib import Path

from deltascene.pipeline.training.loop import read_log


def plot_log(path: Path) -> Path | None:
    """Plots loss and scores of a log into `curve.svg` beside it; None where matplotlib isn't installed."""
    return plot_curves({path.parent.name: path}, path.with_name("curve.svg"))


def plot_curves(logs: Mapping[str, Path], out: Path) -> Path | None:
    """Plots several logs: the loss on the left, the headline measure on part `val` on the right.

    Args:
        logs: `log.jsonl` by name.
        out: SVG or PNG to write.

    Returns:
        `out`; None where matplotlib isn't installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    loss, scores = figure.subplots(1, 2)
    for name, path in logs.items():
        events = read_log(path)
        steps = [event for event in events if "loss" in event]
        loss.plot([event["step"] for event in steps], [event["loss"] for event in steps], label=name)
        judged = [event for event in events if event.get("val")]
        if judged:
            headline = next(iter(judged[0]["val"]))
            where, values = [event["step"] for event in judged], [event["val"][headline] for event in judged]
            scores.plot(where, values, marker="o", label=f"{name}: {headline}")
    loss.set(xlabel="step", ylabel="training loss")
    scores.set(xlabel="step", ylabel="on part val")
    for axes in (loss, scores):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
    figure.savefig(out)
    return out
