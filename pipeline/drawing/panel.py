"""Draws a frame, its predictions and its change map as the tiles of one picture."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deltascene.stages.kinds import Array, Classes, Kind, Scalar
from deltascene.stages.types import Image

TILE_HEIGHT = 224
GAP = 2  # pixels between tiles

_GROUND, _INK, _FAINT = 20, (240, 241, 244), (150, 154, 162)
_FONT = cv2.FONT_HERSHEY_SIMPLEX  # OpenCV 5 draws it with a smooth font of its own
_TINT = (255, 150, 0)  # stands out from a darkened picture for every kind of colour vision
_FAINTEST, _STRONGEST = 0.25, 0.65  # share of the tint
_DARKENED = 0.42  # share of the light that is left
_FULL_TINT = 8  # in thresholds: the tint is strongest from here on


@dataclass(frozen=True, slots=True)
class Panel:
    """Layout of a composed picture, in pixels.

    Attributes:
        tile: height and width of every tile.
        tiles: number of tiles.
        columns: tiles side by side.
        cells: places for tiles; those left over hold legends.
        header: height of the line on top; 0 for none.
    """

    tile: tuple[int, int]
    tiles: int
    columns: int
    cells: int
    header: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole picture, both even, as video encoders want them."""
        rows = self.cells // self.columns
        return (
            self.header + rows * (self.tile[0] + GAP) - GAP,
            self.columns * (self.tile[1] + GAP) - GAP,
        )

    @property
    def scale(self) -> float:
        """Font scale that suits the tiles."""
        return font_scale(self.tile[0])

    def place(self, number: int) -> tuple[slice, slice]:
        """Rows and columns of a tile by its number, left to right, top to bottom."""
        (height, width), (row, column) = self.tile, divmod(number, self.columns)
        top, left = self.header + row * (height + GAP), column * (width + GAP)
        return slice(top, top + height), slice(left, left + width)


@dataclass(frozen=True, slots=True)
class Change:
    """How much a frame changed, and what was computed of it.

    Attributes:
        strength: of every patch of the model's input [h, w], in steps of 255; None where it isn't known.
        threshold: strength from which on a patch counts as moved.
        policy: dense, rows, warped, held or skipped.
        content: top, left, height and width of the frame inside the model's input, as shares of it.
    """

    strength: NDArray[np.uint8] | None
    threshold: float
    policy: str
    content: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    @property
    def moved(self) -> int:
        """Patches over the threshold."""
        return 0 if self.strength is None else int((self.strength >= self.threshold).sum())


