"""Legends of a report's pictures: the meaning of their colours."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deltascene.pipeline.drawing.panel import class_counts, class_swatches
from deltascene.pipeline.runs.reader import RunVideo
from deltascene.stages.kinds import Classes, Heatmaps, Kind, Scalar

RAMP_COLOURS = 9


def class_legends(video: RunVideo, places: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Labels of every classification task with their colour and their share of the predicted pixels of some frames.

    Returns:
        By task: `frames`, the number of frames, and `labels`, the largest share first.
    """
    views = [video.frame(place) for place in places]
    return {
        task: _class_legend(kind, [view[task] for view in views if task in view.tasks])
        for task, kind in video.kinds.items()
        if isinstance(kind, Classes)
    }


def scale_legends(kinds: Mapping[str, Kind]) -> dict[str, dict[str, Any]]:
    """Colours of the other tasks: a `ramp` from `low` to `high` with `unit` and `log`, or a colour for each name."""
    return {task: legend for task, kind in kinds.items() if (legend := _scale_legend(kind)) is not None}


def _class_legend(kind: Classes, values: Sequence[Any]) -> dict[str, Any]:
    counts = sum((class_counts(kind, value) for value in values), np.zeros(len(kind.labels), np.int64))
    shares, colours = counts / max(1, counts.sum()), _hexes(class_swatches(kind))
    labels = [
        {"label": kind.labels[place], "colour": colours[place], "share": float(shares[place])}
        for place in np.argsort(-counts, kind="stable").tolist()
    ]
    return {"frames": len(values), "labels": labels}


def _scale_legend(kind: Kind) -> dict[str, Any] | None:
    if isinstance(kind, Scalar):
        (low, high), spaced = kind.range, np.geomspace if kind.log else np.linspace
        ramp = _hexes(kind.colour(spaced(low, high, RAMP_COLOURS, dtype=np.float32)[None])[0])
        return {"low": low, "high": high, "unit": kind.unit, "log": kind.log, "ramp": ramp}
    if isinstance(kind, Heatmaps) and kind.components == 1:
        ramp = _hexes(kind.colour(np.linspace(0, 1, RAMP_COLOURS, dtype=np.float32)[None])[0])
        return {"low": 0.0, "high": 1.0, "unit": "", "log": False, "ramp": ramp}
    if isinstance(kind, Heatmaps):
        colours = _hexes(kind.colour(np.eye(kind.components, dtype=np.float32)[None])[0])
        return {"names": dict(zip(kind.names, colours, strict=True))}
    return None


def _hexes(colours: Any) -> list[str]:
    """RGB colours [colours, 3] as `#rrggbb`."""
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in np.asarray(colours).tolist()]
