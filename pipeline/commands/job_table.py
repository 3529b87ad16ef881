"""The table of a run's inputs with status, retries and speed; a long one is cut, and failures come first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deltascene.cache.places import Place
from deltascene.pipeline.runs.videos_table import VideoRecord
from deltascene.pipeline.text import printable
from deltascene.pipeline.units import count, duration

ROWS = 40  # most rows of a table
CAUSES = 20  # most causes that are printed in full below it
ID_WIDTH, CAUSE_WIDTH = 48, 16  # characters: most of an id, least of a cause
LOG_WIDTH = 200  # characters, where there is no terminal
# Order of the rows of a table that is cut: those first that need attention.
ORDER = ("failed", "unreadable", "running", "partial", "done", "waiting")


@dataclass(frozen=True, slots=True)
class JobRow:
    """An input's record, and its state while it is in progress.

    Attributes:
        record: its row of `videos.parquet`.
        sealed: number of frames that are sealed by now; None where that wasn't read.
        left_s: about how many seconds it will still take; None where that isn't known.
    """

    record: VideoRecord
    sealed: int | None = None
    left_s: float | None = None

    @property
    def fps(self) -> float | None:
        """Frames computed per second; None where none was."""
        record = self.record
        return record.computed / record.seconds if record.computed > 0 and record.seconds > 0 else None

    @property
    def facts(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        record = self.record
        about = {
            name: getattr(record, name) for name in ("id", "source", "status", "cause", "notes", "frames", "selected")
        }
        work = {"retries": record.retries, "seconds": record.seconds, "computed": record.computed, "fps": self.fps}
        return {**about, "sealed": self.sealed, **work, "left_s": self.left_s}


def cut_rows(rows: Sequence[JobRow], most: int = ROWS) -> list[JobRow]:
    """The rows that are shown: all in their order, or where there are too many the first `most` by `ORDER`."""
    if len(rows) <= most:
        return list(rows)
    return sorted(rows, key=lambda row: ORDER.index(row.record.status))[:most]


def print_table(rows: Sequence[JobRow], console: Console, all_in: Place, most: int = ROWS) -> None:
    """Prints the table of a run's inputs.

    Args:
        rows: all inputs.
        console: where to print; without a terminal lines are long rather than folded.
        all_in: file that has every row, for the line on rows that aren't shown.
        most: largest number of rows that are shown.
    """
    shown = cut_rows(rows, most)
    wide = console if console.is_terminal else Console(file=console.file, width=LOG_WIDTH)
    wide.print(_table(shown, wide.width, framed=console.is_terminal))
    if len(rows) > len(shown):
        left = f"… and {count(len(rows) - len(shown))} more; all in {printable(str(all_in))}"
        console.print(left, markup=False, highlight=False, soft_wrap=True)


def failed_lines(records: Sequence[VideoRecord]) -> str:
    """Failed inputs, one a line: id and cause in full; of many, the first `CAUSES`."""
    failed = [record for record in records if record.failed]
    lines = [f"  {record.id}: {record.cause}" for record in failed[:CAUSES]]
    if len(failed) > CAUSES:
        lines.append(f"  … and {count(len(failed) - CAUSES)} more")
    return "\n".join(lines)


def _table(rows: Sequence[JobRow], width: int, *, framed: bool) -> Table:
    """One line for each row: ids and causes are cut to fit the width, numbers never are."""
    columns = {head: [write(row) for row in rows] for head, write in COLUMNS.items()}
    columns = {head: cells for head, cells in columns.items() if head in ALWAYS or any(cells)}
    numbers = {head: cells for head, cells in columns.items() if head not in ("id", "cause")}
    taken = sum(max(map(cell_len, (head, *cells))) for head, cells in numbers.items()) + 3 * len(columns) + 1
    widest = max(map(cell_len, ("id", *columns["id"])))
    id_width = max(8, min(widest, ID_WIDTH, width - taken - (CAUSE_WIDTH if "cause" in columns else 0)))
    widths = {"id": id_width, "cause": max(8, width - taken - id_width)}
    table = Table(box=box.HEAVY_HEAD if framed else None, pad_edge=framed)
    for head in columns:
        table.add_column(head, justify="left" if head in ("id", "status", "cause") else "right", no_wrap=True)
    for place in range(len(rows)):
        line = {head: Text(cells[place]) for head, cells in columns.items()}
        for head, most in widths.items():
            if head in line:
                line[head].truncate(most, overflow="ellipsis")
        table.add_row(*line.values())
    return table


def _frames(row: JobRow) -> str:
    frames = row.record.frames if row.sealed is None else row.sealed
    if row.record.status == "running":  # includes frames that aren't sealed yet
        frames = max(frames, row.record.computed)
    return f"{frames} of {row.record.selected}" if row.record.selected > frames else f"{frames}"


# Text of each column; a column that is empty in all rows is left out.
COLUMNS: Mapping[str, Callable[[JobRow], str]] = {
    "id": lambda row: row.record.id,
    "status": lambda row: row.record.status,
    "frames": _frames,
    "retries": lambda row: f"{row.record.retries}" if row.record.retries else "",
    "seconds": lambda row: f"{row.record.seconds:.1f}" if row.record.seconds else "",
    "frames/s": lambda row: "" if row.fps is None else f"{row.fps:.1f}",
    "left": lambda row: "" if row.left_s is None else duration(row.left_s),
    "cause": lambda row: printable(row.record.cause),
}
ALWAYS = ("id", "status", "frames")
