"""A run's report: its ledger added up in `report.json`, and the same numbers with pictures and plots in `report.html`.

`report.json` (format 1) is the one source of every number on the page:

    format, name, started, model, fingerprint
    headline     what: what was run; saved: what was saved and what the clock says
    totals       of all videos: see `report_totals.Totals.result`; media_seconds: length of what was processed
    tasks        by task: `totals` of its rows, and stage_seconds (median, p95, mean by stage)
    videos       list of every input: id, source, status, cause, fps, totals, retries, wall_seconds (from begin to end,
                 see `VideoRecord.seconds`), detailed; of those that have a section of their own (`DETAILED_CAP`) also
                 size, frame_size, kinds, tasks, accuracy; series: means over time, for plots; frames: every frame, or
                 `frames_cap` evenly sampled ones, and by task what each of them cost; pictures: the frames shown;
                 film: those shown with their change map, and change_threshold; classes and scales: what the colours
                 mean
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
from deltascene.pipeline.report.facts import decoder_timeout_s, plain, run_facts
from deltascene.pipeline.report.page import render_page
from deltascene.pipeline.report.pictures import draw_film, draw_pictures, read_images
from deltascene.pipeline.report.sentences import saved_line, what_line
from deltascene.pipeline.report.totals import TaskTotals, Totals, totals
from deltascene.pipeline.report.video import Limits, brief_report, video_report
from deltascene.pipeline.runs.ledger import SCHEMA
from deltascene.pipeline.runs.reader import Run, RunVideo

FORMAT = 1
# The page stays readable and of bounded size: these hold for all videos together …
FRAMES_CAP, POINTS_CAP = 2000, 24_000  # frames listed one by one, points of plots
PICTURES_CAP, FILM_CAP = 60, 120  # frames shown with their predictions, with their change map; each may need a seek
# … and these for one.
PICTURES_PER_VIDEO, FILM_PER_VIDEO, POINTS_PER_VIDEO = 6, 24, 480
DETAILED_CAP = 40  # videos with a section of their own; all have their totals


def write_report(run: Run, html: Place | None = None) -> tuple[Place, Place]:
    """Writes `report.json` and `report.html` into the run's folder, each whole.

    Args:
        run: an opened run.
        html: another place for the page.

    Returns:
        Paths of the JSON and of the page.
    """
    with reraise_damage(OutputError, str(run.folder), "run its command again with --force"):
        videos = {video.id: video for video in run.videos}
        built, notes = _build(run, list(videos.values()))
        text = json.dumps(built, indent=1, allow_nan=False, ensure_ascii=False)
        report = json.loads(text)
        shown = [data for data in report["videos"] if data["detailed"] and (data["pictures"] or data["film"])]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # each mostly waits for its decoder
            timeout_s = decoder_timeout_s(run.config)
            drawn = list(pool.map(lambda data: _draw(videos[data["id"]], data, notes[data["id"]], timeout_s), shown))
        pictures = {data["id"]: each for data, each in zip(shown, drawn, strict=True)}
    json_path, html_path = run.folder / "report.json", html or run.folder / "report.html"
    write_whole(json_path, text + "\n")
    write_whole(html_path, render_page(report, pictures, _links(run, videos.values(), html_path)))
    return json_path, html_path


def _build(run: Run, videos: Sequence[RunVideo]) -> tuple[dict[str, Any], dict[str, dict[int, FrameNote]]]:
    """The report, and what the ledger says of the frames that it shows, by video and index."""
    detailed = _detailed(videos)
    limits = _limits(sum(len(video) > 0 for video in videos if video.id in detailed))
    sums, tasks, nothing = Totals(), TaskTotals(), SCHEMA.empty_table()
    no_frame, reports, notes = totals(nothing), [], dict[str, dict[int, FrameNote]]()
    for video in videos:  # one ledger after the other: those of a night don't fit into memory together
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
    report: dict[str, Any] = plain(
        {
            "format": FORMAT,
            "name": run.folder.resolve().name,
            "started": run.config.get("started"),
            "model": (run.config.get("config") or {}).get("model"),
            "fingerprint": run.config.get("fingerprint"),
            "headline": {"what": what_line(whole, reports), "saved": saved_line(whole)},
            "totals": whole,
            "tasks": tasks.result(),
            "videos": reports,
            "frames_cap": limits.frames,
            **run_facts(run.config),
        }
    )
    return report, notes


def _notes(ledger: pa.Table, data: Mapping[str, Any]) -> dict[int, FrameNote]:
    """What a ledger says of the frames that a video's report shows, by index."""
    shown = sorted({moment["index"] for name in ("pictures", "film") for moment in data[name]})
    return frame_notes(ledger.filter(pc.is_in(ledger["index"], pa.array(shown, pa.int64()))))


def _detailed(videos: Collection[RunVideo]) -> set[str]:
    """Ids of the videos that get a section: those with frames come first where not all get one."""
    first = sorted(videos, key=lambda video: len(video) == 0)
    return {video.id for video in first[:DETAILED_CAP]}


def _draw(
    video: RunVideo, data: Mapping[str, Any], notes: Mapping[int, FrameNote], timeout_s: float
) -> dict[str, list[str]]:
    """A video's pictures by what they show, in the order of its report."""
    shown = {name: [moment["place"] for moment in data[name]] for name in ("pictures", "film")}
    images = read_images(video, [moment["index"] for name in shown for moment in data[name]], timeout_s)
    return {
        "pictures": draw_pictures(video, shown["pictures"], images, notes),
        "film": draw_film(video, shown["film"], images, notes),
    }


def _links(run: Run, videos: Collection[RunVideo], html: Place) -> dict[str, str]:
    """Overlay of every video that has one and a section to link it in, relative to the page."""
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
