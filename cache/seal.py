"""Seals of a video's results: what a finished segment holds, and what it was made from.

A segment without its seal doesn't exist: a reader lists sealed files, and a run that was stopped computes every segment
again that has none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltascene.cache.base_seal import BaseSeal
from deltascene.cache.errors import BrokenSeal
from deltascene.cache.places import Place
from deltascene.cache.sealed_zip import SealedZip, write_sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal(BaseSeal):
    """The seal of a finished segment's results.

    Attributes:
        fingerprint: hash of everything that the results depend on.
        input_full: hash of every byte of the input that they were made from; empty where that isn't known.
    """

    fingerprint: str
    input_full: str = ""

    def own_problem(self) -> str:
        """Names a hash that isn't text."""
        for name in ("fingerprint", "input_full"):
            if not isinstance(getattr(self, name), str):
                return f"{name}: expected a hash; found {str(getattr(self, name))[:80]}"
        return ""


def write_part(folder: Path, path: Place, about: Mapping[str, Any]) -> Seal:
    """Seals a segment whose files are all in a folder; one that another writer sealed in the meantime stays.

    Args:
        folder: its files; nothing else.
        path: path of the sealed segment.
        about: the fields of `Seal` without `files`.

    Returns:
        The seal of the segment that is there now.

    Raises:
        BrokenSeal: the other writer sealed something else.
    """
    if (sealed := write_sealed(folder, path, lambda sums: about)) is not None:
        return Seal(**sealed)
    there = read_seal(path)
    if (there.fingerprint, there.frames) != (about["fingerprint"], about["frames"]):
        raise BrokenSeal(f"{path}: another writer sealed something else there; run the same command again")
    return there


def read_seal(path: Place) -> Seal:
    """Reads a seal and checks all files of its segment.

    Raises:
        BrokenSeal: the seal can't be read, or a file isn't what was sealed.
        FileNotFoundError: the segment isn't there.
    """
    with SealedZip(path) as sealed:
        seal = Seal.of(sealed)
        sealed.check()
    return seal
