"""Where results lie: folders of a disk, or prefixes of an object store. What differs between the two is in this file.

A `Place` is a `pathlib.Path`, or a `upath.UPath`, which has the same methods over fsspec. Both can make a file only if
none is there (`open("xb")`, a conditional put), which is what locks and seals rest on.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EINVAL, ENOTSUP, EOPNOTSUPP, EPERM
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from upath import UPath

from deltascene.cache.errors import NoSuchStore

Place: TypeAlias = Path | UPath

STORES = ("s3", "s3a")  # written to; they can create an object only if there is none
_BLOCK = 1 << 20  # bytes that a read at some offset asks an object store for


def place(text: str | Place) -> Place:
    """A folder or file by its path or URL.

    Raises:
        NoSuchStore: of a URL whose protocol isn't known, or lacks its library.
    """
    if not isinstance(text, str):
        return text
    protocol, separator, rest = text.partition("://")
    if not separator:
        return Path(text)
    if protocol == "file":
        return Path("/" + rest.lstrip("/"))
    try:
        found = UPath(text, use_listings_cache=False)
        _ = found.fs
    except (ValueError, ImportError) as error:
        raise NoSuchStore(f"{protocol}://: expected a path or a URL that fsspec opens; {error}") from error
    return found


def writable(folder: Place) -> Place:
    """A folder that a run may write to.

    Raises:
        NoSuchStore: its store can't create an object only if there is none.
    """
    if not isinstance(folder, Path) and folder.protocol not in STORES:
        raise NoSuchStore(
            f"{folder}: expected a folder or an s3:// URL, where two writers can't overwrite each other;"
            f" found {folder.protocol}://"
        )
    return folder


def absolute(folder: Place) -> Place:
    """The same place for any process."""
    return folder.resolve() if isinstance(folder, Path) else folder


def write_whole(path: Place, data: str | bytes) -> None:
    """Writes a file so that a reader sees all of it or nothing; a link in its place is replaced, not followed."""
    content = data.encode() if isinstance(data, str) else data
    if not isinstance(path, Path):
        path.write_bytes(content)
        return
    partial = path.with_name(path.name + ".part")
    partial.unlink(missing_ok=True)
    with partial.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def create_whole(path: Place, data: bytes) -> bool:
    """Writes a small file, whole at once, unless one is there; whether it was done."""
    if not isinstance(path, Path):
        try:
            with path.open("xb") as out:
                out.write(data)
        except FileExistsError:
            return False
        return True
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    partial.write_bytes(data)
    try:
        return put_new(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def put(file: Path, path: Place) -> None:
    """Moves a finished local file to its place, whole, over what is there."""
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sync(file)
        os.replace(file, path)
        return
    path.fs.put_file(str(file), path.path)
    file.unlink()


def put_new(file: Path, path: Place) -> bool:
    """Moves a finished local file to its place, whole, unless something is there; whether it was done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if isinstance(path, Path):
            _sync(file)
            _link(file, path)
        else:
            with file.open("rb") as data, path.open("xb") as out:
                shutil.copyfileobj(data, out, 8 * _BLOCK)
    except FileExistsError:
        return False
    file.unlink()
    return True


def put_tree(folder: Path, path: Place, last: str = "") -> None:
    """Moves the files of a local folder below a place; the one named comes last."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for file in sorted(files, key=lambda each: each.relative_to(folder).as_posix() == last):
        put(file, path / file.relative_to(folder).as_posix())


def remove(path: Place) -> None:
    """Removes a file or a folder with all that is in it, if it is there. Links are removed, never followed."""
    if not isinstance(path, Path):
        with suppress(FileNotFoundError):
            path.fs.rm(path.path, recursive=True)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def scratch(beside: Place) -> Iterator[Path]:
    """A local folder of one's own for files that are still written: on the same disk, where there is one."""
    path = new_scratch(beside)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def new_scratch(beside: Place, name: str = "try") -> Path:
    """As `scratch`; whoever asks removes it."""
    if not isinstance(beside, Path):
        return Path(tempfile.mkdtemp(prefix="deltascene-"))
    path = beside / "unfinished" / f"{name}.{secrets.token_hex(4)}"
    path.mkdir(parents=True)
    return path


def open_anywhere(path: Place) -> BinaryIO:
    """A file for reads at some offsets.

    Raises:
        OSError: it can't be opened, or is a pipe, which would wait for a writer.
    """
    if isinstance(path, Path):
        if path.exists() and not path.is_file():
            raise OSError(EINVAL, "expected a file; found something else", str(path))
        return path.open("rb")
    return cast(BinaryIO, path.fs.open(path.path, "rb", block_size=_BLOCK))


def zarr_url(path: Place) -> dict[str, Any]:
    """What `zarr.open_group` needs to find a store."""
    if isinstance(path, Path):
        return {"store": path}
    return {"store": str(path), "storage_options": dict(path.storage_options)}


def free_bytes(folder: Place) -> int | None:
    """What a disk has left; None for a store without an end."""
    return shutil.disk_usage(folder).free if isinstance(folder, Path) else None


def _sync(file: Path) -> None:
    with file.open("rb") as data:
        os.fsync(data.fileno())


def _link(file: Path, path: Path) -> None:
    """A second name, which fails where there is a file; disks without links get the next best."""
    try:
        os.link(file, path)
    except OSError as error:
        if error.errno not in (EPERM, ENOTSUP, EOPNOTSUPP):
            raise
        with path.open("xb"):
            pass
        shutil.copyfile(file, path)
