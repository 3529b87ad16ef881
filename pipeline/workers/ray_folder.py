"""A short folder for the sockets of a cluster of our own, where the one that Ray would take can't hold them.

A socket's path has 107 bytes at most, and what Ray adds to its folder takes most of them.
"""

import os
import tempfile
from collections.abc import Mapping

from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.text import shown

LONGEST = 39  # bytes: 107 less what Ray adds, `/ray/session_<time>_<process>/sockets/plasma_store`
_SHORT = ("/tmp", "/var/tmp", "/dev/shm")
_NAMES = ("RAY_TMPDIR", "TMPDIR")  # in Ray's order


def short_folder(environment: Mapping[str, str]) -> tempfile.TemporaryDirectory[str] | None:
    """A private folder that is removed by its `cleanup`, or at the end of the process; None if Ray's choice will do.

    Args:
        environment: variables of this process.

    Raises:
        UsageError: there is no place for such a folder.
    """
    name = next((name for name in _NAMES if name in environment), None)
    if _fits(environment[name] if name else _SHORT[0]):
        return None
    for base in _SHORT:
        if os.path.isdir(base) and os.access(base, os.W_OK | os.X_OK):
            return tempfile.TemporaryDirectory(prefix="ray", dir=base, ignore_cleanup_errors=True)
    raise UsageError(
        f"{name or 'TMPDIR'}: expected a folder for Ray's sockets, writable, ASCII, of at most {LONGEST} bytes;"
        f" found {shown(environment[name] if name else _SHORT[0])}; set RAY_TMPDIR to one, or take --executor local"
    )


def _fits(folder: str) -> bool:
    """Whether Ray can make its sockets in the folder `ray` below a folder."""
    there = os.path.join(folder, "ray")
    place = there if os.path.lexists(there) else folder  # one of another user's can't be used
    usable = os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK)
    return folder.isascii() and os.path.isabs(folder) and len(folder) <= LONGEST and usable
