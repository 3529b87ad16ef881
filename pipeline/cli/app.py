"""The command `deltascene`: all commands and groups. Each imports what is heavy only when it is called."""

from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from deltascene.pipeline.cli.evaluate import evaluate, tune, what_if
from deltascene.pipeline.cli.machine import config_app, doctor
from deltascene.pipeline.cli.models import compress, models_app
from deltascene.pipeline.cli.results import cache_app, jobs, report_app
from deltascene.pipeline.cli.run import backfill, run
from deltascene.pipeline.cli.train import train_app
from deltascene.pipeline.commands.exits import STOPPED, run_and_exit
from deltascene.pipeline.commands.version import version_command
from deltascene.pipeline.errors import Stopped
from deltascene.pipeline.openmp import brief_spins
from deltascene.pipeline.processes.child import forget_media_settings


class _Stoppable(TyperGroup):
    """Turns Ctrl-C into an error with a text; typer itself ends the process without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Stopped(STOPPED) from None


app = typer.Typer(
    name="deltascene",
    cls=_Stoppable,
    help="Dense video understanding that computes what changed, once, for every task.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(config_app, name="config")
app.add_typer(models_app, name="models")
app.add_typer(cache_app, name="cache")
app.add_typer(train_app, name="train")
app.add_typer(report_app, name="report")
app.command()(run)
app.command()(jobs)
app.command()(backfill)
app.command()(what_if)
app.command("eval")(evaluate)
app.command()(tune)
app.command()(compress)
app.command()(doctor)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Dense video understanding that computes what changed, once, for every task."""
    if show:
        raise typer.Exit(version_command())


def main() -> NoReturn:
    """Runs the command and ends the process with an exit code."""
    forget_media_settings()
    with brief_spins():
        run_and_exit(app)
