"""Errors that a person caused or can mend; each is one clear line and knows its exit code.

DeltasceneError              exit code
├── UsageError               2   an option, key, name or path that can't be used
│   ├── BundleError          2   a model bundle that can't be read or doesn't fit together
│   ├── ConfigError          2   an unknown key or a value out of range
│   └── OutputError          2   the output folder belongs to another run, is in use, or can't be written
│       └── Overtaken        2   another run took it over, as this one was taken for dead
├── SourceError              3   an input that can't be read (see sources.py)
├── WorkerLost               3   an input whose workers were lost again and again
├── EncoderFailed            3   an input whose overlay can't be encoded
├── NoPlace                  3   no machine of a cluster has room for any lane any more
└── DiskFull                 4   no room left; what was finished is sealed
"""

import difflib
from collections.abc import Iterable


class DeltasceneError(Exception):
    """Base of all errors whose text is meant for the user."""

    exit_code = 1


class UsageError(DeltasceneError):
    """Something in the command can't be used."""

    exit_code = 2


class BundleError(UsageError):
    """A model bundle can't be read, or its parts don't fit together."""


class ConfigError(UsageError):
    """A config key or value that doesn't exist or isn't allowed."""


class OutputError(UsageError):
    """The output folder can't be used for this run."""


class Overtaken(OutputError):  # noqa: N818 - reads as what happened
    """Another run took over the output folder from this one."""


class WorkerLost(DeltasceneError):  # noqa: N818 - reads as what happened
    """A process that computes a part of a run is gone."""

    exit_code = 3


class EncoderFailed(DeltasceneError):  # noqa: N818 - reads as what happened
    """A video can't be encoded."""

    exit_code = 3


class NoPlace(DeltasceneError):  # noqa: N818 - reads as what happened
    """No machine has room for what computes."""

    exit_code = 3


class Stopped(DeltasceneError):  # noqa: N818 - reads as what happened
    """A run was stopped from outside, at once."""

    exit_code = 130


class DiskFull(DeltasceneError):  # noqa: N818 - reads as what happened
    """No room left on the output's disk."""

    exit_code = 4


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at what was probably meant: `; did you mean 'x'?`, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
