"""Where results are stored: folders on a disk or prefixes in an object store; this module hides the differences.

A `Place` is a `pathlib.Path`, or a `upath.UPath`, which has the same methods over fsspec. Both can create a file only
if it doesn't exist (`open("xb")`, a conditional put); locks and seals depend on that.
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

STORES = ("s3", "s3a")  # stores that results can be written to, as they can create an object only if there is none
_BLOCK = 1 << 20  # bytes that are fetched from an object store at least


def place(text: str | Place) -> Place:
    """A folder or file by its path or URL.

    Raises:
        NoSuchStore: the protocol of the URL is unknown, or its library isn't installed.
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
    """Checks that a run may write to a folder, and returns it.

    Raises:
        NoSuchStore: its store has no conditional put, so that two writers could overwrite each other.
    """
    if not isinstance(folder, Path) and folder.protocol not in STORES:
        raise NoSuchStore(
            f"{folder}: expected a folder or an s3:// URL, where two writers can't overwrite each other;"
            f" found {folder.protocol}://"
        )
    return folder


def absolute(folder: Place) -> Place:
    """The same place as an absolute path, for other processes."""
    return folder.resolve() if isinstance(folder, Path) else folder


def write_whole(path: Place, data: str | bytes) -> None:
    """Writes a file so that a reader sees all of it or nothing; a link of that name is replaced, not followed."""
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
    """Writes a small file as a whole unless it exists; returns whether it was written."""
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
    """Moves a finished local file to its place as a whole; an existing file is replaced."""
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sync(file)
        os.replace(file, path)
        return
    path.fs.put_file(str(file), path.path)
    file.unlink()


def put_new(file: Path, path: Place) -> bool:
    """Moves a finished local file to its place as a whole unless that exists; returns whether it was moved."""
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
    """Moves the files of a local folder below a place; the file named `last` is moved last."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for file in sorted(files, key=lambda each: each.relative_to(folder).as_posix() == last):
        put(file, path / file.relative_to(folder).as_posix())


def remove(path: Place) -> None:
    """Removes a file, or a folder with its contents, if it exists. Links are removed, never followed."""
    if not isinstance(path, Path):
        with suppress(FileNotFoundError):
            path.fs.rm(path.path, recursive=True)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def scratch(beside: Place) -> Iterator[Path]:
    """A local temporary folder for files that are being written, on the same disk as the place if that is local."""
    path = new_scratch(beside)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def new_scratch(beside: Place, name: str = "try") -> Path:
    """A folder like that of `scratch`, which the caller removes."""
    if not isinstance(beside, Path):
        return Path(tempfile.mkdtemp(prefix="deltascene-"))
    path = beside / "unfinished" / f"{name}.{secrets.token_hex(4)}"
    path.mkdir(parents=True)
    return path


def open_anywhere(path: Place) -> BinaryIO:
    """Opens a file for reading at any offset.

    Raises:
        OSError: it can't be opened, or it is a pipe, which would wait for a writer.
    """
    if isinstance(path, Path):
        if path.exists() and not path.is_file():
            raise OSError(EINVAL, "expected a file; found something else", str(path))
        return path.open("rb")
    return cast(BinaryIO, path.fs.open(path.path, "rb", block_size=_BLOCK))


def zarr_url(path: Place) -> dict[str, Any]:
    """Arguments of `zarr.open_group` for a group at a place."""
    if isinstance(path, Path):
        return {"store": path}
    return {"store": str(path), "storage_options": dict(path.storage_options)}


def free_bytes(folder: Place) -> int | None:
    """Free bytes on the disk of a folder; None for an object store."""
    return shutil.disk_usage(folder).free if isinstance(folder, Path) else None


def _sync(file: Path) -> None:
    with file.open("rb") as data:
        os.fsync(data.fileno())


def _link(file: Path, path: Path) -> None:
    """Gives a file a second name unless that exists; on a disk without hard links, copies it to a new file.

    Raises:
        FileExistsError: there is a file of that name.
    """
    try:
        os.link(file, path)
    except OSError as error:
        if error.errno not in (EPERM, ENOTSUP, EOPNOTSUPP):
            raise
        with path.open("xb"):
            pass
        shutil.copyfile(file, path)
