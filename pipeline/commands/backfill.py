"""`deltascene backfill`: adds a task to a finished run, and prints how it ended."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from deltascene.cache.places import Place
from deltascene.errors import ExitCode
from deltascene.pipeline.batch.backfill import plan_backfill, run_backfill
from deltascene.pipeline.commands.job_table import failed_lines
from deltascene.pipeline.commands.progress import JsonEvents, bars_of, choose_events
from deltascene.pipeline.commands.stop import stoppable
from deltascene.pipeline.commands.summary import exit_code
from deltascene.pipeline.commands.terminal import print_line
from deltascene.pipeline.report.build import write_report
from deltascene.pipeline.runs.reader import open_run
from deltascene.pipeline.runs.videos_table import VideoRecord


@dataclass(frozen=True, slots=True)
class BackfillRequest:
    """Values of `deltascene backfill`.

    Attributes:
        out: folder of the run.
        task: the sub-task to add.
        model: bundle that has the task; None is the run's own.
        other_numerics: accept a machine that computes otherwise than the run's did.
        allow_code: let a bundle import its own head class.
    """

    out: Place
    task: str
    model: str | None = None
    other_numerics: bool = False
    allow_code: bool = False


@dataclass(frozen=True, slots=True)
class BackfillResult:
    """Result of a backfill.

    Attributes:
        records: rows of the videos.
        stopped: whether the user asked for a stop.
    """

    records: Sequence[VideoRecord]
    stopped: bool = False

    def having(self, status: str) -> list[VideoRecord]:
        """Videos of one status."""
        return [record for record in self.records if record.status == status]

    @property
    def exit_code(self) -> ExitCode:
        """How the command ends."""
        return exit_code(stopped=self.stopped and bool(self.having("partial")), failed=bool(self.having("failed")))


def backfill_command(request: BackfillRequest, console: Console, *, as_json: bool = False) -> ExitCode:
    """Adds the task and writes the report again.

    Args:
        request: what to add, and where.
        console: where to print.
        as_json: print one event a line instead of progress.

    Raises:
        DeltasceneError: nothing can be added; its class has the exit code.
    """
    numerics, code = request.other_numerics, request.allow_code
    plan = plan_backfill(request.out, request.task, request.model, other_numerics=numerics, allow_code=code)
    events = choose_events(console, sum(len(video) > 0 for video in plan.run.videos), as_json=as_json)
    with stoppable() as stop, bars_of(events):
        records = run_backfill(plan, events, stop)
    write_report(open_run(request.out))
    result = BackfillResult(records, stop.asked)
    if as_json:
        about = {"out": str(request.out), "task": request.task, "exit_code": result.exit_code}
        JsonEvents().say("backfill_ended", **about)
    else:
        _print_result(console, request, result)
    return result.exit_code


def _print_result(console: Console, request: BackfillRequest, result: BackfillResult) -> None:
    done = len(result.having("done") + result.having("unreadable"))  # of the latter there was nothing to compute
    print_line(console, f"{request.task}: {done} of {len(result.records)} videos done")
    if partial := result.having("partial"):
        names = ", ".join(record.id for record in partial)
        print_line(console, f"partial: {names}; finish the run, then run the same command again to continue")
    if failed := result.having("failed"):
        print_line(console, f"failed:\n{failed_lines(failed)}")
    print_line(console, f"report: {request.out / 'report.html'}")
