"""How the command ends: every error is one line on standard error and an exit code.

Where standard output can't be written any more, the command ends; finished segments are kept. What can't be written to
standard error is dropped.
"""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from errno import EDQUOT, ENOSPC, EPIPE
from typing import TYPE_CHECKING, NoReturn

from deltascene.errors import DeltasceneError, ExitCode
from deltascene.pipeline.commands.notes import notes_on_stderr

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STOPPED = "stopped; finished segments are kept; run the same command again to continue"
_LONGEST = 600  # characters of an error
_OUTPUT_CLOSED = 141  # as shells show a command that SIGPIPE ended: 128 + 13


def run_and_exit(command: Callable[[], object]) -> NoReturn:
    """Runs a command and ends the process.

    A fault of deltascene's own isn't caught, so that its traceback is seen.

    Args:
        command: does the work; it may end the process with an exit code of its own.

    Raises:
        SystemExit: always, with one of `ExitCode`.
    """
    with ExitStack() as streams:
        for name in ("stderr", "stdout"):
            streams.enter_context(_watched(name))
        _run(command)


def _run(command: Callable[[], object]) -> NoReturn:
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


@contextmanager
def _watched(name: str) -> Iterator[None]:
    """Replaces `sys.stdout` or `sys.stderr` by one whose errors can't be mistaken for those of other files."""
    before = getattr(sys, name)
    if not isinstance(before, io.TextIOWrapper):
        yield
        return
    try:
        raw = _StandardStream(before.fileno(), name)
    except io.UnsupportedOperation:  # a buffer in memory
        yield
        return
    before.flush()
    buffer = io.BufferedWriter(raw)
    errors = "backslashreplace"  # file names needn't be UTF-8
    stream = io.TextIOWrapper(buffer, before.encoding, errors, line_buffering=before.line_buffering)
    setattr(sys, name, stream)
    try:
        yield
    finally:
        try:
            stream.flush()
        finally:
            setattr(sys, name, before)


class _StandardStream(io.FileIO):
    """Standard output or error; after the first error everything written to it is dropped."""

    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._about, self._lost = name, False

    def write(self, data: "ReadableBuffer") -> int:
        """Writes some bytes.

        Raises:
            SystemExit: standard output can't be written; quietly if nobody reads it.
        """
        if not self._lost:
            try:
                return super().write(data)
            except OSError as error:
                self._lost = True
                if self._about == "stdout" and error.errno == EPIPE:
                    raise SystemExit(_OUTPUT_CLOSED) from None
                if self._about == "stdout":
                    _fail(f"standard output: {error.strerror}", _code_of(error))
        return memoryview(data).nbytes
