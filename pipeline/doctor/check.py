"""One line of `deltascene doctor`, and what becomes of a check that fails in a way nobody thought of."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from deltascene.pipeline.text import one_line


@dataclass(frozen=True, slots=True)
class Check:
    """What was found.

    Attributes:
        name: of the thing.
        status: `problem` keeps deltascene from working, `warning` makes it slower or smaller.
        found: what is there.
        way_out: what to do about a problem or warning.
    """

    name: str
    status: Literal["ok", "warning", "problem"]
    found: str
    way_out: str = ""


Examination = Callable[[], list[Check]]


def guarded(name: str, examination: Examination) -> list[Check]:
    """The checks of an examination; one problem when it fails itself, so that the others are still made."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return examination()
    except Exception as error:  # a broken installation fails in any way; saying so is what a doctor is for
        found = f"{type(error).__name__}: {one_line(error)}"
        return [Check(name, "problem", found, "reinstall deltascene in a fresh environment, or report this table")]
