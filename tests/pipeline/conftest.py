import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout

import pytest

from deltascene.pipeline import cli

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def deltascene() -> Command:
    """Runs the command in this process; returns exit code, standard output and error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        out, error = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(error):
            patch.setattr(sys, "argv", ["deltascene", *map(str, arguments)])
            with pytest.raises(SystemExit) as exit_:
                cli.main()
        code = exit_.value.code
        return (0 if code is None else int(code)), out.getvalue(), error.getvalue()

    return call
