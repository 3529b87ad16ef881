"""How the pixels of a frame are placed in the model's input."""

import math
from dataclasses import dataclass
from typing import Literal

from deltascene.stages.errors import StageError

ResizeMode = Literal["stretch", "letterbox", "aspect"]


@dataclass(frozen=True, slots=True)
class InputPlan:
    """How frames of one size become model input.

    Attributes:
        frame_size: height and width of the frame in pixels.
        model_size: height and width of the model's input, multiples of the patch.
        content: top, left, height and width of the frame's picture inside the input; all of it unless letterboxed.
    """

    frame_size: tuple[int, int]
    model_size: tuple[int, int]
    content: tuple[int, int, int, int]


def plan_input(
    frame_size: tuple[int, int], patch: int, *, size: tuple[int, int] | None, short_side: int | None, resize: ResizeMode
) -> InputPlan:
    """Chooses the model's input size for a frame size.

    Args:
        frame_size: height and width of the frame.
        patch: side of a patch; sizes are rounded to its multiples.
        size: wanted height and width, or None.
        short_side: without `size`, the wanted length of the shorter side; the other keeps the frame's aspect ratio.
            With neither, the frame's own size.
        resize: `stretch` fills the input; `letterbox` keeps the aspect ratio and pads; `aspect` gives the input the
            frame's aspect ratio and about as many patches as `size` has, and fills it.

    Raises:
        StageError: the frame is smaller than one patch.
    """
    if min(frame_size) < patch:
        raise StageError(
            f"frame: expected at least one patch, {patch}x{patch} pixels; found {frame_size[0]}x{frame_size[1]}"
        )
    enlarged = (short_side or min(frame_size)) / min(frame_size)
    wanted = size or (frame_size[0] * enlarged, frame_size[1] * enlarged)
    rows, columns = (max(1, round(side / patch)) for side in wanted)
    if resize == "aspect" and size is not None:
        rows, columns = _in_shape(frame_size, rows * columns)
    height, width = rows * patch, columns * patch
    if resize != "letterbox":
        return InputPlan(frame_size, (height, width), (0, 0, height, width))
    scale = min(height / frame_size[0], width / frame_size[1])
    inner = max(1, round(frame_size[0] * scale)), max(1, round(frame_size[1] * scale))
    return InputPlan(frame_size, (height, width), ((height - inner[0]) // 2, (width - inner[1]) // 2, *inner))


def _in_shape(frame_size: tuple[int, int], patches: int) -> tuple[int, int]:
    """Rows and columns of about so many patches in the frame's aspect ratio.

    Each side is rounded by itself, half to even, to 1 at least and to `patches` at most. So the product is at most
    half as many again, and the aspect ratio is kept up to `patches`:1; a frame 100 times as wide as high gets 2
    rows of 188 patches out of 352.
    """
    height, width = frame_size
    sides = (math.sqrt(patches * height / width), math.sqrt(patches * width / height))
    rows, columns = (min(max(1, round(side)), patches) for side in sides)
    return rows, columns
