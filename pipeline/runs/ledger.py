"""The ledger: one row per frame and task, with what was computed and its cost in MACs and seconds.

Rows are written as Parquet, one file per sealed segment; `frames.parquet` holds those of all segments of a video.
"""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deltascene.cache.places import Place, open_anywhere
from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.runs.schema import SCHEMA_VERSION, refuse_newer
from deltascene.pipeline.text import one_line

# Stages that are timed. What all tasks share (decoding, the mask, the base's blocks …) is timed in the base task's row,
# so that the sum of a column over all rows is the time spent.
STAGES = ("decode", "preprocess", "mask", "flow", "embed", "blocks", "head", "warp", "audit", "write", "archive")

SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("index", pa.int64()),
        ("pts_s", pa.float64()),
        ("valid", pa.bool_()),
        ("cause", pa.string()),
        ("task", pa.string()),
        ("predicted", pa.bool_()),  # False for the base when only its activations were asked for, and on invalid frames
        ("policy", pa.string()),  # dense, rows, warped, held or skipped
        ("reason", pa.string()),  # why the frame was computed that way
        ("rows", pa.int32()),  # tokens of the frame
        ("rows_computed", pa.int32()),  # of them, through the task's own blocks; 0 where it reads the base's
        ("oldest_s", pa.float64()),  # seconds since the patch that waited longest was computed; null on invalid frames
        ("macs_executed", pa.int64()),  # audits included
        ("macs_dense", pa.int64()),
        ("macs_single_task", pa.int64()),  # null where the bundle's evidence lists no single-task networks
        ("seconds", pa.float64()),
        *[(f"seconds_{stage}", pa.float64()) for stage in STAGES],
        ("bytes_read", pa.int64()),  # of activations, from the archive
        ("bytes_written", pa.int64()),  # of activations, into the archive; before compression
        ("drift", pa.float64()),  # null unless audited; the columns below are null in runs of earlier versions
        ("audit_p", pa.float64()),  # probability with which the frame was drawn; null where it couldn't be
        ("drift_moved", pa.float64()),  # drift in the patches that moved lately; null also where none did
        ("floor", pa.float64()),  # dense prediction's own difference from the frame before, in the other patches
        ("macs_audit", pa.int64()),  # of macs_executed, those of the audit
        ("patches_moved", pa.int32()),  # patches that were over the threshold lately
    ],
    metadata={"schema_version": str(SCHEMA_VERSION)},
)

_BLOCK = 8 << 20  # bytes of a file read at once
_LONGEST_NUMBER = 10  # digits


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows to one Parquet file; columns that a row lacks are null."""
    write_table(path, [pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)])


def write_table(path: Path, tables: Iterable[pa.Table]) -> None:
    """Writes ledgers one after the other into one Parquet file, whose pages have checksums."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", write_page_checksum=True) as writer:
        for table in tables:
            writer.write_table(table)


def read_rows(path: Place | BytesIO) -> pa.Table:
    """Reads the ledger of a segment, or a whole `frames.parquet`.

    Raises:
        OutputError: the file is damaged, or a newer version wrote it.
    """
    return read_parquet(path, SCHEMA)


def read_parquet(path: Place | BytesIO, schema: pa.Schema | None = None) -> pa.Table:
    """Reads a Parquet file of a run.

    Raises:
        OutputError: the file is damaged, or a newer version wrote it.
    """
    try:
        with nullcontext(path) if isinstance(path, BytesIO) else open_anywhere(path) as file:
            source = _in_arrows_memory(file)
        refuse_newer(path, _schema_version(source))
        return pq.read_table(source, schema=schema, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise OutputError(
            f"{path}: expected a Parquet file; found none that can be read ({one_line(error)}); "
            "remove it and run the same command again"
        ) from error


def _in_arrows_memory(file: BinaryIO) -> pa.BufferReader:
    """Content of a file in a buffer that holds no Python object.

    Arrow's threads release what they read a little after `read_table` has returned. A Python file or its bytes need
    the interpreter's lock for that, and a thread that asks for it once the interpreter ends aborts the process
    ("terminate called without an active exception").

    Source: github.com/apache/arrow/issues/34314 and 33975.
    """
    content = pa.BufferOutputStream()
    while block := file.read(_BLOCK):
        content.write(block)
    return pa.BufferReader(content.getvalue())


def _schema_version(source: pa.BufferReader) -> int | None:
    found = (pq.read_schema(source).metadata or {}).get(b"schema_version", b"")
    source.seek(0)
    return int(found) if found.isdigit() and len(found) < _LONGEST_NUMBER else None


def split_tasks(table: pa.Table) -> dict[str, pa.Table]:
    """Rows of a ledger by task, in the order of the tasks' first rows; every task has one row per frame."""
    tasks = table["task"].unique().to_pylist()
    return {task: table.filter(pc.equal(table["task"], task)) for task in tasks}
