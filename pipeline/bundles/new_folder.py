"""Folders that a command makes: nothing of anybody else's is in them, and what can't be finished leaves nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deltascene.pipeline.errors import OutputError, UsageError


def refuse_full(folder: Path) -> None:
    """Asks for a folder that isn't there yet, or is empty.

    Raises:
        UsageError: something is there.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        found = "files in it" if folder.is_dir() else "a file"
        raise UsageError(f"{folder}: expected no such folder, or an empty one; found {found}")


@contextmanager
def filled_or_emptied(folder: Path) -> Iterator[None]:
    """Makes a folder and lets files be written into it; those are taken back when the writing fails.

    Args:
        folder: `refuse_full` let it pass.

    Raises:
        OutputError: it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: can't be written: {error.strerror or error}; choose another") from error
    try:
        yield
    except BaseException:
        for path in folder.iterdir():
            path.unlink()
        raise
