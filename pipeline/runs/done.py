"""`done.json`: marks a video as finished, and says what its files have to be."""

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
    """What `done.json` says of a video that is whole.

    Attributes:
        record: its row of `videos.parquet`.
        fingerprint: of all that its results depend on.
        segments: start and number of frames of all of them.
        files: size and SHA-256 of its arrays' shards, by path below the video's folder.
    """

    record: VideoRecord
    fingerprint: str
    segments: Sequence[tuple[int, int]]
    files: Mapping[str, tuple[int, str]]


def write_done(files: VideoFolder, done: Done) -> None:
    """Marks a video as done; the last file that is written for it."""
    data = {"format": DONE_FORMAT, **asdict(done.record), "fingerprint": done.fingerprint}
    data |= {"segments": done.segments, "files": done.files}
    write_whole(files.done, json.dumps(data, indent=1) + "\n")


def read_done(files: VideoFolder) -> Done | None:
    """What is said of a finished video; None if it isn't one."""
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
    """The record in a `done.json`; None where there is none, or it can't be read."""
    try:
        return record_of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def intact(files: VideoFolder, done: Done) -> bool:
    """Whether a finished video still holds what was sealed: every byte of it, in an object store every file's size."""
    try:
        for name, (size, sum_) in done.files.items():
            file = files.inside(name)
            if file.stat().st_size != size or (isinstance(file, Path) and file_sha256(file) != sum_):
                return False
        rows: int = ledger.read_rows(files.frames_parquet).num_rows
        return rows >= done.record.frames
    except (OSError, OutputError):
        return False
