"""`deltascene --version`: prints the version."""

from deltascene import __version__
from deltascene.errors import ExitCode


def version_command() -> ExitCode:
    """Prints the name and the version."""
    print(f"deltascene {__version__}")
    return ExitCode.OK