def plan_panel(frame_size: tuple[int, int], others: int, height: int, header: bool = True) -> Panel:
    """Lays out a frame and the tiles beside it so that the whole is close to 16:9.

    Args:
        frame_size: height and width of the frame; tiles keep its aspect ratio.
        others: number of other tiles: one for each task, and one for the change map if it is shown.
        height: of a tile in pixels.
        header: whether there is a line of text on top.
    """
    width = max(2, 2 * round(height * frame_size[1] / frame_size[0] / 2))
    tile, tiles = (max(2, height // 2 * 2), width), others + 1

    def unlikeness(columns: int) -> float:
        return abs(math.log(columns * width / (math.ceil(tiles / columns) * tile[0]) / (16 / 9)))

    columns = min(range(1, tiles + 1), key=unlikeness)
    return Panel(tile, tiles, columns, math.ceil(tiles / columns) * columns, 2 * round(height / 20) if header else 0)


def draw_ground(panel: Panel, kinds: Mapping[str, Kind]) -> Image:
    """Draws what all pictures of a panel share: background, and legends of classes where tiles are left over."""
    ground: Image = np.full((*panel.size, 3), _GROUND, np.uint8)
    classes = [kind for kind in kinds.values() if isinstance(kind, Classes)]
    for kind, spare in zip(classes, range(panel.tiles, panel.cells), strict=False):
        _legend(ground[panel.place(spare)], kind, panel.scale)
    return ground


def draw(
    panel: Panel,
    ground: Image,
    image: Image | None,
    values: Mapping[str, Array],
    kinds: Mapping[str, Kind],
    *,
    caption: str = "",
    cause: str = "",
    change: Change | None = None,
) -> Image:
    """Draws a frame and its predictions as tiles, and the change map as the last tile.

    Args:
        panel: layout.
        ground: background from `draw_ground`; it isn't changed.
        image: RGB frame [H, W, 3]; None shows the predictions alone.
        values: natural values by task [h, w] or [h, w, components], of any size.
        kinds: kind of every task that gets a tile; one without values is shown as not predicted.
        caption: line on top.
        cause: why the frame isn't valid, in which case it is greyed; empty for a valid frame.
        change: None leaves the change map out.

    Returns:
        RGB picture [panel height, panel width, 3].
    """
    picture = ground.copy()
    frame, grey = frame_tiles(panel.tile, image)
    picture[panel.place(0)] = noted(grey, cause) if cause else frame
    label_tile(picture[panel.place(0)], "frame", panel.scale)
    for number, (task, kind) in enumerate(kinds.items(), start=1):
        known = task in values and not cause
        tile = task_tile(values[task], kind, grey) if known else noted(grey, cause or "not predicted")
        picture[panel.place(number)] = tile
        label_tile(picture[panel.place(number)], _title(task, kind), panel.scale)
    if change is not None:
        tile = noted(grey, cause) if cause else change_tile(frame, change)
        picture[panel.place(panel.tiles - 1)] = tile
        label_tile(picture[panel.place(panel.tiles - 1)], "change map", panel.scale)
    if panel.header:
        room, text_y = panel.size[1] - 16, panel.header - round(7 * panel.scale / 0.45)
        _write(picture, _fitted(caption, room, panel.scale), (8, text_y), panel.scale)
    return picture


def font_scale(height: int) -> float:
    """Font scale that suits tiles of a height."""
    return min(max(0.45 * height / TILE_HEIGHT, 0.34), 0.7)


def class_swatches(kind: Classes) -> NDArray[np.uint8]:
    """Colour of every label, RGB [labels, 3]."""
    colours: NDArray[np.uint8] = kind.colour(np.arange(len(kind.labels), dtype=kind.stored.dtype)[None])[0]
    return colours


def class_counts(kind: Classes, value: Array) -> NDArray[np.int64]:
    """Number of pixels of every label [labels]; ids outside the list aren't counted."""
    return np.bincount(value[value < len(kind.labels)], minlength=len(kind.labels))


def frame_tiles(size: tuple[int, int], image: Image | None) -> tuple[Image, Image]:
    """The frame at a tile's size in colour and in grey; both dark where there is no frame."""
    height, width = size
    if image is None:
        blank: Image = np.full((height, width, 3), (38, 41, 48), np.uint8)
        return noted(blank, "no picture"), blank
    step = max(1, image.shape[0] // (2 * height))  # a large frame is thinned to about twice the tile, then averaged
    frame = cv2.resize(image[::step, ::step], (width, height), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(frame, np.uint8), np.asarray(grey, np.uint8)


def task_tile(value: Array, kind: Kind, grey: Image) -> Image:
    """A task's values in colour; classes are blended with the grey frame, which stays visible below them."""
    colour = kind.colour(_resized(value, kind, grey.shape[:2]))
    if not isinstance(kind, Classes):
        return colour
    return np.asarray(cv2.addWeighted(grey, 0.4, colour, 0.6, 0), np.uint8)


def change_tile(frame: Image, change: Change) -> Image:
    """A frame whose moved patches are tinted and the others darkened; a dense one has a frame instead of darkening.

    Args:
        frame: at the tile's size.
        change: how much it changed.
    """
    dense = change.policy == "dense"
    tile = frame.copy() if dense and change.strength is None else frame
    if change.strength is not None:
        over = (change.strength.astype(np.float32) - change.threshold) / ((_FULL_TINT - 1) * max(change.threshold, 1))
        top, left, height, width = change.content
        rows, columns = frame.shape[0] / height, frame.shape[1] / width  # of the whole model input in tile pixels
        size = (max(frame.shape[1], round(columns)), max(frame.shape[0], round(rows)))
        whole = np.asarray(cv2.resize(over, size, interpolation=cv2.INTER_NEAREST), np.float32)
        y, x = round(top * rows), round(left * columns)
        tile = tinted(frame, whole[y : y + frame.shape[0], x : x + frame.shape[1]], darken=not dense)
    if dense:
        cv2.rectangle(tile, (0, 0), (tile.shape[1] - 1, tile.shape[0] - 1), _INK, max(2, tile.shape[0] // 60))
    return tile


def tinted(picture: Image, strength: NDArray[np.float32], *, darken: bool = True) -> Image:
    """A picture that is tinted where the strength is at least 0 (faintly at 0, fully at 1), and darkened elsewhere.

    Args:
        picture: RGB [H, W, 3].
        strength: [H, W].
        darken: False leaves the other pixels as they are.
    """
    shown = strength[..., None] >= 0
    alpha = _FAINTEST + (_STRONGEST - _FAINTEST) * np.clip(strength[..., None], 0, 1)
    light = picture.astype(np.float32)
    tint = light * (1 - alpha) + alpha * np.array(_TINT, np.float32)
    return np.rint(np.where(shown, tint, light * _DARKENED if darken else light)).astype(np.uint8)


def _resized(value: Array, kind: Kind, size: tuple[int, int]) -> Array:
    if value.shape[:2] == size:
        return value
    if kind.resample == "nearest":
        return np.asarray(cv2.resize(value, size[::-1], interpolation=cv2.INTER_NEAREST))
    # INTER_AREA keeps thin edges visible; it takes at most four channels.
    planes = value.astype(np.float32, copy=False).reshape(*value.shape[:2], -1)
    small = [
        cv2.resize(np.ascontiguousarray(planes[..., at : at + 4]), size[::-1], interpolation=cv2.INTER_AREA)
        for at in range(0, planes.shape[2], 4)
    ]
    return np.dstack(small).reshape(*size, *value.shape[2:])


def _title(task: str, kind: Kind) -> str:
    if not isinstance(kind, Scalar):
        return task
    low, high = kind.range
    return f"{task}  {low:g}-{high:g} {kind.unit}".rstrip()


def label_tile(tile: Image, text: str, scale: float) -> None:
    """Writes a caption into a tile's upper left corner, on a darkened box; changes the tile."""
    text = _fitted(text, tile.shape[1] - 12, scale)
    (width, height), below = cv2.getTextSize(text, _FONT, scale, 1)
    box = tile[: height + below + 5, : width + 12] // 4
    _write(box, text, (6, height + 4), scale)
    tile[: box.shape[0], : box.shape[1]] = box


def noted(grey: Image, note: str) -> Image:
    """A darkened tile with a note on why nothing is shown."""
    height, width = grey.shape[:2]
    tile: Image = (grey // 3 + 12).astype(np.uint8)
    scale = font_scale(height)
    note = _fitted(note, width - 8, scale)
    (text_width, _), _ = cv2.getTextSize(note, _FONT, scale, 1)
    _write(tile, note, ((width - text_width) // 2, height // 2 + 4), scale)
    return tile


def _legend(tile: Image, kind: Classes, scale: float) -> None:
    """Draws a list of classes with their colours by id, and the number of those that don't fit; changes the tile."""
    height, width = tile.shape[:2]
    line = max(11, round(28 * scale))
    rows, columns = max(1, (height - 8) // line), max(1, width // round(240 * scale))
    left_out = max(0, len(kind.labels) - rows * columns + 1) if len(kind.labels) > rows * columns else 0
    texts = [*kind.labels[: len(kind.labels) - left_out], *([f"and {left_out} more"] if left_out else [])]
    rows, canvas, small = math.ceil(len(texts) / columns), np.ascontiguousarray(tile), scale * 0.85
    swatches = class_swatches(kind)[: len(kind.labels) - left_out].tolist()
    for number, text in enumerate(texts):
        left, top = 8 + number // rows * (width // columns), 6 + number % rows * line
        if number < len(swatches):
            cv2.rectangle(canvas, (left, top + 1), (left + line - 6, top + line - 4), swatches[number], cv2.FILLED)
        text = _fitted(text, width // columns - line - 8, small)
        _write(canvas, text, (left + line, top + line - 4), small, _FAINT)
    tile[:] = canvas


def _write(picture: Image, text: str, at: tuple[int, int], scale: float, colour: tuple[int, int, int] = _INK) -> None:
    """Writes into a contiguous picture; `at` is the left end of the line on which the letters stand."""
    cv2.putText(picture, text, at, _FONT, scale, colour, 1, cv2.LINE_AA)


def _fitted(text: str, width: int, scale: float) -> str:
    """A text cut to a width in pixels."""
    while len(text) > 1 and (needed := cv2.getTextSize(text, _FONT, scale, 1)[0][0]) > width:
        text = text[: max(1, min(len(text) - 1, len(text) * width // needed))]
    return text
