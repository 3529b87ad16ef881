"""What all printers share: the console, plain lines, and progress bars."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from deltascene.pipeline.evaluation import progress


def open_console() -> Console:
    """The console on standard output."""
    return Console()


def print_line(console: Console, line: str) -> None:
    """Prints a line as it is: without markup, colours or line breaks of its own."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bars(console: Console) -> Iterator[progress.Progress]:
    """A bar for each piece of work that reports to the callback; the bars vanish at the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    known: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True) as shown:

        def show(work: str, done: int, total: int) -> None:
            if work not in known:
                known[work] = shown.add_task(work, total=total)
            shown.update(known[work], completed=done, total=total)

        yield show
