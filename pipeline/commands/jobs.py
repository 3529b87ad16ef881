"""What `deltascene jobs` does: the table of a run that is finished, stopped, or under way in another terminal."""

import json
from contextlib import suppress

from rich.console import Console

from deltascene.cache.errors import BrokenSeal
from deltascene.cache.places import Place
from deltascene.cache.seal import Seal
from deltascene.cache.sealed_zip import SealedZip
from deltascene.errors import ExitCode
from deltascene.pipeline.commands.job_table import ORDER, ROWS, JobRow, print_table
from deltascene.pipeline.runs.folder import RunFolder, VideoFolder
from deltascene.pipeline.runs.lock import writing
from deltascene.pipeline.runs.reader import RunVideo, open_run
from deltascene.pipeline.units import count, duration


def jobs_command(out: Place, console: Console, *, as_json: bool = False, everything: bool = False) -> int:
    """Prints the inputs of a run; returns the exit code, which says nothing of how they ended.

    Args:
        out: folder of the run.
        console: to print on.
        as_json: one JSON object with every input.
        everything: all rows of a long table.

    Raises:
        OutputError: the folder isn't a run's.
    """
    folder = RunFolder(out)
    rows = [_row(video) for video in open_run(out).videos]
    live = writing(folder.root)
    counts = {status: sum(row.record.status == status for row in rows) for status in ORDER}
    left_s = _left_s(rows) if live else None
    if as_json:
        jobs = [row.facts for row in rows]
        print(json.dumps({"out": str(out), "running": live, "inputs": counts, "left_s": left_s, "jobs": jobs}))
        return ExitCode.OK
    print_table(rows, console, folder.videos_parquet, len(rows) if everything else ROWS)
    words = [f"{count(number)} {status}" for status, number in counts.items() if number]
    state = "under way" if live else "not under way"
    left = "" if left_s is None else f"; about {duration(left_s)} left"
    console.print(f"{state}: {', '.join(words) or 'no inputs'}{left}", highlight=False, soft_wrap=True)
    return ExitCode.OK


def _row(video: RunVideo) -> JobRow:
    """A video, and of one that isn't finished what is sealed of it."""
    record = video.record
    if record.status not in ("running", "partial"):
        return JobRow(record)
    row = JobRow(record, sealed=_sealed_frames(video.files))
    if record.status == "partial" or row.fps is None or not record.selected:
        return row
    assert row.sealed is not None
    return JobRow(record, row.sealed, max(0, record.selected - row.sealed) / row.fps)


def _sealed_frames(files: VideoFolder) -> int:
    """Frames of its sealed segments; what they hold isn't checked here."""
    frames = 0
    for part in files.segments.glob("*.zip"):
        if "." in part.stem:  # of a task that was added later
            continue
        with suppress(BrokenSeal, FileNotFoundError), SealedZip(part) as sealed:
            frames += Seal.of(sealed).frames
    return frames


def _left_s(rows: list[JobRow]) -> float | None:
    """Seconds that a run will about take yet: those that wait are taken to be like those that were met.

    None before there is a speed to go by.
    """
    met = [row for row in rows if row.record.status not in ("waiting", "partial")]
    waiting = len(rows) - len(met)
    rates = [row.fps for row in rows if row.record.status == "running" and row.fps is not None]
    if not rates:
        return None
    under_way = sum(row.record.selected - (row.sealed or 0) for row in rows if row.record.status == "running")
    expected = under_way + waiting * sum(row.record.selected for row in met) / max(1, len(met))
    return expected / sum(rates)
