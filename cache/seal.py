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
    partial = path.with_name(path.name + ".part")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def write_seal(path: Path, root: Path, seal_of: Mapping[str, Any], files: Iterable[Path]) -> Seal:
    """Seals a segment whose files are all written.

    Args:
        path: of the seal.
        root: folder that the files' names are kept relative to.
        seal_of: the other fields of `Seal`.
        files: what belongs to the segment.
    """
    sums = {str(file.relative_to(root)): (file.stat().st_size, file_sha256(file)) for file in sorted(files)}
    seal = Seal(files=sums, **seal_of)
    write_whole(path, json.dumps({"format": FORMAT, **asdict(seal)}, indent=1) + "\n")
    return seal


def read_seal(path: Path, root: Path) -> Seal:
    """Reads a seal and checks that its files are there whole.

    Raises:
        BrokenSeal: the seal can't be read, or a file isn't what was sealed.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise BrokenSeal(f"{path}: expected format {FORMAT}")
        seal = Seal(**{**data, "files": {name: (int(size), str(sum_)) for name, (size, sum_) in data["files"].items()}})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenSeal(f"{path}: not a seal: {error}") from error
    for name, (size, sum_) in seal.files.items():
        _check(root, name, size, sum_)
    return seal


def _check(root: Path, name: str, size: int, sum_: str) -> None:
    file = (root / name).resolve()
    if not file.is_relative_to(root.resolve()):
        raise BrokenSeal(f"{name}: lies outside {root}")
    if not file.is_file():
        raise BrokenSeal(f"{file}: sealed, but missing")
    if file.stat().st_size != size or file_sha256(file) != sum_:
        raise BrokenSeal(f"{file}: its bytes aren't those that were sealed")
