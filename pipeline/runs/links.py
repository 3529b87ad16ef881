"""Nothing that isn't a run's own is written or removed by way of OUT: what lies in it are files and folders, no links.

A link in OUT may have come with an archive from somebody else, and whatever is written below it would land elsewhere.
"""

import os
import stat
from pathlib import Path

from deltascene.cache.places import Place
from deltascene.pipeline.errors import OutputError


def refuse_links(root: Place, *, below: bool = False) -> None:
    """Refuses a folder with a link, pipe or device in it; the folder itself may be a link, as somebody named it.

    Args:
        root: the folder; one that isn't there is fine, and so is an object store, which has no links.
        below: look into its folders, too.

    Raises:
        OutputError: there is one.
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
    """Refuses to read where something below is neither file nor folder: a pipe would wait for a writer.

    Raises:
        OutputError: there is such a thing.
    """
    if not isinstance(root, Path):
        return
    for folder, _, names in os.walk(root):
        for path in (Path(folder, name) for name in names):
            if path.exists() and not path.is_file():
                raise OutputError(f"{path}: expected a file of a run; found a pipe or a device; remove it")
