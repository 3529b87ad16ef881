"""New folders of a command: they must be empty, and are emptied again when the command fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deltascene.pipeline.errors import OutputError, UsageError


def refuse_full(folder: Path) -> None:
    """Refuses a folder that exists and isn't empty.

    Raises:
        UsageError: it holds files, or is a file itself.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        found = "files in it" if folder.is_dir() else "a file"
        raise UsageError(f"{folder}: expected no such folder, or an empty one; found {found}")


@contextmanager
def filled_or_emptied(folder: Path) -> Iterator[None]:
    """Makes a folder for files that are written inside the context, and removes these when that fails.

    Args:
        folder: a folder that `refuse_full` accepted.

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
