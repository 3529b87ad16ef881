"""`done.json`: marks a video as done, with its record and the checksums of its files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from deltascene.cache.keys import file_sha256
from deltascene.cache.places import Place, write_whole
from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.runs import ledger
from deltascene.pipeline.runs.folder import VideoFolder
from deltascene.pipeline.runs.videos_table import VideoRecord, record_of

DONE_FORMAT = 2  # of `done.json`


@dataclass(frozen=True, slots=True)
class Done:
    """Content of `done.json`.

    Attributes:
        record: the video's row of `videos.parquet`.
        fingerprint: hash of everything that its results depend on.
        segments: start and number of frames of every segment.
        files: size and SHA-256 of its arrays' shards, by path below the video's folder.
    """

    record: VideoRecord
    fingerprint: str
    segments: Sequence[tuple[int, int]]
    files: Mapping[str, tuple[int, str]]


def write_done(files: VideoFolder, done: Done) -> None:
    """Marks a video as done; no other file of it is written after this one."""
    data = {"format": DONE_FORMAT, **asdict(done.record), "fingerprint": done.fingerprint}
    data |= {"segments": done.segments, "files": done.files}
    write_whole(files.done, json.dumps(data, indent=1) + "\n")


def read_done(files: VideoFolder) -> Done | None:
    """Reads `done.json` of a video; None if there is none, or if it is damaged or of another format."""
    try:
        data = json.loads(files.done.read_text(encoding="utf-8"))
        if data["format"] != DONE_FORMAT:
            return None
        record = record_of(data)
        sums = {str(name): (int(size), str(sum_)) for name, (size, sum_) in data["files"].items()}
        segments = [(int(start), int(frames)) for start, frames in data["segments"]]
        return Done(record, str(data["fingerprint"]), segments, sums)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def read_done_record(path: Place) -> VideoRecord | None:
    """The record in a `done.json` of any format; None if there is none, or if it is damaged."""
    try:
        return record_of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def intact(files: VideoFolder, done: Done) -> bool:
    """Whether the shards and the ledger of a video are whole.

    On a disk shards are hashed; in an object store only their sizes are compared.
    """
    try:
        for name, (size, sum_) in done.files.items():
            file = files.inside(name)
            if file.stat().st_size != size or (isinstance(file, Path) and file_sha256(file) != sum_):
                return False
        rows: int = ledger.read_rows(files.frames_parquet).num_rows
        return rows >= done.record.frames
    except (OSError, OutputError):
        return False
