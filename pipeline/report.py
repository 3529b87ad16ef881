"""A run's report: its ledger added up in `report.json`, and the same numbers with pictures and plots in `report.html`.

`report.json` (format 1) is the one source of every number on the page:

    format, name, started, model, fingerprint
    headline     what: what was run; saved: what was saved and what the clock says
    totals       of all videos: see `report_numbers.totals`; media_seconds: length of what was processed
    tasks        by task: `totals` of its rows, and stage_seconds (median, p95, mean by stage)
    videos       list: id, source, status, cause, fps, size, frame_size, kinds, totals, tasks, accuracy;
                 series: means over time, for plots; frames: every frame, or `frames_cap` evenly sampled ones;
                 pictures: the frames shown; classes and scales: what the colours mean
    config, versions, machine, numerics, weights      flat mappings

Times are in seconds, sizes in pixels (height, width), shares from 0 to 1. Every frame and task is in
videos/<id>/frames.parquet.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deltascene.cache.seal import write_whole
from deltascene.pipeline.config import flatten
from deltascene.pipeline.ledger import SCHEMA
from deltascene.pipeline.report_numbers import (
    accuracy_rows,
    ceiling,
    evenly,
    frame_table,
    in_steps,
    listed_frames,
    series,
    stage_spreads,
    totals,
)
from deltascene.pipeline.report_page import render_page
from deltascene.pipeline.report_pictures import class_legends, draw_pictures, scale_legends
from deltascene.pipeline.run_folder import Run, RunVideo
from deltascene.pipeline.units import count, duration, milliseconds, share

FORMAT = 1
# The page stays readable and of bounded size: these hold for all videos together …
FRAMES_CAP, PICTURES_CAP, POINTS_CAP = 2000, 60, 24_000  # frames listed one by one, pictures, points of plots
# … and these for one.
PICTURES_PER_VIDEO, POINTS_PER_VIDEO, LEGEND_FRAMES = 6, 480, 32


def write_report(run: Run, html: Path | None = None) -> tuple[Path, Path]:
    """Writes `report.json` and `report.html` into the run's folder, each whole.

    Args:
        run: an opened run.
        html: another place for the page.

    Returns:
        Paths of the JSON and of the page.
    """
    text = json.dumps(build_report(run), indent=1, allow_nan=False, ensure_ascii=False)
    report = json.loads(text)
    json_path, html_path = run.folder / "report.json", html or run.folder / "report.html"
    videos = {video.id: video for video in run.videos}
    pictures = {
        data["id"]: draw_pictures(videos[data["id"]], [picture["place"] for picture in data["pictures"]])
        for data in report["videos"]
        if data["pictures"]
    }
    write_whole(json_path, text + "\n")
    write_whole(html_path, render_page(report, pictures, _links(run, html_path)))
    return json_path, html_path


def build_report(run: Run) -> dict[str, Any]:
    """Everything that a report says, as plain values; the module's docstring lists the keys."""
    videos = run.videos
    ledgers = {video.id: video.ledger() if len(video) else SCHEMA.empty_table() for video in videos}
    ledger = pa.concat_tables([SCHEMA.empty_table(), *ledgers.values()])
    limits = _limits(sum(len(video) > 0 for video in videos))
    reports = [video_report(video, ledgers[video.id], limits) for video in videos]
    whole = totals(ledger) | {"media_seconds": sum(report["totals"]["media_seconds"] for report in reports)}
    key = _grouped(run.config.get("key") or {})
    report: dict[str, Any] = _plain(
        {
            "format": FORMAT,
            "name": run.folder.resolve().name,
            "started": run.config.get("started"),
            "model": (run.config.get("config") or {}).get("model"),
            "fingerprint": run.config.get("fingerprint"),
            "headline": {"what": _what(whole, reports), "saved": saved_line(whole)},
            "totals": whole,
            "tasks": task_reports(ledger),
            "videos": reports,
            "frames_cap": limits.frames,
            "config": flatten(run.config.get("config") or {}),
            "versions": dict(run.config.get("versions") or {}),
            "machine": dict(run.config.get("machine") or {}),
            "numerics": key.get("numerics", {}),
            "weights": key.get("weights", {}),
        }
    )
    return report


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a report says of one video.

    Attributes:
        frames: most frames listed one by one.
        pictures: number of frames shown as pictures.
        points: most points of a plot.
    """

    frames: int
    pictures: int
    points: int


def video_report(video: RunVideo, ledger: pa.Table, limits: Limits) -> dict[str, Any]:
    """What a report says of one video.

    Args:
        video: a video of the run, failed or not.
        ledger: its rows; empty for a failed one.
        limits: how much is said.
    """
    frames = frame_table(ledger)
    media_s = len(frames) / video.fps if video.fps > 0 else 0.0
    about = {
        "id": video.id,
        "source": video.source,
        "status": video.status,
        "cause": video.record.cause,
        "fps": video.fps,
        "totals": totals(ledger) | {"media_seconds": media_s},
        "tasks": task_reports(ledger),
        "accuracy": accuracy_rows(video.accuracy),
        "series": _with_axes(series(frames, limits.points)),
        "frames": listed_frames(frames, limits.frames),
    }
    if not len(frames):
        return about | {"size": None, "frame_size": None, "kinds": {}, "pictures": [], "classes": {}, "scales": {}}
    places = in_steps(len(video), limits.pictures)
    return about | {
        "size": list(video.size),
        "frame_size": list(video.frame_size),
        "kinds": {task: kind.name for task, kind in video.kinds.items()},
        "pictures": [{"place": place, **_moment(video, place)} for place in places],
        "classes": class_legends(video, evenly(len(video), LEGEND_FRAMES)),
        "scales": scale_legends(video.kinds),
    }


def task_reports(ledger: pa.Table) -> dict[str, dict[str, Any]]:
    """`totals` of every task's rows, with its time by stage."""
    tasks = dict.fromkeys(ledger["task"].to_pylist())
    parts = {str(task): ledger.filter(pc.equal(ledger["task"], task)) for task in tasks}
    return {task: totals(part) | {"stage_seconds": stage_spreads(part)} for task, part in parts.items()}


