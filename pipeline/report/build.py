"""Writes a run's report: `report.json`, which sums up its ledgers, and `report.html`, the same with pictures and plots.

`report.json` (format 1) is the one source of every number on the page:

    format, schema_version (see `runs.schema`), name, started, model, fingerprint
    headline     what: what was run; saved: what was saved in MACs and in time; cost: what that cost in drift
    drift_units  unit of drift by task
    bound        what the pilot of --max-drift predicted of every step, and what audits found of the same, drift as
                 shares: see `report.bound.bound_report`; null where no pilot ran
    money        what the time cost: per_core_hour and threads, and from them core_hours, total, audits (part of it) and
                 dense (as if every valid frame had taken as long as this run's dense ones); null unless asked for
    totals       of all videos: see `report.totals.Totals.result`; media_seconds: length of what was processed
    tasks        by task: `totals` of its rows, and stage_seconds (median, p95, mean by stage)
    videos       list of every input: id, source, status, cause, fps, totals, retries, wall_seconds (from begin to end,
                 see `VideoRecord.seconds`), detailed; of those that have a section of their own (`DETAILED_CAP`) also
                 size, frame_size, kinds, tasks, accuracy; series: means over time, for plots; drift_series: the same of
                 audits; hours: estimates of every hour; worst: audited frames with the largest drift; frames: every
                 frame, or `frames_cap` evenly sampled ones, and by task what each of them cost; pictures: the frames
                 shown; film: those shown with their change map, and change_threshold; classes and scales: what the
                 colours mean
    config, versions, machine, numerics, weights      flat mappings

Times are in seconds, sizes in pixels (height, width), shares from 0 to 1. Every frame and task is in
videos/<id>/frames.parquet.
"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deltascene.cache.damage import reraise_damage
from deltascene.cache.places import Place, write_whole
from deltascene.pipeline.drawing.overlay import FrameNote, frame_notes
from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.report.bound import bound_report
from deltascene.pipeline.report.facts import decoder_timeout_s, json_values, money, run_facts
from deltascene.pipeline.report.page import render_page
from deltascene.pipeline.report.pictures import draw_film, draw_pictures, read_images
from deltascene.pipeline.report.sentences import cost_line, saved_line, what_line
from deltascene.pipeline.report.totals import TaskTotals, Totals, totals
from deltascene.pipeline.report.video import Limits, brief_report, video_report
from deltascene.pipeline.runs.ledger import SCHEMA
from deltascene.pipeline.runs.reader import Run, RunVideo
from deltascene.pipeline.runs.schema import SCHEMA_VERSION

FORMAT = 1
# Limits that keep the page readable and of bounded size, of all videos together …
FRAMES_CAP, POINTS_CAP = 2000, 24_000  # frames listed one by one, points of plots
PICTURES_CAP, FILM_CAP = 60, 120  # frames shown with their predictions, with their change map; each may need a seek
# … and of one video.
PICTURES_PER_VIDEO, FILM_PER_VIDEO, POINTS_PER_VIDEO = 6, 24, 480
SHOWN = ("pictures", "film", "worst")  # lists of frames that are drawn
DETAILED_CAP = 40  # videos with a section of their own; totals are kept of all


def write_report(run: Run, html: Place | None = None, per_core_hour: float | None = None) -> tuple[Place, Place]:
    """Writes `report.json` and `report.html` into the run's folder; each file appears complete or not at all.

    Args:
        run: an opened run.
        html: where the page is written; None is the run's folder.
        per_core_hour: price of an hour of one core, in any currency; None leaves money out.

    Returns:
        Paths of the JSON and of the page.
    """
    with reraise_damage(OutputError, str(run.folder), "run its command again with --force"):
        videos = {video.id: video for video in run.videos}
        built, notes = _build(run, list(videos.values()), per_core_hour)
        text = json.dumps(built, indent=1, allow_nan=False, ensure_ascii=False)
        report = json.loads(text)
        shown = [data for data in report["videos"] if data["detailed"] and any(data[name] for name in SHOWN)]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # threads mostly wait for decoders
            timeout_s = decoder_timeout_s(run.config)
            drawn = list(pool.map(lambda data: _draw(videos[data["id"]], data, notes[data["id"]], timeout_s), shown))
        pictures = {data["id"]: each for data, each in zip(shown, drawn, strict=True)}
    json_path, html_path = run.folder / "report.json", html or run.folder / "report.html"
    write_whole(json_path, text + "\n")
    write_whole(html_path, render_page(report, pictures, _links(run, videos.values(), html_path)))
    return json_path, html_path


def drift_line(report_json: Place) -> str:
    """The sentence of a written report on drift; empty if no frame was audited."""
    report = json.loads(report_json.read_text(encoding="utf-8"))
    return str(report["headline"]["cost"]) if report["totals"]["drift"] else ""


def _build(
    run: Run, videos: Sequence[RunVideo], per_core_hour: float | None
) -> tuple[dict[str, Any], dict[str, dict[int, FrameNote]]]:
    """The values of the report, and the ledger's notes on the frames that it shows, by video and index."""
    detailed = _detailed(videos)
    limits = _limits(sum(len(video) > 0 for video in videos if video.id in detailed))
    sums, tasks, nothing = Totals(), TaskTotals(), SCHEMA.empty_table()
    no_frame, reports, notes = totals(nothing), [], dict[str, dict[int, FrameNote]]()
    for video in videos:  # one ledger at a time: all of them may not fit into memory
        ledger = video.ledger() if len(video) else nothing
        if video.id in detailed:
            reports.append(video_report(video, ledger, limits))
            notes[video.id] = _notes(ledger, reports[-1])
        else:
            reports.append(brief_report(video, totals(ledger) if len(video) else no_frame))
        if len(video):
            sums.add(ledger)
            tasks.add(ledger)
    whole = sums.result() | {"media_seconds": sum(report["totals"]["media_seconds"] for report in reports)}
    units = {task: unit for report in reports for task, unit in report.get("drift_units", {}).items()}
    kinds = {task: kind for report in reports for task, kind in report.get("kinds", {}).items()}
    facts = run_facts(run.config)
    report: dict[str, Any] = json_values(
        {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "name": run.folder.resolve().name,
            "started": run.config.get("started"),
            "model": (run.config.get("config") or {}).get("model"),
            "fingerprint": run.config.get("fingerprint"),
            "headline": {
                "what": what_line(whole, reports),
                "saved": saved_line(whole),
                "cost": cost_line(whole, units),
            },
            "drift_units": units,
            "bound": bound_report(run.config.get("pilot"), whole, kinds),
            "money": money(whole, facts, per_core_hour),
            "totals": whole,
            "tasks": tasks.result(),
            "videos": reports,
            "frames_cap": limits.frames,
            **facts,
        }
    )
    return report, notes


