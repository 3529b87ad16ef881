"""`deltascene jobs`: prints the inputs of a run that is finished, stopped, or in progress in another terminal."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from deltascene.cache.errors import BrokenSeal
from deltascene.cache.places import Place
from deltascene.cache.seal import Seal
from deltascene.cache.sealed_zip import SealedZip
from deltascene.errors import ExitCode
from deltascene.pipeline.commands.job_table import ORDER, ROWS, JobRow, print_table
from deltascene.pipeline.commands.terminal import print_line
from deltascene.pipeline.runs.folder import RunFolder, VideoFolder
from deltascene.pipeline.runs.lock import writing
from deltascene.pipeline.runs.reader import RunVideo, open_run
from deltascene.pipeline.units import count, duration


@dataclass(frozen=True, slots=True)
class Jobs:
    """The inputs of a run.

    Attributes:
        out: folder of the run.
        running: whether a process is writing the run.
        rows: all inputs.
        left_s: about how many seconds the run will still take; None where that isn't known.
    """

    out: Place
    running: bool
    rows: Sequence[JobRow]
    left_s: float | None

    @property
    def counts(self) -> dict[str, int]:
        """Number of inputs by status."""
        return {status: sum(row.record.status == status for row in self.rows) for status in ORDER}

    @property
    def facts(self) -> Mapping[str, Any]:
        """The same as plain values, for JSON."""
        jobs = [row.facts for row in self.rows]
        about = {"out": str(self.out), "running": self.running, "inputs": self.counts}
        return {**about, "left_s": self.left_s, "jobs": jobs}


def jobs_command(out: Place, console: Console, *, as_json: bool = False, everything: bool = False) -> ExitCode:
    """Prints the inputs of a run; the exit code doesn't depend on how they ended.

    Args:
        out: folder of the run.
        console: where to print.
        as_json: print one JSON object with every input.
        everything: print all rows of a long table.

    Raises:
        OutputError: the folder isn't a run's.
    """
    jobs = read_jobs(out)
    if as_json:
        print(json.dumps(jobs.facts))
    else:
        print_jobs(console, jobs, len(jobs.rows) if everything else ROWS)
    return ExitCode.OK


def read_jobs(out: Place) -> Jobs:
    """Reads the state of a run's inputs from its folder.

    Raises:
        OutputError: the folder isn't a run's.
    """
    rows = [_row(video) for video in open_run(out).videos]
    running = writing(RunFolder(out).root)
    return Jobs(out, running, rows, _left_s(rows) if running else None)


def print_jobs(console: Console, jobs: Jobs, most: int = ROWS) -> None:
    """Prints the table with at most `most` rows, and below it the number of inputs by status."""
    print_table(jobs.rows, console, RunFolder(jobs.out).videos_parquet, most)
    words = [f"{count(number)} {status}" for status, number in jobs.counts.items() if number]
    state = "under way" if jobs.running else "not under way"
    left = "" if jobs.left_s is None else f"; about {duration(jobs.left_s)} left"
    print_line(console, f"{state}: {', '.join(words) or 'no inputs'}{left}")


def _row(video: RunVideo) -> JobRow:
    """The row of a video; for one that isn't finished, with the number of its sealed frames."""
    record = video.record
    if record.status not in ("running", "partial"):
        return JobRow(record)
    row = JobRow(record, sealed=_sealed_frames(video.files))
    if record.status == "partial" or row.fps is None or not record.selected:
        return row
    assert row.sealed is not None
    return JobRow(record, row.sealed, max(0, record.selected - row.sealed) / row.fps)


def _sealed_frames(files: VideoFolder) -> int:
    """Number of frames of its sealed segments, without a check of their content."""
    frames = 0
    for part in files.segments.glob("*.zip"):
        if "." in part.stem:  # belongs to a task that was added later
            continue
        with suppress(BrokenSeal, FileNotFoundError), SealedZip(part) as sealed:
            frames += Seal.of(sealed).frames
    return frames


def _left_s(rows: list[JobRow]) -> float | None:
    """About how many seconds a run will still take, as if inputs that wait were as long as those that have begun.

    None where no speed is known yet.
    """
    met = [row for row in rows if row.record.status not in ("waiting", "partial")]
    waiting = len(rows) - len(met)
    rates = [row.fps for row in rows if row.record.status == "running" and row.fps is not None]
    if not rates:
        return None
    under_way = sum(row.record.selected - (row.sealed or 0) for row in rows if row.record.status == "running")
    expected = under_way + waiting * sum(row.record.selected for row in met) / max(1, len(met))
    return expected / sum(rates)
