"""Refuses links, pipes and devices in an output folder, so that a run writes and removes nothing outside of it.

A link there may have been unpacked from somebody else's archive; what is written below it would land outside.
"""

import os
import stat
from pathlib import Path

from deltascene.cache.places import Place
from deltascene.pipeline.errors import OutputError


def refuse_links(root: Place, *, below: bool = False) -> None:
    """Refuses a folder that contains a link, pipe or device; the folder itself may be a link, as the user named it.

    Args:
        root: the folder. One that doesn't exist passes, and so does an object store, which has no links.
        below: whether to look into its folders, too.

    Raises:
        OutputError: the folder contains one.
    """
    if not isinstance(root, Path) or not root.is_dir():
        return
    with os.scandir(root) as entries:
        for entry in entries:
            mode = entry.stat(follow_symlinks=False).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                found = f"a link to {os.readlink(entry.path)}" if stat.S_ISLNK(mode) else "a pipe or a device"
                raise OutputError(f"{entry.path}: expected a file or folder of a run; found {found}; remove it")
            if below and stat.S_ISDIR(mode):
                refuse_links(Path(entry.path), below=True)


def refuse_pipes(root: Place) -> None:
    """Refuses to read a folder that contains a pipe or device at any depth: reading a pipe would wait for a writer.

    Raises:
        OutputError: the folder contains one.
    """
    if not isinstance(root, Path):
        return
    for folder, _, names in os.walk(root):
        for path in (Path(folder, name) for name in names):
            if path.exists() and not path.is_file():
                raise OutputError(f"{path}: expected a file of a run; found a pipe or a device; remove it")
