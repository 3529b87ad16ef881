"""Errors of inputs; the whole tree is drawn in `deltascene.errors`."""

from deltascene.errors import DeltasceneError, ExitCode


class SourceError(DeltasceneError):
    """A source can't be used."""

    exit_code = ExitCode.INPUT_FAILED


class SourceNotFound(SourceError):  # noqa: N818 - reads as what happened
    """No source is at the path given."""

    exit_code = ExitCode.USAGE


class UnreadableSource(SourceError):  # noqa: N818 - reads as what happened
    """A source exists and can't be decoded."""
