"""`deltascene tune`: searches for the cheapest preset within a budget, prints the steps, and writes the preset."""

from rich.console import Console
from rich.table import Table

from deltascene.errors import ExitCode
from deltascene.pipeline.commands.terminal import bars, print_line
from deltascene.pipeline.evaluation.tune import Tuned, TuneRequest, tune
from deltascene.pipeline.evaluation.tune_preset import cells, heads_of, measured, reached, write_preset


def tune_command(request: TuneRequest, console: Console) -> ExitCode:
    """Tunes a preset, and writes the nearest one where none keeps to the budget; the code is then `INPUT_FAILED`.

    Raises:
        DeltasceneError: a clip, its truth or the model can't be used, or the preset's file exists.
    """
    with bars(console) as progress:
        tuned = tune(request, progress)
    console.print(_table(tuned))
    path = write_preset(tuned)
    if tuned.kept:
        print_line(console, f"{path}: run it with --config {path}")
        return ExitCode.OK
    print_line(console, f"the budget isn't kept: {reached(tuned)}.")
    print_line(console, f"{path}: has that step all the same; the preset exact computes every frame in full")
    return ExitCode.INPUT_FAILED


def _table(tuned: Tuned) -> Table:
    table = Table(title=f"{measured(tuned)}; the strictest step first")
    for column in (*heads_of(tuned), ""):
        table.add_column(column, justify="right")
    for tried in tuned.tried:
        table.add_row(*cells(tried), "chosen" if tried is tuned.chosen else "")
    return table
