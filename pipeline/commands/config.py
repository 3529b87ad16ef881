"""`deltascene config show`: prints the config that a run would have."""

from deltascene.errors import ExitCode
from deltascene.pipeline.config import Config, render_config


def show_command(config: Config) -> ExitCode:
    """Prints a resolved config as YAML."""
    print(render_config(config), end="")
    return ExitCode.OK
