"""The library's warnings on the command line: one line each on standard error."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LIBRARY = "deltascene"  # the logger above those of all modules
_LONGEST = 600  # characters of a note


class NoteHandler(logging.Handler):
    """Prints each warning as `note: …` on standard error; a text that was printed before isn't printed again."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record, unless its text was printed before."""
        from deltascene.pipeline.text import one_line, printable

        try:
            line = one_line(printable(record.getMessage()), _LONGEST)
            if line not in self._printed:
                self._printed.add(line)
                print(f"note: {line}", file=sys.stderr, flush=True)
        except Exception:  # as every handler of `logging` does: a message that can't be shown ends nothing
            self.handleError(record)


@contextmanager
def notes_on_stderr() -> Iterator[None]:
    """Shows the library's warnings as notes while the command runs; no other handler shows them meanwhile."""
    logger, handler = logging.getLogger(LIBRARY), NoteHandler()
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
