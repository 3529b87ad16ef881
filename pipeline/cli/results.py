"""`deltascene jobs`, `report` and `cache`: commands that read or tidy the folder of a run."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from deltascene.pipeline.cli.options import JsonOption, OutArgument
from deltascene.pipeline.cli.values import parse_bytes


class _WritesByDefault(TyperGroup):
    """Makes `report OUT` short for `report write OUT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if named else ["write", *args])


report_app = typer.Typer(
    cls=_WritesByDefault,
    help="Write the report of a run (report OUT), or compare two runs (report diff OUT_A OUT_B).",
    subcommand_metavar="OUT | diff OUT_A OUT_B",
)
cache_app = typer.Typer(help="List, check or remove the archived activations of a run.", no_args_is_help=True)


def jobs(
    out: OutArgument,
    json: JsonOption = False,
    everything: Annotated[bool, typer.Option("--all", help="Print every input, however many there are.")] = False,
) -> None:
    """Show the inputs of a run with status, frames, retries, speed, time left and cause of failure."""
    from deltascene.cache.places import place
    from deltascene.pipeline.commands.jobs import jobs_command
    from deltascene.pipeline.commands.terminal import open_console

    raise typer.Exit(jobs_command(place(out), open_console(), as_json=json, everything=everything))


@report_app.command("write")
def report_write(
    out: OutArgument,
    html: Annotated[Path | None, typer.Option(help="File for the page. Default: OUT/report.html.")] = None,
    cost_per_core_hour: Annotated[
        float | None, typer.Option(min=0, help="Price of an hour of one core: also tell what the measured time costs.")
    ] = None,
) -> None:
    """Write report.html and report.json of a run again. The short form is: report OUT."""
    from deltascene.pipeline.commands.report import write_command

    raise typer.Exit(write_command(out, html, cost_per_core_hour))


@report_app.command("diff")
def report_diff(
    a: Annotated[str, typer.Argument(metavar="OUT_A", help="Folder of the run to compare with.")],
    b: Annotated[str, typer.Argument(metavar="OUT_B", help="Folder of the run that is compared.")],
    html: Annotated[Path | None, typer.Option(help="Also write a page with pictures to this file.")] = None,
    json: JsonOption = False,
) -> None:
    """Compare two runs over the same videos: config, MACs, time, policies, and the drift of B from A."""
    from deltascene.cache.places import place
    from deltascene.pipeline.commands.report_diff import diff_command
    from deltascene.pipeline.commands.terminal import open_console

    raise typer.Exit(diff_command(place(a), place(b), html, open_console(), as_json=json))


@cache_app.command("ls")
def cache_ls(out: OutArgument) -> None:
    """List the archived activations of a run."""
    from deltascene.cache.places import place
    from deltascene.pipeline.commands.cache import list_command
    from deltascene.pipeline.commands.terminal import open_console

    raise typer.Exit(list_command(place(out), open_console()))


@cache_app.command("verify")
def cache_verify(out: OutArgument) -> None:
    """Read every archived byte and compare it with its checksum."""
    from deltascene.cache.places import place
    from deltascene.pipeline.commands.cache import verify_command
    from deltascene.pipeline.commands.terminal import open_console

    raise typer.Exit(verify_command(place(out), open_console()))


@cache_app.command("gc")
def cache_gc(
    out: OutArgument,
    budget: Annotated[
        str | None, typer.Option(help="Size that may stay, such as 20GB. The oldest segments are removed first.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")
    ] = False,
) -> None:
    """Remove unfinished and broken segments of the stored activations; with --budget, also the oldest ones above it.

    Predictions are kept.
    """
    from deltascene.cache.places import place
    from deltascene.pipeline.commands.cache import collect_command
    from deltascene.pipeline.commands.terminal import open_console

    raise typer.Exit(collect_command(place(out), parse_bytes(budget), open_console(), dry_run=dry_run))
