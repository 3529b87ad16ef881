"""Errors of the room generator; the whole tree is drawn in `deltascene.errors`."""

from deltascene.pipeline.errors import UsageError


class RoomsError(UsageError):
    """Base of every error of the room generator."""


class MeshesMissing(RoomsError):  # noqa: N818 - reads as what happened
    """The folder holds no furniture libraries."""


class MeshUnusable(RoomsError):  # noqa: N818
    """An OBJ has no face that can be drawn."""


class LabelsWrong(RoomsError):  # noqa: N818
    """The label table and the class list disagree."""


class RoomImpossible(RoomsError):  # noqa: N818
    """A seed gives no acceptable scene or view."""
