"""Errors of the store.

CacheError
└── BrokenSeal   a sealed part is missing, of another size, or its bytes changed
"""


class CacheError(Exception):
    """Something in the store can't be used."""


class BrokenSeal(CacheError):  # noqa: N818 - reads as what happened
    """What lies on disk isn't what was sealed."""
