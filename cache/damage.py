"""Turns the errors that libraries raise for damaged files into one error of this package with a short message."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path

from deltascene.errors import DeltasceneError

# JSON, YAML, Zarr, Parquet and numpy raise any of these on damaged data, depending on which value is wrong.
DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    RecursionError,
    MemoryError,
    OSError,
)


@contextmanager
def reraise_damage(error_class: Callable[[str], Exception], what: Path | str, way_out: str) -> Iterator[None]:
    """Turns errors of reading damaged data into one error.

    Errors of this package pass unchanged, as they are more precise, and so does that of a full disk.

    Args:
        error_class: class of the error that is raised.
        what: what was read.
        way_out: what the user can do, for the message.

    Raises:
        Exception: of that class, if the data is damaged.
    """
    try:
        yield
    except DAMAGE as error:
        full = isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT)
        if full or isinstance(error, DeltasceneError):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        found = " ".join(str(error).split())[:120]
        where = f"{Path(place.filename).name}:{place.lineno}"
        raise error_class(f"{what}: can't be read: {type(error).__name__} at {where}: {found}; {way_out}") from error
