"""The truth of `deltascene run --truth`: found before a run, and compared with its predictions afterwards."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.runs.accuracy import Truth, read_truth, write_accuracy
from deltascene.pipeline.runs.folder import RunFolder
from deltascene.pipeline.runs.reader import RunVideo
from deltascene.pipeline.runs.videos_table import VideoRecord
from deltascene.pipeline.sources.spec import SourceSpec


def read_truths(specs: Sequence[SourceSpec], truth: Path | None) -> dict[str, Truth]:
    """Truth of every input by its id; empty where there is none.

    Args:
        specs: the inputs.
        truth: an npz file for a single input, or a folder with `<id>.truth.npz`; None is no truth.

    Raises:
        UsageError: the truth of an input is missing or can't be read.
    """
    return {} if truth is None else {spec.id: _truth_of(spec, truth, len(specs)) for spec in specs}


def write_scores(folder: RunFolder, records: Sequence[VideoRecord], truths: Mapping[str, Truth]) -> None:
    """Writes the accuracy of every video that has frames and truth."""
    for record in records:
        if record.id in truths and record.frames:
            write_accuracy(RunVideo(record, folder.video(record.id)), truths[record.id])


def _truth_of(spec: SourceSpec, truth: Path, inputs: int) -> Truth:
    if truth.is_dir():
        path = truth / f"{spec.id}.truth.npz"
        if not path.is_file():
            raise UsageError(f"--truth: expected {path}; found no such file")
        return read_truth(path)
    if inputs > 1:
        raise UsageError(f"--truth: expected a folder with <id>.truth.npz for {inputs} inputs; found {truth}")
    if not truth.is_file():
        raise UsageError(f"--truth: no such file: {truth}")
    return read_truth(truth)
