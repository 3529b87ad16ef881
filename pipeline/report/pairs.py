"""Videos, frames and tasks that two runs, A and B, have in common."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.runs.reader import Run, RunVideo
from deltascene.pipeline.sources.identity import Identity
from deltascene.stages.kinds import Kind, describe_kind


@dataclass(frozen=True, slots=True)
class Pair:
    """One video that both runs processed.

    Attributes:
        a: the video in A.
        b: the video in B.
        places: of every common frame its place in A and in B, increasing.
    """

    a: RunVideo
    b: RunVideo
    places: tuple[tuple[int, int], ...]


def match_videos(a: Run, b: Run) -> list[Pair]:
    """Videos with common frames, matched by the content of their input, or by their id where that wasn't recorded.

    Raises:
        UsageError: there is none, or the sizes of the predictions differ.
    """
    ours, theirs = ([video for video in run.videos if len(video)] for run in (a, b))
    left, pairs = list(theirs), []
    for video in ours:
        same = sorted((other for other in left if _same_input(video, other)), key=lambda other: other.id != video.id)
        if same:
            left.remove(same[0])
            pairs.append(_pair(video, same[0], a, b))
    if not pairs:
        known, found = (", ".join(video.id for video in videos[:5]) or "none" for videos in (ours, theirs))
        why = "made from other bytes" if {video.id for video in ours} & {video.id for video in theirs} else "other ids"
        raise UsageError(f"{b.folder}: expected a video of {a.folder} ({known}); found none of them: {found} ({why})")
    common = [pair for pair in pairs if pair.places]
    if not common:
        raise UsageError(f"{b.folder}: expected frames that {a.folder} has too; found none in {pairs[0].a.id}")
    return common


def match_tasks(a: Run, b: Run, pairs: Sequence[Pair]) -> tuple[list[str], dict[str, str]]:
    """Tasks that both runs predicted with the same kind, and for each other task why it can't be compared.

    Raises:
        UsageError: there is none.
    """
    ours, theirs = _kinds(pair.a for pair in pairs), _kinds(pair.b for pair in pairs)
    left_out = {task: "only in A" for task in ours if task not in theirs}
    left_out |= {task: "only in B" for task in theirs if task not in ours}
    common = [task for task in ours if task in theirs]
    tasks = [task for task in common if describe_kind(ours[task]) == describe_kind(theirs[task])]
    left_out |= {task: "another kind, or other labels, in B" for task in common if task not in tasks}
    if not tasks:
        raise UsageError(
            f"{b.folder}: expected a task that {a.folder} predicted in the same form ({', '.join(ours)});"
            f" found {', '.join(theirs)}"
        )
    return tasks, left_out


def common_rows(a: pa.Table, b: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Rows of a video's ledgers in A and in B, of common tasks and of the frames that are valid in both."""
    ledgers = [a, b]
    for name in ("index", "task"):
        values = [ledger.filter(ledger["valid"])[name].combine_chunks() for ledger in ledgers]
        common = values[0].filter(pc.is_in(values[0], values[1]))
        ledgers = [ledger.filter(pc.is_in(ledger[name], common)) for ledger in ledgers]
    return ledgers[0], ledgers[1]


def _pair(video: RunVideo, other: RunVideo, a: Run, b: Run) -> Pair:
    if video.size != other.size:
        raise UsageError(
            f"{video.id}: expected predictions of the same size; found {_size(video)} in {a.folder} and {_size(other)}"
            f" in {b.folder}"
        )
    _, ours, theirs = np.intersect1d(video.arrays.index, other.arrays.index, return_indices=True)
    return Pair(video, other, tuple(zip(ours.tolist(), theirs.tolist(), strict=True)))


def _kinds(videos: Iterable[RunVideo]) -> dict[str, Kind]:
    return {task: kind for video in videos for task, kind in video.kinds.items()}


def _same_input(video: RunVideo, other: RunVideo) -> bool:
    ours, theirs = (Identity(each.record.identity, each.record.identity_full) for each in (video, other))
    return ours.matches(theirs) if ours.quick and theirs.quick else video.id == other.id


def _size(video: RunVideo) -> str:
    return f"{video.size[0]}x{video.size[1]}"
