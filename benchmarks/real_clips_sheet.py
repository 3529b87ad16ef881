"""Picture of all marked frames: the frame, its classes with the points, its depth with the pairs."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import cv2
import numpy as np
from real_clips_marks import Judged, Point

from deltascene.pipeline.drawing.panel import Panel, draw_ground, frame_tiles, label_tile, task_tile
from deltascene.stages.kinds import Kind
from deltascene.stages.types import Image

TILE_WIDTH, CELLS, LEGEND_HEIGHT = 240, 2, 40  # pixels; frames side by side, three tiles each
HIT, MISS, LINE = (255, 255, 255), (230, 0, 0), (0, 0, 0)
SHEET_BYTES = 900_000


def draw_sheet(judged: Mapping[str, Sequence[Judged]], kinds: Mapping[str, Kind]) -> Image:
    """All frames, each with its picture, its classes with the points, and its depth with the pairs; and a legend."""
    rows = []
    pictures = [_cell_picture(clip, frame, kinds) for clip, frames in judged.items() for frame in frames]
    for _, alike in groupby(pictures, key=lambda picture: picture.shape):
        cells = list(alike)
        cells += [np.zeros_like(cells[0])] * (-len(cells) % CELLS)
        rows += [np.hstack(cells[start : start + CELLS]) for start in range(0, len(cells), CELLS)]
    panel = Panel((LEGEND_HEIGHT, rows[0].shape[1]), 0, 1, 1, 0)
    return np.vstack([*rows, draw_ground(panel, kinds)])


def encode(picture: Image) -> bytes:
    """A JPEG of at most `SHEET_BYTES`, of the best quality within that size."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    for quality in range(90, 20, -10):
        data: bytes = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= SHEET_BYTES:
            break
    return data


def _cell_picture(clip: str, frame: Judged, kinds: Mapping[str, Kind]) -> Image:
    height, width = frame.marks.size
    scale = TILE_WIDTH / width
    picture, grey = frame_tiles((round(height * scale), TILE_WIDTH), frame.image)
    classes, far_away = (task_tile(value, kinds[task], grey) for task, value in frame.values.items())
    tiles = [np.ascontiguousarray(tile) for tile in (picture, classes, far_away)]
    for name, points in frame.marks.points.items():
        for (x, y), hit in zip(points, frame.hits[name], strict=True):
            _draw_mark(tiles[1], (round(x * scale), round(y * scale)), hit)
    for name, pairs in frame.marks.pairs.items():
        for pair, hit in zip(pairs, frame.hits[name], strict=True):
            near, far = ((round(x * scale), round(y * scale)) for x, y in pair)
            for thickness, colour in ((3, LINE), (1, HIT if hit else MISS)):
                cv2.line(tiles[2], near, far, colour, thickness, cv2.LINE_AA)
            _draw_mark(tiles[2], near, hit)
    texts = {name: f"{name} {sum(hits)}/{len(hits)}" for name, hits in frame.hits.items() if hits}
    captions = (
        "  ".join(texts[name] for name in group if name in texts) for group in (frame.marks.points, frame.marks.pairs)
    )
    for tile, text in zip(tiles, (f"{clip} #{frame.marks.index}", *captions), strict=True):
        label_tile(tile, text, 0.34)
    return np.hstack(tiles)


def _draw_mark(tile: Image, at: Point, hit: bool) -> None:
    """Draws a mark into a tile: a ring for a hit, a cross for a miss."""
    for thickness, colour in ((3, LINE), (1, HIT if hit else MISS)):
        if hit:
            cv2.circle(tile, at, 3, colour, thickness, cv2.LINE_AA)
        else:
            cv2.drawMarker(tile, at, colour, cv2.MARKER_TILTED_CROSS, 7, thickness, cv2.LINE_AA)
