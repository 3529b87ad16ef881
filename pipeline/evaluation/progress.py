"""How a long evaluation shows how far it is, without knowing who watches."""

from typing import Protocol


class Progress(Protocol):
    """A callback for the steps of a piece of work."""

    def __call__(self, work: str, done: int, total: int) -> None:
        """Is called at the start of a piece of work and after each of its steps.

        Args:
            work: name of the piece of work; several may be in progress.
            done: number of steps that are finished.
            total: number of steps in all.
        """


def unseen(work: str, done: int, total: int) -> None:
    """A progress callback that shows nothing."""
