"""Accuracy of a run against ground truth, written beside the predictions.

Truth is an `.npz` with one array per task in its stored form, time last ([H, W, T] or [H, W, C, T]), at the size of the
predictions; T counts the source's frames.
"""

import json
import zipfile
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.cache.places import write_whole
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.runs.reader import RunVideo
from deltascene.stages.metrics import METRICS

Truth = Mapping[str, NDArray[Any]]


def read_truth(path: Path) -> Truth:
    """Reads the arrays of a truth file.

    Raises:
        UsageError: the file can't be read.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise UsageError(f"truth {path}: expected an npz file, one array per task; found something else")
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UsageError(f"truth {path}: not readable as npz: {' '.join(str(error).split())[:160]}") from error


def score(video: RunVideo, truth: Truth) -> dict[str, dict[str, float]]:
    """Computes the metrics of every task that has truth, over all predicted frames.

    Args:
        video: an assembled video.
        truth: arrays in stored form, time last.

    Raises:
        UsageError: sizes differ, or truth and video have no task in common.
    """
    scored = [task for task in video.kinds if task in truth]
    if not scored:
        raise UsageError(f"truth: expected one of {', '.join(video.kinds)}; found {', '.join(truth)}")
    counters = {task: METRICS[video.kinds[task].name]() for task in scored}
    for task in scored:
        if truth[task].shape[:2] != video.size:
            raise UsageError(
                f"truth: {task}: expected [H, W, T] or [H, W, C, T] with H, W = {list(video.size)}, as predicted;"
                f" found {list(truth[task].shape)}"
            )
    for place in range(len(video)):
        view = video.frame(place)
        for task in (task for task in view.tasks if task in counters):
            if view.index < truth[task].shape[-1]:
                counters[task].update(video.kinds[task].decode(truth[task][..., view.index]), view[task])
    return {task: counter.result() for task, counter in counters.items()}


def write_accuracy(video: RunVideo, truth: Truth) -> dict[str, dict[str, float]]:
    """Scores a video and writes `accuracy.json`; metrics without any truth (NaN) are left out."""
    scored = score(video, truth)
    numbers = {
        task: {name: value for name, value in metrics.items() if isfinite(value)} for task, metrics in scored.items()
    }
    write_whole(video.files.accuracy, json.dumps(numbers, indent=1) + "\n")
    return numbers
