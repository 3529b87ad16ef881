"""What can be wrong with an input, as one tree below `DeltasceneError`.

SourceError             exit code 3: a file or folder handed in as SOURCE can't be used
├── SourceNotFound      2: nothing is at that path, or nothing to read in it
└── UnreadableSource    3: it is there, but no picture comes out of it
"""

from deltascene.pipeline.errors import DeltasceneError


class SourceError(DeltasceneError):
    """A source can't be used."""

    exit_code = 3


class SourceNotFound(SourceError):  # noqa: N818 - reads as what happened
    """No source is at the path given."""

    exit_code = 2


class UnreadableSource(SourceError):  # noqa: N818 - reads as what happened
    """A source exists and can't be decoded."""
