"""Finds the inputs of an earlier run that failed or are unfinished, so that only these are processed again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from deltascene.cache.places import Place, place
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.runs.reader import open_run
from deltascene.pipeline.runs.videos_table import VideoRecord
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.text import path_text


def failed_inputs(out: Place, sources: Sequence[str]) -> list[SourceSpec]:
    """The inputs of a run that failed or are unfinished, under the ids that they have there.

    Args:
        out: folder of the run.
        sources: SOURCE… as typed, to choose among these inputs; empty chooses all of them.

    Raises:
        OutputError: the folder isn't a run's.
        SourceNotFound: nothing is at one of the sources.
        UsageError: an image sequence failed, and its SOURCE isn't among those given.
    """
    failed = {record.id: record for record in (video.record for video in open_run(out).videos) if _failed(record)}
    if not sources:
        return [_spec_of(record) for record in failed.values()]
    # Beside other inputs of the same name, an input may have had another id; a video is recognised by its path.
    by_source = {record.source: record.id for record in failed.values()}
    found = [_as_in_run(spec, by_source) for spec in find_sources(sources)]
    return [spec for spec in found if spec.id in failed]


def _as_in_run(spec: SourceSpec, by_source: Mapping[str, str]) -> SourceSpec:
    known = by_source.get(path_text(spec.path)) if spec.kind == "video" else None
    return spec if known is None else replace(spec, id=known)


def _failed(record: VideoRecord) -> bool:
    """Whether an input failed or is unfinished; also one that failed earlier and waits in a run that was stopped."""
    tried = record.status == "waiting" and bool(record.cause)
    return tried or record.failed or record.status in ("partial", "running")


def _spec_of(record: VideoRecord) -> SourceSpec:
    path = place(record.source)
    if path.is_dir():  # the run doesn't record which of the images were in the sequence
        raise UsageError(f"--only-failed: {record.id} is an image sequence; name its SOURCE again to have it done")
    return SourceSpec(record.id, "video", (path,))
