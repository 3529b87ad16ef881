"""Which errors end a single input and which end the whole run; failed inputs are listed in `errors.jsonl`."""

import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC

from deltascene.errors import DeltasceneError
from deltascene.pipeline.errors import DiskFull, NoCapacity, OutputError
from deltascene.pipeline.runs.folder import RunFolder
from deltascene.pipeline.runs.videos_table import VideoRecord
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.text import one_line, path_text, printable

LONGEST_CAUSE = 2000  # characters


@contextmanager
def failing(folder: RunFolder, spec: SourceSpec, failed: Callable[[VideoRecord], None]) -> Iterator[None]:
    """Turns an error of one input into its record; an error that concerns the whole run is raised.

    Args:
        folder: the output folder.
        spec: the input.
        failed: called with the record of the input if it fails.

    Raises:
        DiskFull: no room is left on the disk.
        NoCapacity: no worker is left.
        OutputError: earlier results of the input were made from other bytes.
    """
    try:
        yield
        return
    except (OutputError, DiskFull, NoCapacity):
        raise
    except DeltasceneError as error:
        found: Exception = error
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT):
            raise DiskFull(
                f"{folder.root}: no room left on the disk; finished segments are kept, the same command goes on"
            ) from error
        found = error
    failed(_write_failure(folder, spec, found))


def _write_failure(folder: RunFolder, spec: SourceSpec, error: Exception) -> VideoRecord:
    """Adds a failed input to `errors.jsonl`; returns its record."""
    text = one_line(printable(" ".join(str(error).split())), LONGEST_CAUSE) or type(error).__name__
    with folder.errors_jsonl.open("a", encoding="utf-8") as file:
        trace = printable(traceback.format_exception(error)[-1].strip())
        about = {"id": spec.id, "source": path_text(spec.path), "error": text}
        file.write(json.dumps({**about, "type": type(error).__name__, "trace": trace}) + "\n")
    return VideoRecord(spec.id, path_text(spec.path), "failed", text)