def _notes(ledger: pa.Table, data: Mapping[str, Any]) -> dict[int, FrameNote]:
    """The ledger's notes on the frames that a video's report shows, by index."""
    shown = sorted({frame["index"] for name in SHOWN for frame in data[name]})
    return frame_notes(ledger.filter(pc.is_in(ledger["index"], pa.array(shown, pa.int64()))))


def _detailed(videos: Collection[RunVideo]) -> set[str]:
    """Ids of the videos that get a section; videos with frames come first where not all get one."""
    first = sorted(videos, key=lambda video: len(video) == 0)
    return {video.id for video in first[:DETAILED_CAP]}


def _draw(
    video: RunVideo, data: Mapping[str, Any], notes: Mapping[int, FrameNote], timeout_s: float
) -> dict[str, list[str]]:
    """A video's `pictures`, `film` and `worst`, in the order of its report."""
    shown = {name: [frame["place"] for frame in data[name]] for name in SHOWN}
    images = read_images(video, [frame["index"] for name in shown for frame in data[name]], timeout_s)
    return {
        "pictures": draw_pictures(video, shown["pictures"], images, notes),
        "film": draw_film(video, shown["film"], images, notes),
        "worst": draw_pictures(video, shown["worst"], images, notes),
    }


def _links(run: Run, videos: Collection[RunVideo], html: Place) -> dict[str, str]:
    """Paths relative to the page of the overlays of the videos that have one and a section."""
    detailed = _detailed(videos)
    names = [video.id for video in videos if video.id in detailed and video.files.overlay.is_file()]
    way = "."
    if html.parent != run.folder and isinstance(run.folder, Path) and isinstance(html, Path):
        way = Path(os.path.relpath(run.folder.resolve(), html.resolve().parent)).as_posix()
    return {name: Path(way, "videos", name, "overlay.webm").as_posix() for name in names}


def _limits(videos: int) -> Limits:
    each = max(1, videos)
    return Limits(
        frames=max(10, FRAMES_CAP // each),
        pictures=min(PICTURES_PER_VIDEO, PICTURES_CAP // each),
        film=min(FILM_PER_VIDEO, FILM_CAP // each),
        points=min(POINTS_PER_VIDEO, max(24, POINTS_CAP // each)),
    )
