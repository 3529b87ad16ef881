"""The activation archives of a run: what they hold, whether it is whole, and what goes under a budget."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from deltascene.cache.budget import StoredSegment, choose_drops
from deltascene.cache.errors import CacheError
from deltascene.cache.places import Place, remove
from deltascene.cache.zarr_store import ZarrStore
from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.runs.folder import RunFolder, read_run_yaml
from deltascene.pipeline.runs.links import refuse_links
from deltascene.pipeline.runs.lock import locked
from deltascene.pipeline.runs.reader import Run


@dataclass(frozen=True, slots=True)
class ArchiveState:
    """One video's archive.

    Attributes:
        video: its id.
        segments: sealed ones whose seal can be read.
        frames: that they hold.
        problems: what is wrong, one line each.
    """

    video: str
    segments: tuple[StoredSegment, ...]
    frames: int
    problems: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """What its segments take."""
        return sum(segment.bytes for segment in self.segments)


@dataclass(frozen=True, slots=True)
class RunArchives:
    """All archives of a run.

    Attributes:
        states: one for each video that has an archive, by id.
        frames: number of predicted frames of every video of the run, by id.
    """

    states: tuple[ArchiveState, ...]
    frames: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """Bytes of all segments."""
        return sum(state.bytes for state in self.states)


@dataclass(frozen=True, slots=True)
class Garbage:
    """What `collect_garbage` removes.

    Attributes:
        broken: broken segments, as video and first frame.
        dropped: whole segments above the budget, the oldest first.
        left_bytes: bytes of activations that stay.
    """

    broken: tuple[tuple[str, int], ...]
    dropped: tuple[StoredSegment, ...]
    left_bytes: int


def archives(folder: RunFolder) -> Iterator[tuple[str, ZarrStore]]:
    """Every video's store, by its id."""
    found = {path.parent.name: path for path in (folder.root / "videos").glob("*/activations.zarr")}
    for video, path in sorted(found.items()):
        yield video, ZarrStore(path)


def archived_bytes(folder: RunFolder) -> int:
    """What all archives of a run take."""
    return sum(look(video, store).bytes for video, store in archives(folder))


def look(video: str, store: ZarrStore, *, whole: bool = False) -> ArchiveState:
    """What a video's archive holds.

    Args:
        video: its id.
        store: its archive.
        whole: read every file and check its sum, instead of the seals alone.
    """
    segments, frames, problems = [], 0, []
    for start in store.starts():
        try:
            seal = store.verify(start) if whole else store.seal(start)
        except CacheError as error:
            problems.append(str(error))
            continue
        segments.append(StoredSegment(video, start, seal.bytes, seal.sealed_s))
        frames += seal.frames
    return ArchiveState(video, tuple(segments), frames, tuple(problems))


def look_at_run(out: Place, *, whole: bool = False) -> RunArchives:
    """What the archives of a run hold.

    Args:
        out: folder of the run.
        whole: read every file and check its sum, instead of the seals alone.

    Raises:
        OutputError: the folder isn't a run's, or holds no archived activations.
    """
    folder = _opened(out)
    states = tuple(look(video, store, whole=whole) for video, store in archives(folder))
    return RunArchives(states, {video.id: len(video) for video in Run(folder.root).videos})


def collect_garbage(out: Place, budget_bytes: int | None = None, *, dry_run: bool = False) -> Garbage:
    """Removes leftovers of unfinished writes, broken segments, and the oldest segments above a budget.

    Args:
        out: folder of the run.
        budget_bytes: bytes that may stay; None keeps all that is whole.
        dry_run: remove nothing.

    Returns:
        What was removed, or would be.

    Raises:
        OutputError: the folder isn't a run's, holds no archived activations, is in use, or has links in its archives.
    """
    folder = _opened(out)
    with locked(folder.root):
        stores = dict(archives(folder))
        for store in stores.values():
            refuse_links(store.path, below=True)
        broken = [
            (video, start) for video, store in stores.items() for start in store.starts() if _broken(store, start)
        ]
        kept = [
            segment
            for video, store in stores.items()
            for segment in look(video, store).segments
            if (video, segment.start) not in broken
        ]
        drops = [] if budget_bytes is None else choose_drops(kept, budget_bytes)
        if not dry_run:
            for video, start in [*broken, *((drop.video, drop.start) for drop in drops)]:
                stores[video].drop(start)
            for store in stores.values():
                remove(store.path / "unfinished")
    left = sum(segment.bytes for segment in kept) - sum(drop.bytes for drop in drops)
    return Garbage(tuple(broken), tuple(drops), left)


def _broken(store: ZarrStore, start: int) -> bool:
    try:
        store.verify(start)
    except CacheError:
        return True
    return False


def _opened(out: Place) -> RunFolder:
    folder = RunFolder(out)
    read_run_yaml(folder)
    if not any(True for _ in archives(folder)):
        raise OutputError(f"{out}: holds no archived activations; run without --no-archive to keep them")
    return folder
