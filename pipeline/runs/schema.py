"""Version of the form of a run's files: `schema_version` in `run.yaml`, `frames.parquet` and `report.json`.

It grows when a file changes so that a reader of the version before would misread it; new keys and columns don't count.
Files without one were written before there was one, and are read as version 1.
"""

from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.text import shown

SCHEMA_VERSION = 1


def refuse_newer(path: object, found: object) -> None:
    """Refuses a file of a newer schema than this version of the package knows.

    Args:
        path: the file, as an error names it.
        found: its `schema_version`; anything but a number is none.

    Raises:
        OutputError: it is newer.
    """
    if isinstance(found, int) and found > SCHEMA_VERSION:
        raise OutputError(
            f"{path}: was written by a newer deltascene: schema_version {shown(found)}, and this one reads up to"
            f" {SCHEMA_VERSION}; update deltascene"
        )
