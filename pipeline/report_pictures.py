"""Pictures of a report: some frames of a video with their predictions as JPEG, and what the colours mean."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from deltascene.pipeline.overlay import compose, frame_notes
from deltascene.pipeline.panel import class_counts, class_swatches
from deltascene.pipeline.run_folder import RunVideo
from deltascene.pipeline.sources import SourceError, SourceSpec, find_sources, identity, probe, read_frames
from deltascene.stages.kinds import Classes, Heatmaps, Kind, Scalar
from deltascene.stages.types import Frame, Image

JPEG_QUALITY = 84
RAMP_COLOURS = 9
FARTHEST_STEP = 300  # frames; decoding what lies between is faster than a seek up to here


def draw_pictures(video: RunVideo, places: Sequence[int]) -> list[str]:
    """Processed frames with their predictions, as JPEG data URIs; without the frame where the source is gone.

    Args:
        video: a video of a run.
        places: which of its processed frames, at equal steps.
    """
    views = [video.frame(place) for place in places]
    images = read_images(video, [view.index for view in views])
    notes, pictures = frame_notes(video.ledger()), []
    for view in views:
        values = {task: view[task] for task in view.tasks}
        cause = notes.get(view.index, ("", ""))[1]
        pictures.append(_data_uri(compose(images.get(view.index), values, video.kinds, cause=cause)))
    return pictures


def read_images(video: RunVideo, indices: Sequence[int]) -> dict[int, Image]:
    """Some frames of a video's source, RGB [H, W, 3] by index; empty if it is gone or has another content now."""
    try:
        specs = [spec for spec in find_sources([video.source]) if str(spec.path) == video.source]
        if len(specs) != 1 or (video.record.identity and identity(specs[0]) != video.record.identity):
            return {}
        return {frame.index: frame.image for frame in _read(specs[0], indices) if frame.image is not None}
    except (SourceError, OSError):
        return {}


def _read(spec: SourceSpec, indices: Sequence[int]) -> Iterator[Frame]:
    """One pass where the frames lie close together and at equal steps; one seek each elsewhere."""
    info, steps = probe(spec), set(np.diff(indices).tolist()) or {1}
    if len(steps) > 1 or max(steps) > FARTHEST_STEP:
        readers = (read_frames(spec, start_frame=index, end_frame=index + 1, info=info) for index in indices)
    else:
        start_s = float(info.table.pts_s[indices[0]])
        one_pass = read_frames(spec, start_s=start_s, stride=steps.pop(), end_frame=indices[-1] + 1, info=info)
        readers = (reader for reader in [one_pass])
    for reader in readers:
        with reader:
            yield from reader


def class_legends(video: RunVideo, places: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Labels of every task of classes with colour and share of the predicted pixels of some processed frames.

    Returns:
        By task: `frames` looked at, and `labels`, largest share first.
    """
    views = [video.frame(place) for place in places]
    return {
        task: _class_legend(kind, [view[task] for view in views if task in view.tasks])
        for task, kind in video.kinds.items()
        if isinstance(kind, Classes)
    }


def scale_legends(kinds: Mapping[str, Kind]) -> dict[str, dict[str, Any]]:
    """Colours of tasks of numbers: a `ramp` from `low` to `high` with `unit` and `log`, or one for each of `names`."""
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


def _data_uri(picture: Image) -> str:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode('ascii')}"


def _hexes(colours: Any) -> list[str]:
    """RGB colours [colours, 3] as `#rrggbb`."""
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in np.asarray(colours).tolist()]
