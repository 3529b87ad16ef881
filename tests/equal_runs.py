"""Two runs of the same inputs side by side: what one of them lost, did twice, left torn or has otherwise."""

import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deltascene import open_run
from deltascene.cache.errors import CacheError
from deltascene.cache.places import Place, place
from deltascene.cache.zarr_store import ZarrStore
from deltascene.pipeline.runs.done import intact, read_done
from deltascene.pipeline.runs.ledger import STAGES
from deltascene.pipeline.runs.reader import RunVideo

# What a clock decides; every other column is the same in every run of the same config on the same numerics.
CLOCK_COLUMNS = ("seconds", *[f"seconds_{stage}" for stage in STAGES])

# What audits leave in a ledger; they never change a prediction.
AUDIT_COLUMNS = ("audit_p", "drift", "drift_moved", "floor", "macs_audit")

PICTURES_APART = 4.0  # of 255, on average: what is encoded after another line of text may differ a little


@dataclass
class Differences:
    """What is wrong with a run, one line for each thing.

    Attributes:
        lost: frames that aren't there.
        duplicated: frames that are there more than once.
        torn: seals that don't hold, and what no seal speaks of.
        unequal: arrays, ledgers and archived files with other content.
    """

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    unequal: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) for each in fields(self))


def compare_runs(wanted: Path, out: Place | str, videos: list[str] | None = None) -> Differences:
    """What is wrong with a finished run, against another that nothing disturbed.

    Args:
        wanted: OUT of the undisturbed one.
        out: OUT of the other, a folder or a URL.
        videos: ids to look at; None looks at all.
    """
    found, ours, theirs = Differences(), open_run(wanted), open_run(out)
    for id_ in videos or [video.id for video in ours.videos]:
        one, other = ours[id_], theirs[id_]
        if other.status != "done":
            found.lost.append(f"{id_}: is {other.status}: {other.record.cause}")
            continue
        frames = one.arrays.index.tolist()
        _count_frames(found, f"{id_}: index", frames, other.arrays.index.tolist())
        for task, rows in _rows_by_task(other.ledger()).items():
            _count_frames(found, f"{id_}: ledger of {task}", frames, rows)
        found.torn += _unsound(other, len(frames))
        if one.files.overlay.is_file():
            found.torn += _other_overlay(one, other)
        found.unequal += _unequal(one, other)
    found.torn += [f"{path}: left over" for path in leftovers(place(out))]
    return found


def without_audits(ledger: pa.Table) -> pa.Table:
    """A ledger as it is without audits."""
    own = pc.subtract(ledger["macs_executed"], pc.fill_null(ledger["macs_audit"], 0))
    at = ledger.column_names.index("macs_executed")
    return ledger.set_column(at, "macs_executed", own).drop_columns([*AUDIT_COLUMNS])


def compare_task(wanted: Path, out: Place | str, task: str, video: str = "clip") -> list[str]:
    """What differs in the arrays of a task of a video between two runs that may have other tasks beside it."""
    one, other = open_run(wanted)[video], open_run(out)[video]
    return list(_unequal_arrays(one, other, (task, f"age/{task}", f"valid/{task}")))


def leftovers(out: Place) -> list[Place]:
    """What a run has no use for once it has ended: half-written files and unfinished segments."""
    half = [path for path in out.rglob("*") if ".part" in path.suffixes]
    half += [path for path in out.rglob("*.partial*") if path not in half]
    return half + [path for folder in out.rglob("unfinished") for path in folder.iterdir()]


def files_of(folder: Place) -> dict[str, bytes]:
    """Everything in an archive by its name; seals say when and by whom, so they are left out."""
    found = {}
    for path in folder.rglob("*.zip"):
        with path.open("rb") as file, zipfile.ZipFile(file) as sealed:
            names = [name for name in sealed.namelist() if name != "seal.json"]
            found |= {f"{path.name}/{name}": sealed.read(name) for name in names}
    return found


def _count_frames(found: Differences, where: str, wanted: list[int], seen: list[int]) -> None:
    times = Counter(seen)
    found.lost += [f"{where}: frame {frame}" for frame in wanted if not times[frame]]
    found.duplicated += [f"{where}: frame {frame}" for frame, count in times.items() if count > 1]
    if not found.lost and not found.duplicated and wanted != seen:
        found.unequal.append(f"{where}: in another order, or frames that nobody asked for")


def _rows_by_task(ledger: pa.Table) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for task, index in zip(ledger["task"].to_pylist(), ledger["index"].to_pylist(), strict=True):
        rows.setdefault(task, []).append(index)
    return rows


def _unsound(video: RunVideo, frames: int) -> Iterator[str]:
    """Files that aren't what was sealed, and frames that no seal covers."""
    done = read_done(video.files)
    if done is None or not intact(video.files, done):
        yield f"{video.id}: its arrays aren't those that were sealed"
    elif sum(count for _, count in done.segments) != frames:
        yield f"{video.id}: segments of {done.segments}, not of {frames} frames"
    if not video.files.activations.is_dir():
        return
    store, sealed = ZarrStore(video.files.activations), 0
    for start in store.starts():
        try:
            sealed += store.verify(start).frames
        except CacheError as error:
            yield f"{video.id}: archive: {error}"
    if sealed != frames:
        yield f"{video.id}: {sealed} frames are archived, not {frames}"


def _other_overlay(one: RunVideo, other: RunVideo) -> Iterator[str]:
    """Pictures of an overlay that are missing, or look otherwise; the line on top says how long a frame took."""
    ours, theirs = (cv2.VideoCapture(str(video.files.overlay)) for video in (one, other))
    for number in range(len(one) + 1):
        (there, picture), (found, another) = ours.read(), theirs.read()
        if (there, found) != (number < len(one),) * 2:
            yield f"{one.id}: overlay: {number} pictures of {len(one)}"
            return
        if there:
            top = picture.shape[0] // 12
            apart = np.abs(picture[top:].astype(np.int16) - another[top:]).mean()
            if apart > PICTURES_APART:
                yield f"{one.id}: overlay: picture {number} is {apart:.1f} of 255 apart"


def _unequal(one: RunVideo, other: RunVideo) -> Iterator[str]:
    """What differs between two runs of a video, byte by byte; in ledgers, all but the clock.

    Audits count where both runs drew frames for them.
    """
    tables = [video.ledger().drop_columns([*CLOCK_COLUMNS]) for video in (one, other)]
    if any(table["audit_p"].null_count == len(table) for table in tables):
        tables = [without_audits(table) for table in tables]
    if not tables[0].equals(tables[1]):
        yield f"{one.id}: ledger"
    if one.arrays.valid.keys() != other.arrays.valid.keys():
        yield f"{one.id}: tasks {sorted(other.arrays.valid)}"
        return
    names = [name for task in one.arrays.valid for name in (task, f"age/{task}", f"valid/{task}")]
    yield from _unequal_arrays(one, other, (*names, "change", "index", "pts_s"))
    archives = [files_of(video.files.activations) for video in (one, other)]
    for name in sorted(archives[0].keys() | archives[1].keys()):
        if archives[0].get(name) != archives[1].get(name):
            yield f"{one.id}: archived {name}"


def _unequal_arrays(one: RunVideo, other: RunVideo, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if one.arrays._read(name).tobytes() != other.arrays._read(name).tobytes():
            yield f"{one.id}: {name}"
