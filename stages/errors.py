"""Errors of the stages; the whole tree is drawn in `deltascene.errors`."""

from deltascene.errors import DeltasceneError, ExitCode


class StageError(DeltasceneError, ValueError):
    """A stage was handed something that it can't work with; the text names it, with expected and found values."""

    exit_code = ExitCode.USAGE


class UnsupportedBackbone(StageError):  # noqa: N818 - reads as what happened
    """A network that isn't a plain vision transformer of timm."""


class UnfitDelta(StageError):  # noqa: N818
    """Delta weights whose names, shapes or blocks aren't those of the backbone."""


class UnsupportedHead(StageError):  # noqa: N818
    """A head that doesn't exist or doesn't fit its taps."""


class UnsupportedKind(StageError):  # noqa: N818
    """A task description whose kind or stored form isn't valid."""
