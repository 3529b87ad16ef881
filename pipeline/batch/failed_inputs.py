"""Finds the inputs of an earlier run that failed or are unfinished, so that only these are processed again."""

from collections.abc import Sequence

from deltascene.cache.places import Place, place
from deltascene.pipeline.batch.inputs import find_inputs
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.runs.reader import open_run
from deltascene.pipeline.runs.videos_table import VideoRecord
from deltascene.pipeline.sources.spec import SourceSpec


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
    return [spec for spec in find_inputs(out, sources) if spec.id in failed]


def _failed(record: VideoRecord) -> bool:
    """Whether an input failed or is unfinished; also one that failed earlier and waits in a run that was stopped."""
    tried = record.status == "waiting" and bool(record.cause)
    return tried or record.failed or record.status in ("partial", "running")


def _spec_of(record: VideoRecord) -> SourceSpec:
    path = place(record.source)
    if path.is_dir():  # the run doesn't record which of the images were in the sequence
        raise UsageError(f"--only-failed: {record.id} is an image sequence; name its SOURCE again to have it done")
    return SourceSpec(record.id, "video", (path,))
