"""How the command ends: every error is one line on standard error and an exit code."""

import io
import sys
from collections.abc import Callable
from errno import EDQUOT, ENOSPC
from typing import NoReturn

from deltascene.errors import DeltasceneError, ExitCode
from deltascene.pipeline.commands.notes import notes_on_stderr

STOPPED = "stopped; finished segments are kept; run the same command again to continue"
_LONGEST = 600  # characters of an error


def run_and_exit(command: Callable[[], object]) -> NoReturn:
    """Runs a command and ends the process.

    A fault of deltascene's own isn't caught, so that its traceback is seen.

    Args:
        command: does the work; it may end the process with an exit code of its own.

    Raises:
        SystemExit: always, with one of `ExitCode`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names needn't be UTF-8
    try:
        with notes_on_stderr():
            command()
    except DeltasceneError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail(STOPPED, ExitCode.STOPPED)
    except OSError as error:
        _fail(f"{error.filename or 'output'}: {error.strerror or error}", _code_of(error))
    raise SystemExit(ExitCode.OK)


def _code_of(error: OSError) -> ExitCode:
    if error.errno in (ENOSPC, EDQUOT):
        return ExitCode.DISK_FULL
    named = error.filename is not None  # a path that the user gave, or one inside it
    return ExitCode.USAGE if named else ExitCode.INTERNAL


def _fail(text: str, code: ExitCode) -> NoReturn:
    from deltascene.pipeline.text import one_line, printable

    print(f"deltascene: {one_line(printable(text), _LONGEST)}", file=sys.stderr)
    raise SystemExit(code)
