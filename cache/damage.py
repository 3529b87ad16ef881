"""What libraries raise when a file isn't what its name says, as one error of ours with one line."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path

from deltascene.errors import DeltasceneError

# JSON, YAML, Zarr, Parquet and numpy each raise what their insides ran into: any of these, by the way a value is wrong.
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
    """Turns what reading damaged data raises into one error.

    An error of this package passes, as it says more, and so does a full disk.

    Args:
        error_class: of what is raised.
        what: was read.
        way_out: for whoever reads the error.

    Raises:
        Exception: of that class, where something is damaged.
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
