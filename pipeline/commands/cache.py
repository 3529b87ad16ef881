"""`deltascene cache ls`, `verify` and `gc`: show, check and clear the archived activations of a run."""

from rich.console import Console
from rich.table import Table

from deltascene.cache.places import Place
from deltascene.errors import ExitCode
from deltascene.pipeline.commands.terminal import print_line
from deltascene.pipeline.runs.archives import Garbage, RunArchives, collect_garbage, look_at_run
from deltascene.pipeline.units import compact


def list_command(out: Place, console: Console) -> ExitCode:
    """Prints what is archived; the exit code is `INPUT_FAILED` where a seal can't be read.

    Raises:
        OutputError: the folder isn't a run's, or holds no archived activations.
    """
    return _print_archives(console, look_at_run(out), whole="sealed")


def verify_command(out: Place, console: Console) -> ExitCode:
    """Reads every archived byte; the exit code is `INPUT_FAILED` where one isn't what was sealed.

    Raises:
        OutputError: the folder isn't a run's, or holds no archived activations.
    """
    return _print_archives(console, look_at_run(out, whole=True), whole="checked")


def collect_command(out: Place, budget_bytes: int | None, console: Console, *, dry_run: bool = False) -> ExitCode:
    """Removes what nobody can use, and the oldest segments above a budget; prints what goes.

    Args:
        out: folder of the run.
        budget_bytes: bytes that may stay; None keeps all that is whole.
        console: where to print.
        dry_run: remove nothing, and print what would be removed.

    Raises:
        OutputError: the folder isn't a run's, holds no archived activations, or is in use.
    """
    _print_garbage(console, collect_garbage(out, budget_bytes, dry_run=dry_run), dry_run=dry_run)
    return ExitCode.OK


def _print_archives(console: Console, found: RunArchives, *, whole: str) -> ExitCode:
    table = Table("video", "segments", "frames", "size", "state")
    for state in found.states:
        frames = f"{state.frames} of {found.frames.get(state.video, 0)}"
        word = f"{len(state.problems)} broken" if state.problems else whole
        table.add_row(state.video, str(len(state.segments)), frames, compact(state.bytes, "B"), word)
    console.print(table)
    problems = [f"{state.video}: {problem}" for state in found.states for problem in state.problems]
    for problem in problems:
        print_line(console, problem)
    print_line(console, f"{compact(found.bytes, 'B')} of activations of {len(found.states)} videos")
    return ExitCode.INPUT_FAILED if problems else ExitCode.OK


def _print_garbage(console: Console, garbage: Garbage, *, dry_run: bool) -> None:
    removed = "would be removed" if dry_run else "removed"
    for video, start in garbage.broken:
        print_line(console, f"{video}: segment {start}: broken, {removed}")
    for segment in garbage.dropped:
        print_line(console, f"{segment.video}: segment {segment.start}: {compact(segment.bytes, 'B')}, {removed}")
    total, left = len(garbage.broken) + len(garbage.dropped), compact(garbage.left_bytes, "B")
    print_line(console, f"{total} segments {removed}; {left} of activations stay")
