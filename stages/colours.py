"""Colours for pictures of predictions: distinct colours for labels, a ramp for numbers."""

import colorsys

import numpy as np
from numpy.typing import NDArray

# Anchors of the "turbo" ramp (Mikhailov 2019), dark blue to dark red, read off its published table.
_RAMP = np.array(
    [[48, 18, 59], [70, 107, 227], [40, 187, 236], [49, 242, 153], [162, 252, 60],
     [237, 208, 58], [251, 128, 34], [210, 49, 5], [122, 4, 3]],
    np.float32,
)  # fmt: skip


def distinct(count: int) -> list[tuple[int, int, int]]:
    """`count` colours far apart from their neighbours: hues by the golden angle, three lightnesses."""
    out = []
    for number in range(count):
        hue, value = (number * 0.61803398875) % 1.0, (0.95, 0.75, 0.55)[number % 3]
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.45 + 0.4 * ((number // 3) % 2), value)
        out.append((round(red * 255), round(green * 255), round(blue * 255)))
    return out


def ramp(share: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Numbers in [0, 1] as colours [..., 3]; outside is clipped, NaN is black."""
    known = np.isfinite(share)
    place = np.clip(np.where(known, share, 0), 0, 1) * (len(_RAMP) - 1)
    low = np.minimum(place.astype(np.intp), len(_RAMP) - 2)
    part = (place - low)[..., None]
    mixed = _RAMP[low] * (1 - part) + _RAMP[low + 1] * part
    return np.where(known[..., None], np.rint(mixed), 0).astype(np.uint8)
