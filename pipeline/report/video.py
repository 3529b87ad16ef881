"""Report of one video: its numbers, its frames over time, and the frames that are shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from deltascene.pipeline.drawing.overlay import change_of, keeps_change
from deltascene.pipeline.report.audits import by_hour, drift_over_time, worst_frames
from deltascene.pipeline.report.legends import class_legends, scale_legends
from deltascene.pipeline.report.numbers import accuracy_rows, frame_table
from deltascene.pipeline.report.series import ceiling, evenly, film_places, in_steps, listed_frames, series
from deltascene.pipeline.report.totals import task_totals, totals
from deltascene.pipeline.runs.reader import RunVideo

LEGEND_FRAMES = 16
FILM_COLUMNS = ("index", "pts_s", "valid", "cause", "policy", "reason", "rows", "rows_computed")


@dataclass(frozen=True, slots=True)
class Limits:
    """Maximum lengths in the report of one video.

    Attributes:
        frames: frames listed one by one.
        pictures: frames shown with their predictions.
        film: frames shown with their change map.
        points: points of a plot.
    """

    frames: int
    pictures: int
    film: int
    points: int


def video_report(video: RunVideo, ledger: pa.Table, limits: Limits) -> dict[str, Any]:
    """Report of a video that gets a section of its own.

    Args:
        video: a video of the run, failed or not.
        ledger: its rows; empty for a failed one.
        limits: maximum lengths.
    """
    frames = frame_table(ledger)
    about = brief_report(video, totals(ledger)) | {
        "detailed": True,
        "tasks": task_totals(ledger),
        "accuracy": accuracy_rows(video.accuracy),
        "series": _with_axes(plotted := series(frames, limits.points)),
        "drift_series": drift_over_time(ledger, np.arange(0, len(frames), plotted["frames_per_point"])),
        "hours": by_hour(ledger),
        "frames": listed_frames(ledger, frames, limits.frames),
    }
    if not len(frames):
        nothing: dict[str, Any] = {"pictures": [], "film": [], "change_threshold": None, "classes": {}, "scales": {}}
        nothing |= {"size": None, "frame_size": None, "ignored": 0.0, "kinds": {}, "drift_units": {}, "worst": []}
        return about | nothing
    return about | {
        "size": list(video.size),
        "frame_size": list(video.frame_size),
        "ignored": ignored_share(video),
        "kinds": {task: kind.name for task, kind in video.kinds.items()},
        "drift_units": {task: kind.drift_unit for task, kind in video.kinds.items()},
        "worst": worst_frames(ledger, limits.pictures // 2),
        "pictures": [_shown_frame(video, place) for place in in_steps(len(video), limits.pictures)],
        "film": film(video, frames, limits.film),
        "change_threshold": video.arrays.attributes.get("change_threshold"),
        "classes": class_legends(video, evenly(len(video), LEGEND_FRAMES)),
        "scales": scale_legends(video.kinds),
    }


def brief_report(video: RunVideo, whole: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a video's report that every input has.

    Args:
        video: a video of the run, failed or not.
        whole: result of `totals` for its rows.
    """
    media_s = whole["frames"] / video.fps if video.fps > 0 else 0.0
    return {
        "id": video.id,
        "source": video.source,
        "status": video.status,
        "cause": video.record.cause,
        "notes": video.record.notes,
        "fps": video.fps,
        "retries": video.record.retries,
        "wall_seconds": video.record.seconds,
        "detailed": False,
        "totals": {**whole, "media_seconds": media_s},
    }


def ignored_share(video: RunVideo) -> float:
    """Share of a video's patches whose changes are ignored."""
    ignored = video.arrays.attributes.get("ignored_patches", ())
    change = video.arrays.change(0) if ignored else None
    return 0.0 if change is None else len(ignored) / change.size


def film(video: RunVideo, frames: pa.Table, count: int) -> list[dict[str, Any]]:
    """The frames that are shown with their change map; none for a video whose frames all ran dense.

    Args:
        video: a video of the run.
        frames: result of `frame_table`.
        count: maximum number of frames.

    Returns:
        Of each its place among the processed frames, its columns of the ledger, and `moved`: the number of its patches
        over the threshold, null where no change map was kept.
    """
    if set(frames["policy"].to_pylist()) <= {"dense", "skipped"}:
        return []
    places = film_places(frames, count)
    rows = frames.select(FILM_COLUMNS).take(pa.array(places, pa.int64())).to_pylist()
    changes = [change_of(video, place, row["policy"]) for place, row in zip(places, rows, strict=True)]
    known = keeps_change(video.arrays.attributes)
    return [
        {"place": place, **row, "moved": change.moved if known else None}
        for place, row, change in zip(places, rows, changes, strict=True)
    ]


def _with_axes(plotted: dict[str, Any]) -> dict[str, Any]:
    """A series with the upper ends of its axes and the points that are labelled with their time."""
    tops = {
        "seconds_top": ceiling(plotted["seconds"]),
        "macs_top": ceiling(plotted["macs_dense"] + plotted["macs_executed"]),
        "oldest_top": ceiling(plotted["oldest_s"]),
    }
    return plotted | tops | {"marks": evenly(len(plotted["index"]), 5)}


def _shown_frame(video: RunVideo, place: int) -> dict[str, Any]:
    view = video.frame(place)
    return {"place": place, "index": view.index, "pts_s": view.pts_s, "valid": view.valid}
