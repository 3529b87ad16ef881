"""Errors of the pipeline; the whole tree is drawn in `deltascene.errors`."""

import difflib
from collections.abc import Iterable

from deltascene.errors import DeltasceneError, ExitCode


class UsageError(DeltasceneError):
    """A value of the command or of its files can't be used."""

    exit_code = ExitCode.USAGE


class BundleError(UsageError):
    """A model bundle can't be read, or its parts don't fit together."""


class ConfigError(UsageError):
    """A config key doesn't exist, or a value isn't allowed."""


class OutputError(UsageError):
    """The output folder can't be used for this run."""


class Overtaken(OutputError):  # noqa: N818 - reads as what happened
    """Another run took over the output folder from this one."""


class WorkerLost(DeltasceneError):  # noqa: N818 - reads as what happened
    """A process that computes a part of a run died."""

    exit_code = ExitCode.INPUT_FAILED


class EncoderFailed(DeltasceneError):  # noqa: N818 - reads as what happened
    """A video can't be encoded."""

    exit_code = ExitCode.INPUT_FAILED


class NoCapacity(DeltasceneError):  # noqa: N818 - reads as what happened
    """No machine of the cluster has room for a worker."""

    exit_code = ExitCode.INPUT_FAILED


class Stopped(DeltasceneError):  # noqa: N818 - reads as what happened
    """A run was stopped by a signal, without finishing its segments."""

    exit_code = ExitCode.STOPPED


class DiskFull(DeltasceneError):  # noqa: N818 - reads as what happened
    """The output's disk is full."""

    exit_code = ExitCode.DISK_FULL


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at the known word that was probably meant: `; did you mean 'x'?`, or an empty text."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
