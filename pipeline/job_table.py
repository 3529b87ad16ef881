"""The table of a job: every input with its status, retries and speed; a long one is cut, failures first."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deltascene.pipeline.problems import printable
from deltascene.pipeline.units import count, duration
from deltascene.pipeline.videos_table import VideoRecord

ROWS = 40  # of a table
CAUSES = 20  # told in full below it
LOG_WIDTH = 200  # letters, where there is no terminal
# Of a table that is cut, what a person has to look at comes first.
ORDER = ("failed", "running", "partial", "done", "waiting")


@dataclass(frozen=True, slots=True)
class JobRow:
    """An input's record, and what is known of it while it is under way.

    Attributes:
        record: its row of `videos.parquet`.
        sealed: frames that are sealed by now; None where nobody looked.
        left_s: seconds that it will about take yet; None where that isn't known.
    """

    record: VideoRecord
    sealed: int | None = None
    left_s: float | None = None

    @property
    def fps(self) -> float | None:
        """Frames computed a second; None where none was."""
        record = self.record
        return record.computed / record.seconds if record.computed > 0 and record.seconds > 0 else None

    @property
    def facts(self) -> dict[str, Any]:
        """As plain values."""
        record = self.record
        about = {name: getattr(record, name) for name in ("id", "source", "status", "cause", "frames", "selected")}
        work = {"retries": record.retries, "seconds": record.seconds, "computed": record.computed, "fps": self.fps}
        return {**about, "sealed": self.sealed, **work, "left_s": self.left_s}


def cut_rows(rows: Sequence[JobRow], most: int = ROWS) -> list[JobRow]:
    """The rows that are shown: all in their order, or of many the first `most`, by `ORDER`."""
    if len(rows) <= most:
        return list(rows)
    return sorted(rows, key=lambda row: ORDER.index(row.record.status))[:most]


def print_table(rows: Sequence[JobRow], console: Console, all_in: Path, most: int = ROWS) -> None:
    """Prints the table of a job.

    Args:
        rows: every input.
        console: to print on; without a terminal behind it lines are long rather than folded.
        all_in: file that has every row, for what is left out here.
        most: rows that are shown.
    """
    shown = cut_rows(rows, most)
    times = any(row.left_s is not None for row in shown)
    heads = ("frames", "retries", "seconds", "frames/s", *(("left",) if times else ()))
    style = box.HEAVY_HEAD if console.is_terminal else None
    table = Table(box=style, pad_edge=console.is_terminal)
    table.add_column("id", overflow="ellipsis", no_wrap=True, max_width=48, min_width=8)
    table.add_column("status", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("cause", overflow="ellipsis", no_wrap=True)
    for row in shown:
        table.add_row(*(Text(cell) for cell in _cells(row, times)))
    wide = console if console.is_terminal else Console(file=console.file, width=LOG_WIDTH)
    wide.print(table)
    if len(rows) > len(shown):
        left = f"… and {count(len(rows) - len(shown))} more; all in {printable(str(all_in))}"
        console.print(left, markup=False, highlight=False, soft_wrap=True)


def failed_lines(records: Sequence[VideoRecord]) -> str:
    """Failed inputs, one a line: id, then why in full; of many the first."""
    failed = [record for record in records if record.status == "failed"]
    lines = [f"  {record.id}: {record.cause}" for record in failed[:CAUSES]]
    if len(failed) > CAUSES:
        lines.append(f"  … and {count(len(failed) - CAUSES)} more")
    return "\n".join(lines)


def _cells(row: JobRow, times: bool) -> list[str]:
    record, fps = row.record, row.fps
    frames = record.frames if row.sealed is None else row.sealed
    whole = f" of {record.selected}" if record.selected > frames else ""
    left = [] if not times else ["" if row.left_s is None else duration(row.left_s)]
    return [
        record.id,
        record.status,
        f"{frames}{whole}",
        f"{record.retries}" if record.retries else "",
        f"{record.seconds:.1f}" if record.seconds else "",
        f"{fps:.1f}" if fps is not None else "",
        *left,
        printable(record.cause),
    ]
