"""Errors of the pipeline; the whole tree is drawn in `deltascene.errors`."""

import difflib
from collections.abc import Iterable

from deltascene.errors import DeltasceneError, ExitCode


class UsageError(DeltasceneError):
    """Something in the command can't be used."""

    exit_code = ExitCode.USAGE


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

    exit_code = ExitCode.INPUT_FAILED


class EncoderFailed(DeltasceneError):  # noqa: N818 - reads as what happened
    """A video can't be encoded."""

    exit_code = ExitCode.INPUT_FAILED


class NoCapacity(DeltasceneError):  # noqa: N818 - reads as what happened
    """No machine has room for what computes."""

    exit_code = ExitCode.INPUT_FAILED


class Stopped(DeltasceneError):  # noqa: N818 - reads as what happened
    """A run was stopped from outside, at once."""

    exit_code = ExitCode.STOPPED


class DiskFull(DeltasceneError):  # noqa: N818 - reads as what happened
    """No room left on the output's disk."""

    exit_code = ExitCode.DISK_FULL


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at what was probably meant: `; did you mean 'x'?`, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
