"""What every sealed file says of itself, and how that is read: the base of the seals of results and of archives."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from deltascene.cache.errors import BrokenSeal
from deltascene.cache.sealed_zip import SealedZip

_LARGEST = 1 << 63  # numbers of a seal lie below


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSeal:
    """The seal of a segment, whatever was made of it.

    Attributes:
        start: number of its first frame among the processed frames.
        frames: number of its frames.
        next_index: number in the source of the frame after its last one.
        token: token of the run that wrote it.
        files: size in bytes and SHA-256 of everything in it, by name.
    """

    start: int
    frames: int
    next_index: int
    token: str
    files: Mapping[str, tuple[int, str]]

    @classmethod
    def of(cls, sealed: SealedZip) -> Self:
        """Reads the seal of an open segment and checks its values; its files aren't checked.

        Raises:
            BrokenSeal: a value is missing, unknown or wrong.
        """
        try:
            seal = cls(**sealed.fields)
        except TypeError as error:
            raise BrokenSeal(f"{sealed.path}: not a seal: {error}") from error
        numbers = (seal.start, seal.frames, seal.next_index)
        if not all(is_count(number) for number in numbers) or seal.frames < 1:
            problem = f"expected a start, a number of frames and the next frame; found {str(numbers)[:80]}"
        else:
            problem = seal.own_problem()
        if problem:
            raise BrokenSeal(f"{sealed.path}: not a seal: {problem}")
        return seal

    def own_problem(self) -> str:
        """What is wrong with the fields that a kind of seal adds; empty if nothing is."""
        return ""


def is_count(value: object) -> bool:
    """Whether a value from a seal is a whole number from 0 on."""
    return type(value) is int and 0 <= value < _LARGEST