def saved_line(whole: Mapping[str, Any]) -> str:
    """What was saved, in a sentence that claims no more than MACs and clock both show.

    Args:
        whole: of `totals`.
    """
    if whole["saved"] is None:
        return "No frame could be predicted."
    valid, policies = whole["frames"] - whole["invalid"], whole["by_policy"]
    if set(policies) <= {"dense", "skipped"}:
        every = "Every token of every valid frame" if whole["invalid"] else "Every token of every frame"
        return f"{every} was computed: this is the yardstick; nothing is saved."
    if set(policies) <= {"dense", "held", "skipped"}:
        held = policies["held"]["frames"]
        why = (
            f"{count(held)} of {count(valid, 'valid frame')} had not changed and kept the last outputs; all others were"
        )
        start = f"{share(whole['saved'])} of the dense compute was saved: {why} computed in full."
    else:
        start = f"{share(whole['saved'])} of the dense compute was saved."
    return f"{start} {_clock_line(whole)}"


def _clock_line(whole: Mapping[str, Any]) -> str:
    dense, all_frames = whole["by_policy"].get("dense"), whole["frame_seconds"]
    if whole["seconds_saved"] is None or dense is None:
        return f"On the clock: {milliseconds(all_frames['mean'])} a frame; this run has no dense frame to compare with."
    mean, dense_mean = milliseconds(all_frames["mean"]), milliseconds(dense["frame_seconds"]["mean"])
    versus = f"{mean} a frame against {dense_mean} for a dense one"
    if whole["seconds_saved"] <= 0:
        return f"It does not show on the clock: {versus}."
    return f"On the clock that is {share(whole['seconds_saved'])} less time: {versus}, on average."


def _what(whole: Mapping[str, Any], videos: Sequence[Mapping[str, Any]]) -> str:
    tasks = len({task for video in videos for task in video["kinds"]})
    text = f"{count(whole['frames'], 'frame')} of {count(len(videos), 'video')}, {count(tasks, 'task')}"
    failed = sum(video["status"] == "failed" for video in videos)
    rate = f": {whole['fps']:.3g} frames per second" if whole["fps"] else ""
    return f"{text}, in {duration(whole['seconds'])}{rate}." + (f" {count(failed, 'input')} failed." if failed else "")


def _with_axes(plotted: dict[str, Any]) -> dict[str, Any]:
    """A series with the tops of its axes and the points that get a time on the horizontal one."""
    tops = {
        "seconds_top": ceiling(plotted["seconds"]),
        "macs_top": ceiling(plotted["macs_dense"] + plotted["macs_executed"]),
    }
    return plotted | tops | {"marks": evenly(len(plotted["index"]), 5)}


def _moment(video: RunVideo, place: int) -> dict[str, Any]:
    view = video.frame(place)
    return {"index": view.index, "pts_s": view.pts_s, "valid": view.valid}


def _links(run: Run, html: Path) -> dict[str, str]:
    """Overlay of every video that has one, relative to the page."""
    overlays = {video.id: video.folder / "overlay.webm" for video in run.videos}
    start = html.resolve().parent
    return {
        name: Path(os.path.relpath(path.resolve(), start)).as_posix()
        for name, path in overlays.items()
        if path.is_file()
    }


def _limits(videos: int) -> Limits:
    each = max(1, videos)
    return Limits(
        frames=max(10, FRAMES_CAP // each),
        pictures=min(PICTURES_PER_VIDEO, PICTURES_CAP // each),
        points=min(POINTS_PER_VIDEO, max(24, POINTS_CAP // each)),
    )


def _grouped(key: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Dotted names by their first part."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in key.items():
        head, _, rest = name.partition(".")
        groups.setdefault(head, {})[rest] = value
    return groups


def _plain(value: Any) -> Any:
    """Values that JSON has: null for what isn't finite, names of files that aren't UTF-8 with a mark in the place."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
