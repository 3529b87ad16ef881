"""`deltascene tune`: searches for the cheapest preset within a budget, prints the candidates, and writes the preset."""

from rich.console import Console
from rich.table import Table

from deltascene.errors import ExitCode
from deltascene.pipeline.commands.terminal import bars, print_line
from deltascene.pipeline.evaluation.tune import Tuned, TuneRequest, tune
from deltascene.pipeline.evaluation.tune_preset import HEADS, cells, write_preset


def tune_command(request: TuneRequest, console: Console) -> ExitCode:
    """Tunes a preset; the exit code is `INPUT_FAILED` where no candidate keeps to the budget.

    Raises:
        DeltasceneError: a clip, its truth or the model can't be used, or the preset's file exists.
    """
    with bars(console) as progress:
        tuned = tune(request, progress)
    console.print(_table(tuned))
    if tuned.chosen is None:
        none = f"none of {len(tuned.tried)} candidates keeps to the budget; nothing was written."
        print_line(console, f"{none} Allow a larger loss, or run the preset exact.")
        return ExitCode.INPUT_FAILED
    path = write_preset(tuned)
    print_line(console, f"{path}: run it with --config {path}")
    return ExitCode.OK


def _table(tuned: Tuned) -> Table:
    against = (
        "loss against truth, relative to dense prediction" if tuned.by_truth else "difference from dense prediction"
    )
    table = Table(title=f"{against}; the cheapest candidates first")
    for column in (*HEADS, ""):
        table.add_column(column, justify="right")
    for tried in tuned.tried:
        table.add_row(*cells(tried), "chosen" if tried is tuned.chosen else "")
    return table
