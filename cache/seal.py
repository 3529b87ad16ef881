"""Seals of a video's parts: what a finished segment's results are, and what they were made from.

A segment without its seal doesn't exist: a reader lists sealed files, and a run that was cut off redoes what has none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltascene.cache.errors import BrokenSeal
from deltascene.cache.places import Place
from deltascene.cache.sealed_zip import SealedZip, write_sealed


@dataclass(frozen=True, slots=True)
class Seal:
    """A finished segment.

    Attributes:
        start: number of its first frame among the processed frames.
        frames: how many it holds.
        next_index: where in the source the frame after it lies.
        fingerprint: of everything that its result depends on.
        token: of the run that wrote it.
        files: size in bytes and SHA-256 of everything in it, by name.
        input_full: hash of every byte of the input that it was made from; empty where that isn't known.
    """

    start: int
    frames: int
    next_index: int
    fingerprint: str
    token: str
    files: Mapping[str, tuple[int, str]]
    input_full: str = ""


def write_part(folder: Path, path: Place, about: Mapping[str, Any]) -> Seal:
    """Seals a segment whose files are all in a folder. If another writer sealed the same one meanwhile, that stays.

    Args:
        folder: its files; nothing else.
        path: of the sealed segment.
        about: the fields of `Seal` but its files.

    Raises:
        BrokenSeal: what the other writer left is something else.
    """
    if (sealed := write_sealed(folder, path, lambda sums: about)) is not None:
        return Seal(**sealed)
    there = read_seal(path)
    if (there.fingerprint, there.frames) != (about["fingerprint"], about["frames"]):
        raise BrokenSeal(f"{path}: another writer sealed something else there meanwhile; run the same command again")
    return there


def read_seal(path: Place) -> Seal:
    """Reads a seal and checks that its files are there whole.

    Raises:
        BrokenSeal: the seal can't be read, or a file isn't what was sealed.
        FileNotFoundError: there is none.
    """
    with SealedZip(path) as sealed:
        seal = seal_of(sealed)
        sealed.check()
    return seal


def seal_of(sealed: SealedZip) -> Seal:
    """The seal of an open segment, once it makes sense; its files aren't checked.

    Raises:
        BrokenSeal: it doesn't.
    """
    try:
        seal = Seal(**sealed.fields)
    except TypeError as error:
        raise BrokenSeal(f"{sealed.path}: not a seal: {error}") from error
    numbers = (seal.start, seal.frames, seal.next_index)
    if not all(type(number) is int and number >= 0 for number in numbers) or seal.frames < 1:
        raise BrokenSeal(
            f"{sealed.path}: not a seal: expected a start and a number of frames; found {str(numbers)[:80]}"
        )
    if not isinstance(seal.fingerprint, str) or not isinstance(seal.input_full, str):
        raise BrokenSeal(f"{sealed.path}: not a seal: expected a fingerprint")
    return seal
