"""Errors of the store; the whole tree is drawn in `deltascene.errors`."""

from deltascene.errors import DeltasceneError, ExitCode


class CacheError(DeltasceneError):
    """Something in the store can't be used."""

    exit_code = ExitCode.USAGE


class BrokenSeal(CacheError):  # noqa: N818 - reads as what happened
    """Stored bytes aren't those that were sealed."""


class NotArchived(CacheError):  # noqa: N818
    """A requested segment or archive point was never sealed."""


class WrongFingerprint(CacheError):  # noqa: N818
    """A stored segment was made from another input, config, model or machine."""


class AlreadySealed(CacheError):  # noqa: N818
    """A segment can't be written because it is sealed already."""


class LostWriter(CacheError):  # noqa: N818
    """Another writer began the same segment; this one can't seal it any more."""


class WrongRecord(CacheError):  # noqa: N818
    """A frame's record doesn't have the form that its segment promises."""


class NothingDense(CacheError):  # noqa: N818
    """Changed rows can't be laid over a frame that was never computed."""


class NoSuchStore(CacheError):  # noqa: N818
    """A store can't be opened, or can't keep two writers from overwriting each other."""
