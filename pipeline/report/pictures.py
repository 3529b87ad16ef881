"""Pictures of a report as JPEG: frames with their predictions, their change maps, and the drift between two runs."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import gcd

import cv2
import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.drawing.overlay import FrameNote, change_of, compose
from deltascene.pipeline.drawing.panel import (
    GAP,
    TILE_HEIGHT,
    change_tile,
    font_scale,
    frame_tiles,
    label_tile,
    noted,
    plan_panel,
    task_tile,
    tinted,
)
from deltascene.pipeline.runs.reader import RunVideo
from deltascene.pipeline.sources.errors import SourceError
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.identity import Identity, identity, recognise
from deltascene.pipeline.sources.reader import read_frames
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.stages.kinds import Array, Kind
from deltascene.stages.types import Frame, Image

JPEG_QUALITY, FILM_QUALITY = 84, 76
FILM_HEIGHT = 144
FARTHEST_STEP = 300  # frames; up to this distance decoding is faster than seeking
BLOCK_SIDES = 48  # rows of blocks of a drift map, about
LEAST_SHOWN = 0.1  # of the largest drift of a picture


def draw_pictures(
    video: RunVideo, places: Sequence[int], images: Mapping[int, Image], notes: Mapping[int, FrameNote]
) -> list[str]:
    """Processed frames with their predictions, as JPEG data URIs.

    Args:
        video: a video of a run.
        places: places of its processed frames.
        images: pictures by frame number of the source; without one, a frame's predictions are drawn alone.
        notes: result of `frame_notes`, by frame number of the source.
    """
    pictures = []
    for view in (video.frame(place) for place in places):
        values = {task: view[task] for task in view.tasks}
        cause = notes.get(view.index, FrameNote()).cause
        pictures.append(_data_uri(compose(images.get(view.index), values, video.kinds, cause=cause), JPEG_QUALITY))
    return pictures


def draw_film(
    video: RunVideo, places: Sequence[int], images: Mapping[int, Image], notes: Mapping[int, FrameNote]
) -> list[str]:
    """Small pictures of frames under their change map, as JPEG data URIs; arguments as those of `draw_pictures`."""
    size, pictures = plan_panel(video.frame_size, 0, FILM_HEIGHT, header=False).tile, []
    for place in places:
        index = int(video.arrays.index[place])
        note = notes.get(index, FrameNote())
        frame, grey = frame_tiles(size, images.get(index))
        picture = noted(grey, note.cause) if note.cause else change_tile(frame, change_of(video, place, note.policy))
        pictures.append(_data_uri(picture, FILM_QUALITY))
    return pictures


def draw_difference(image: Image | None, values: Sequence[Array], kind: Kind, names: Sequence[str]) -> str:
    """Predictions of two runs for a frame and the drift between them, side by side as a JPEG data URI.

    Args:
        image: RGB frame [H, W, 3], or None.
        values: natural values of both runs; the drift is the second's from the first.
        kind: of the task.
        names: texts on the three tiles.
    """
    panel = plan_panel(values[0].shape[:2] if image is None else image.shape[:2], 2, TILE_HEIGHT, header=False)
    _, grey = frame_tiles(panel.tile, image)
    drift = drift_map(values[1], values[0], kind)
    least = LEAST_SHOWN * drift.max()
    strength = ((drift - least) / max(drift.max() - least, 1e-9)).astype(np.float32)
    enlarged = np.asarray(cv2.resize(strength, panel.tile[::-1], interpolation=cv2.INTER_NEAREST), np.float32)
    tiles = [*(task_tile(value, kind, grey) for value in values), tinted(grey, enlarged)]
    for tile, name in zip(tiles, names, strict=True):
        label_tile(tile, name, font_scale(panel.tile[0]))
    gap: Image = np.full((panel.tile[0], GAP, 3), 20, np.uint8)
    return _data_uri(np.hstack([tiles[0], gap, tiles[1], gap, tiles[2]]), JPEG_QUALITY)


def drift_map(value: Array, reference: Array, kind: Kind) -> NDArray[np.float64]:
    """The kind's drift in each block of a frame [rows, columns]; 0 where it isn't a number."""
    side = max(1, round(value.shape[0] / BLOCK_SIDES))
    rows, columns = (range(0, length, side) for length in value.shape[:2])
    blocks = [[np.s_[y : y + side, x : x + side] for x in columns] for y in rows]
    return np.nan_to_num([[kind.drift(value[block], reference[block]) for block in row] for row in blocks])


def read_images(video: RunVideo, indices: Sequence[int], timeout_s: float) -> dict[int, Image]:
    """Some frames of a video's source, RGB [H, W, 3] by index; empty if the source is missing or has changed.

    Args:
        video: a video of a run.
        indices: numbers of the frames in the source.
        timeout_s: a decoder that returns no frame for this time is stopped.
    """
    try:
        specs = [spec for spec in find_sources([video.source]) if str(spec.path) == video.source]
        recorded = Identity(video.record.identity, video.record.identity_full)
        if len(specs) != 1 or (recorded.quick and recognise(specs[0], recorded, identity(specs[0])) is None):
            return {}
        wanted = sorted(set(indices))
        frames = _read(specs[0], wanted, timeout_s)
        return {frame.index: frame.image for frame in frames if frame.image is not None and frame.index in wanted}
    except (SourceError, OSError):
        return {}


def _read(spec: SourceSpec, indices: Sequence[int], timeout_s: float) -> Iterator[Frame]:
    """The frames at increasing indices and some between them: frames close together in one pass, then a seek."""
    info, together = None, [[index] for index in indices[:1]]
    for before, index in pairwise(indices):
        if index - before > FARTHEST_STEP:
            together.append([])
        together[-1].append(index)
    for group in together:
        step = gcd(*group) or 1
        with read_frames(
            spec, start_frame=group[0], end_frame=group[-1] + 1, stride=step, info=info, timeout_s=timeout_s
        ) as reader:
            info = reader.info  # so that the next decoder doesn't probe the source again
            yield from reader


def _data_uri(picture: Image, quality: int) -> str:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode('ascii')}"
