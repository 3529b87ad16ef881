"""Errors of the store; the whole tree is drawn in `deltascene.errors`."""

from deltascene.errors import DeltasceneError, ExitCode


class CacheError(DeltasceneError):
    """Something in the store can't be used."""

    exit_code = ExitCode.USAGE


class BrokenSeal(CacheError):  # noqa: N818 - reads as what happened
    """What lies on disk isn't what was sealed."""


class NotArchived(CacheError):  # noqa: N818
    """What was asked for was never sealed."""


class WrongFingerprint(CacheError):  # noqa: N818
    """What is stored was made from another input, config, model or machine."""


class AlreadySealed(CacheError):  # noqa: N818
    """A sealed segment doesn't change."""


class LostWriter(CacheError):  # noqa: N818
    """The unfinished segment isn't this writer's any more."""


class WrongRecord(CacheError):  # noqa: N818
    """A frame's record doesn't have the form that its segment promises."""


class NothingDense(CacheError):  # noqa: N818
    """Changed rows can't be laid over a frame that was never computed."""


class NoSuchStore(CacheError):  # noqa: N818
    """A place that can't be opened, or where writers could overwrite each other."""
