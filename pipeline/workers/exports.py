"""Writes predictions as files for other programs: one PNG picture, or one NPZ of natural values, per frame."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from deltascene.pipeline.runs.reader import RunVideo


def draw_png(video: RunVideo) -> Iterator[float]:
    """Writes coloured pictures, OUT/videos/<id>/png/<task>/<frame number>.png; yields the share that is written."""
    for place in range(len(video)):
        yield place / len(video)
        view = video.frame(place)
        for task in view.tasks:
            folder = video.folder / "png" / task
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f"{view.index:06d}.png").open("wb") as file:
                PillowImage.fromarray(video.kinds[task].colour(view[task])).save(file, "png")


def draw_npz(video: RunVideo) -> Iterator[float]:
    """Writes natural values, OUT/videos/<id>/npz/<frame number>.npz with one array per task; yields the share."""
    folder = video.folder / "npz"
    folder.mkdir(parents=True, exist_ok=True)
    for place in range(len(video)):
        yield place / len(video)
        view = video.frame(place)
        values: dict[str, Any] = {task: view[task] for task in view.tasks}
        with (folder / f"{view.index:06d}.npz").open("wb") as file:
            np.savez_compressed(file, **values)
