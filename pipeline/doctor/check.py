"""One check of `deltascene doctor`, and the check that stands for one that failed unexpectedly."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from deltascene.pipeline.text import one_line


@dataclass(frozen=True, slots=True)
class Check:
    """Result of one check.

    Attributes:
        name: name of what was checked.
        status: `problem` keeps deltascene from working, `warning` makes it slower or smaller.
        found: what is there.
        way_out: what the user can do about a problem or warning.
    """

    name: str
    status: Literal["ok", "warning", "problem"]
    found: str
    way_out: str = ""


Examination = Callable[[], list[Check]]


def guarded(name: str, examination: Examination) -> list[Check]:
    """The checks of an examination, or a problem if the examination itself fails, so that the others are still made."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return examination()
    except Exception as error:  # a broken installation can fail in any way, and that is what is reported
        found = f"{type(error).__name__}: {one_line(error)}"
        return [Check(name, "problem", found, "reinstall deltascene in a fresh environment, or report this table")]
