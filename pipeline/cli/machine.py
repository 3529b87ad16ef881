"""`deltascene doctor` and `deltascene config`: commands on this installation and its settings."""

from typing import Annotated

import typer

from deltascene.pipeline.cli.options import ConfigOption, JsonOption, ModelOption, PresetOption, SetOption, TasksOption
from deltascene.pipeline.cli.values import split_names

config_app = typer.Typer(help="Show the resolved config.", no_args_is_help=True)


def doctor(
    json: JsonOption = False,
    build_kernels: Annotated[
        bool,
        typer.Option("--build-kernels", help="Compile the kernel for this machine first; this needs a C++ compiler."),
    ] = False,
) -> None:
    """Check this installation and machine, and print a table for a bug report."""
    from deltascene.pipeline.commands.doctor import doctor_command
    from deltascene.pipeline.commands.terminal import open_console

    raise typer.Exit(doctor_command(open_console(), as_json=json, build_kernels=build_kernels))


@config_app.command("show")
def config_show(
    preset: PresetOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    model: ModelOption = None,
    tasks: TasksOption = None,
) -> None:
    """Print the config that a run with these options would have."""
    from deltascene.pipeline.commands.config import show_command
    from deltascene.pipeline.config import load_config

    values = {"model": model, "tasks": split_names(tasks)}
    raise typer.Exit(show_command(load_config(preset, config, set_ or (), values)))
