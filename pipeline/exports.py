"""Predictions as files for other programs: one PNG picture, or one NPZ of natural values, per frame."""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from deltascene.pipeline.run_folder import RunVideo

Progress = Callable[[float], None]


def write_png(video: RunVideo, progress: Progress) -> None:
    """Coloured pictures: OUT/videos/<id>/png/<task>/<frame number>.png."""
    for place in range(len(video)):
        progress(place / len(video))
        view = video.frame(place)
        for task in view.tasks:
            folder = video.folder / "png" / task
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f"{view.index:06d}.png").open("wb") as file:
                PillowImage.fromarray(video.kinds[task].colour(view[task])).save(file, "png")


def write_npz(video: RunVideo, progress: Progress) -> None:
    """Natural values: OUT/videos/<id>/npz/<frame number>.npz with one array per task."""
    folder = video.folder / "npz"
    folder.mkdir(parents=True, exist_ok=True)
    for place in range(len(video)):
        progress(place / len(video))
        view = video.frame(place)
        values: dict[str, Any] = {task: view[task] for task in view.tasks}
        with (folder / f"{view.index:06d}.npz").open("wb") as file:
            np.savez_compressed(file, **values)
