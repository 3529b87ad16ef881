"""Seals: a small file, written last, that says which files make up a finished segment and what they must contain.

A segment without its seal doesn't exist: a reader lists seals, and a run that was cut off redoes what has none.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deltascene.cache.errors import BrokenSeal
from deltascene.cache.keys import file_sha256

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Seal:
    """A finished segment.

    Attributes:
        start: number of its first frame among the processed frames.
        frames: how many it holds.
        next_index: where in the source the frame after it lies.
        fingerprint: of everything that its result depends on.
        token: of the run that wrote it.
        files: size in bytes and SHA-256 of every file, by path below the folder that holds the seals' folder.
    """

    start: int
    frames: int
    next_index: int
    fingerprint: str
    token: str
    files: Mapping[str, tuple[int, str]]


def write_whole(path: Path, text: str) -> None:
    """Writes a text file so that a reader sees all of it or nothing."""
    write_whole_bytes(path, text.encode())


def write_whole_bytes(path: Path, data: bytes) -> None:
    """Writes a file so that a reader sees all of it or nothing."""
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def file_sums(root: Path, files: Iterable[Path]) -> dict[str, tuple[int, str]]:
    """Size in bytes and SHA-256 of files, by path below a folder, in the order of their names."""
    return {file.relative_to(root).as_posix(): (file.stat().st_size, file_sha256(file)) for file in sorted(files)}


def check_files(root: Path, sums: Mapping[str, tuple[int, str]]) -> None:
    """Compares files with their sums.

    Raises:
        BrokenSeal: one is missing, of another size, has other bytes, or lies outside the folder.
    """
    for name, (size, sum_) in sums.items():
        _check(root, name, size, sum_)


def write_seal_file(path: Path, fields: Mapping[str, Any], format_: int = FORMAT) -> None:
    """Writes a seal: the last file of what it seals."""
    write_whole(path, json.dumps({"format": format_, **fields}, indent=1) + "\n")


def read_seal_file(path: Path, format_: int = FORMAT) -> dict[str, Any]:
    """The fields of a seal, its files as size and sum; what they hold isn't checked here.

    Raises:
        BrokenSeal: it can't be read.
    """
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != format_:
            raise BrokenSeal(f"{path}: expected format {format_}")
        files = {str(name): (int(size), str(sum_)) for name, (size, sum_) in data["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenSeal(f"{path}: not a seal: {error}") from error
    return {**data, "files": files}


def write_seal(path: Path, root: Path, seal_of: Mapping[str, Any], files: Iterable[Path]) -> Seal:
    """Seals a segment whose files are all written.

    Args:
        path: of the seal.
        root: folder that the files' names are kept relative to.
        seal_of: the other fields of `Seal`.
        files: what belongs to the segment.
    """
    seal = Seal(files=file_sums(root, files), **seal_of)
    write_seal_file(path, asdict(seal))
    return seal


def read_seal(path: Path, root: Path) -> Seal:
    """Reads a seal and checks that its files are there whole.

    Raises:
        BrokenSeal: the seal can't be read, or a file isn't what was sealed.
    """
    fields = read_seal_file(path)
    try:
        seal = Seal(**fields)
    except TypeError as error:
        raise BrokenSeal(f"{path}: not a seal: {error}") from error
    check_files(root, seal.files)
    return seal


def _check(root: Path, name: str, size: int, sum_: str) -> None:
    file = (root / name).resolve()
    if not file.is_relative_to(root.resolve()):
        raise BrokenSeal(f"{name}: lies outside {root}")
    if not file.is_file():
        raise BrokenSeal(f"{file}: sealed, but missing")
    if file.stat().st_size != size:
        raise BrokenSeal(f"{file}: expected {size} bytes, as sealed; found {file.stat().st_size}")
    if file_sha256(file) != sum_:
        raise BrokenSeal(f"{file}: its bytes aren't those that were sealed")
