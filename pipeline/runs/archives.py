"""The activation archives of a run: what they hold, whether it is whole, and what goes under a budget."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from deltascene.cache.budget import StoredSegment, choose_drops
from deltascene.cache.errors import CacheError
from deltascene.cache.places import Place, remove
from deltascene.cache.zarr_store import ZarrStore
from deltascene.errors import ExitCode
from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.runs.folder import RunFolder, read_run_yaml
from deltascene.pipeline.runs.links import refuse_links
from deltascene.pipeline.runs.lock import locked
from deltascene.pipeline.runs.reader import Run
from deltascene.pipeline.units import compact


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


def list_archives(out: Place, console: Console) -> int:
    """`cache ls`: a table of what is archived."""
    folder = _opened(out)
    return _tell(folder, [look(video, store) for video, store in archives(folder)], console, checked=False)


def verify_archives(out: Place, console: Console) -> int:
    """`cache verify`: reads every archived byte; exit code 3 where one isn't what was sealed."""
    folder = _opened(out)
    return _tell(folder, [look(video, store, whole=True) for video, store in archives(folder)], console, checked=True)


def collect_garbage(out: Place, budget: int | None, console: Console, *, dry_run: bool = False) -> int:
    """`cache gc`: removes leftovers of unfinished writes, broken segments, and the oldest ones above a budget.

    Args:
        out: folder of a run.
        budget: bytes that may stay; None keeps all that is whole.
        console: to print on.
        dry_run: only say what would go.
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
        drops = [] if budget is None else choose_drops(kept, budget)
        for video, start in broken:
            console.print(f"{video}: segment {start}: broken, removed", markup=False, highlight=False)
        for drop in drops:
            size = compact(drop.bytes, "B")
            console.print(f"{drop.video}: segment {drop.start}: {size}, removed", markup=False, highlight=False)
        if not dry_run:
            for video, start in [*broken, *((drop.video, drop.start) for drop in drops)]:
                stores[video].drop(start)
            for store in stores.values():
                remove(store.path / "unfinished")
        left = sum(segment.bytes for segment in kept) - sum(drop.bytes for drop in drops)
    verb = "would go" if dry_run else "removed"
    count, stay = len(broken) + len(drops), compact(left, "B")
    console.print(f"{count} segments {verb}; {stay} of activations stay", markup=False, highlight=False)
    return ExitCode.OK


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


def _tell(folder: RunFolder, states: list[ArchiveState], console: Console, *, checked: bool) -> int:
    table, whole = (
        Table("video", "segments", "frames", "size", "state"),
        {v.id: len(v) for v in Run(folder.root).videos},
    )
    for state in states:
        good = "checked" if checked else "sealed"
        word = f"{len(state.problems)} broken" if state.problems else good
        table.add_row(
            state.video,
            str(len(state.segments)),
            f"{state.frames} of {whole.get(state.video, 0)}",
            compact(state.bytes, "B"),
            word,
        )
    console.print(table)
    problems = [f"{state.video}: {problem}" for state in states for problem in state.problems]
    for problem in problems:
        console.print(problem, markup=False, highlight=False, soft_wrap=True)
    total = compact(sum(state.bytes for state in states), "B")
    console.print(f"{total} of activations of {len(states)} videos", markup=False, highlight=False)
    return ExitCode.INPUT_FAILED if problems else ExitCode.OK
