"""What is printed at the end of a run, and its exit code."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from deltascene.cache.places import Place
from deltascene.errors import ExitCode
from deltascene.pipeline.commands.job_table import CAUSES, JobRow, failed_lines, print_table
from deltascene.pipeline.commands.progress import JsonEvents
from deltascene.pipeline.commands.terminal import print_line
from deltascene.pipeline.runs.folder import RunFolder
from deltascene.pipeline.runs.reader import RunVideo
from deltascene.pipeline.runs.videos_table import VideoRecord
from deltascene.pipeline.units import compact, count

_FEW = 5  # inputs whose overlays are listed


@dataclass(frozen=True, slots=True)
class RunResult:
    """Result of a run.

    Attributes:
        out: its folder.
        records: rows of the inputs that the run came to.
        inputs: number of inputs.
        stopped: whether the user asked for a stop.
        over_budget: whether a segment wasn't archived because the archive's budget was reached.
        archived: bytes of archived activations.
        drift: sentence on the drift that audits measured; empty if there were none.
    """

    out: Place
    records: Sequence[VideoRecord]
    inputs: int
    stopped: bool = False
    over_budget: bool = False
    archived: int = 0
    drift: str = ""

    @property
    def failed(self) -> list[VideoRecord]:
        """Inputs that failed, or that have no valid frame."""
        return [record for record in self.records if record.failed]

    @property
    def done(self) -> int:
        """Number of inputs that are finished."""
        return sum(record.status == "done" for record in self.records)

    @property
    def retries(self) -> int:
        """How often a segment was computed again because a worker was lost."""
        return sum(record.retries for record in self.records)

    @property
    def exit_code(self) -> ExitCode:
        """How the command ends."""
        unfinished = len(self.records) < self.inputs or any(record.status == "partial" for record in self.records)
        return exit_code(stopped=self.stopped and unfinished, failed=bool(self.failed), over_budget=self.over_budget)


def exit_code(*, stopped: bool, failed: bool, over_budget: bool = False) -> ExitCode:
    """How a command over many inputs ends: a stop counts more than a failure, and a failure more than a budget."""
    if stopped:
        return ExitCode.STOPPED
    if failed:
        return ExitCode.INPUT_FAILED
    return ExitCode.BUDGET_REACHED if over_budget else ExitCode.OK


def print_result(console: Console, result: RunResult) -> None:
    """Prints the table of inputs, accuracy, failures, and where the report and overlays are."""
    folder, failed = RunFolder(result.out), result.failed
    print_table([JobRow(record) for record in result.records], console, folder.videos_parquet)
    _print_accuracy(console, folder, result.records)
    print_line(console, _done_line(result))
    if result.over_budget:
        size = compact(result.archived, "B")
        print_line(
            console,
            f"the archive reached its budget with {size}; the segments after that have predictions only",
        )
    if result.drift:
        print_line(console, result.drift)
    if failed:
        print_line(console, f"failed ({folder.errors_jsonl}):\n{failed_lines(failed)}")
    print_line(console, f"report: {result.out / 'report.html'}")
    for record in result.records if len(result.records) <= _FEW else ():
        overlay = folder.video(record.id).overlay
        if overlay.is_file():
            print_line(console, f"overlay: {overlay}")


def print_json(result: RunResult) -> None:
    """Prints the event `run_ended`."""
    JsonEvents().say(
        "run_ended",
        out=str(result.out),
        exit_code=result.exit_code,
        failed=[record.id for record in result.failed],
        inputs=result.inputs,
        done=result.done,
        computed=sum(record.computed for record in result.records),
        retries=result.retries,
    )


def _done_line(result: RunResult) -> str:
    invalid, retries = sum(record.invalid for record in result.records), result.retries
    return (
        f"{result.done} of {result.inputs} inputs done, {sum(record.frames for record in result.records)} frames"
        + (f", {invalid} of them invalid" if invalid else "")
        + (f"; {count(retries, 'segment')} computed again after a worker was lost" if retries else "")
        + ("; stopped: run the same command again to continue" if result.exit_code == ExitCode.STOPPED else "")
    )


def _print_accuracy(console: Console, folder: RunFolder, records: Sequence[VideoRecord]) -> None:
    for record in records[:CAUSES]:
        numbers = RunVideo(record, folder.video(record.id)).accuracy
        if numbers is None:
            continue
        print_line(console, f"accuracy of {record.id} against truth:")
        for task, metrics in numbers.items():
            print_line(console, f"  {task}: " + ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))
