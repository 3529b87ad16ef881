"""Errors of the stages.

StageError
├── UnsupportedBackbone   the network can't be run by rows
├── UnfitDelta            delta weights don't fit the backbone's blocks
├── UnsupportedHead       a head's name or shape doesn't fit its taps
└── UnsupportedKind       a task's kind or stored form makes no sense
"""


class StageError(ValueError):
    """A stage was handed something that it can't work with; the text names what, the expected and the found."""


class UnsupportedBackbone(StageError):  # noqa: N818 - reads as what happened
    """A network that isn't a plain vision transformer of timm."""


class UnfitDelta(StageError):  # noqa: N818
    """Delta weights whose names, shapes or blocks aren't those of the backbone."""


class UnsupportedHead(StageError):  # noqa: N818
    """A head that doesn't exist, or doesn't fit."""


class UnsupportedKind(StageError):  # noqa: N818
    """A task description that makes no sense."""
