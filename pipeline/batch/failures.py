"""Which errors end a single input and which end the whole run; failed inputs are listed in `errors.jsonl`."""

import json
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from errno import EDQUOT, ENOSPC

from deltascene.errors import DeltasceneError
from deltascene.pipeline.errors import DiskFull, NoCapacity, OutputError
from deltascene.pipeline.runs.folder import RunFolder
from deltascene.pipeline.runs.ledger import read_rows
from deltascene.pipeline.runs.videos_table import VideoRecord
from deltascene.pipeline.sources.errors import UnreadableSource
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


def unreadable(folder: RunFolder, spec: SourceSpec, record: VideoRecord) -> VideoRecord:
    """The record of a finished input without a valid frame; adds it to `errors.jsonl`.

    Args:
        folder: the output folder, with the input's ledger.
        spec: the input.
        record: its record as of one that is done.
    """
    rows = read_rows(folder.video(spec.id).frames_parquet)
    causes = Counter(dict(zip(rows["index"].to_pylist(), rows["cause"].to_pylist(), strict=True)).values())
    words = [f"{number} {cause or 'invalid'}" for cause, number in causes.most_common()]
    words += [record.cause] if record.cause else []
    error = UnreadableSource(
        f"{path_text(spec.path)}: expected valid frames; found none in {record.frames} ({', '.join(words)});"
        " repair it and run the same command again, or leave it out"
    )
    return replace(record, status="unreadable", cause=_write_failure(folder, spec, error).cause)


def _write_failure(folder: RunFolder, spec: SourceSpec, error: Exception) -> VideoRecord:
    """Adds a failed input to `errors.jsonl`; returns its record."""
    text = one_line(printable(" ".join(str(error).split())), LONGEST_CAUSE) or type(error).__name__
    with folder.errors_jsonl.open("a", encoding="utf-8") as file:
        trace = printable(traceback.format_exception(error)[-1].strip())
        about = {"id": spec.id, "source": path_text(spec.path), "error": text}
        file.write(json.dumps({**about, "type": type(error).__name__, "trace": trace}) + "\n")
    return VideoRecord(spec.id, path_text(spec.path), "failed", text)
