"""Errors of the store.

CacheError
├── BrokenSeal         a sealed part is missing, of another size, or its bytes changed
├── NotArchived        no such segment, archive point or frame was sealed
├── WrongFingerprint   it was made from something else: the text names the first thing that differs
├── AlreadySealed      a sealed segment is never written again, unless that is asked for
├── LostWriter         another writer began the same segment meanwhile
├── WrongRecord        a frame doesn't fit the segment that it is added to
└── NoSuchStore        a place that can't be opened, or can't be written safely
"""


class CacheError(Exception):
    """Something in the store can't be used."""


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


class NoSuchStore(CacheError):  # noqa: N818
    """A place that can't be opened, or where writers could overwrite each other."""
