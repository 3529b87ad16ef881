"""Procedural surface textures for walls, floors, rugs, pictures and the outdoors; all are the project's own (CC0).

Every function takes a random generator and returns an sRGB image [SIDE_PX, SIDE_PX, 3] uint8. Textures of walls,
floors and grounds repeat without a seam.
"""

import colorsys
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

SIDE_PX = 256

Image = NDArray[np.uint8]
Texture = Callable[[Generator], Image]


def colour(
    rng: Generator, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]
) -> NDArray[np.float64]:
    """A random sRGB colour 0..1 from ranges of hue, saturation and value [3]."""
    return np.array(colorsys.hsv_to_rgb(rng.uniform(*hue) % 1.0, rng.uniform(*saturation), rng.uniform(*value)))


def noise(rng: Generator, sigma_y_px: float, sigma_x_px: float) -> NDArray[np.float64]:
    """Seamless smooth noise of mean 0 and deviation 1 [SIDE_PX, SIDE_PX]."""
    field = ndimage.gaussian_filter(rng.normal(size=(SIDE_PX, SIDE_PX)), (sigma_y_px, sigma_x_px), mode="wrap")
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-9))


def to_image(rgb: NDArray[np.float64]) -> Image:
    """Rounds sRGB 0..1 to bytes."""
    return np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def paint(rng: Generator) -> Image:
    """Painted plaster: one colour with faint mottling."""
    base = colour(rng, (0, 1), (0.0, 0.1 + 0.35 * rng.random() ** 2), (0.55, 0.97))
    mottle = 0.012 * noise(rng, 12, 12) + 0.012 * noise(rng, 1, 1)
    return to_image(base * (1 + mottle[..., None]))


def ceiling_paint(rng: Generator) -> Image:
    """Near-white paint."""
    base = colour(rng, (0.05, 0.18), (0.0, 0.08), (0.85, 0.98))
    return to_image(base * (1 + 0.01 * noise(rng, 1, 1)[..., None]))


def wallpaper(rng: Generator) -> Image:
    """Stripes or dots in two tones of a colour."""
    base = colour(rng, (0, 1), (0.02, 0.3), (0.6, 0.95))
    other = np.clip(base * rng.uniform(0.72, 0.95) + rng.uniform(-0.04, 0.04, 3), 0, 1)
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX] / SIDE_PX
    count = int(rng.integers(3, 9))
    if rng.random() < 0.6:
        mask = (x * count) % 1 < rng.uniform(0.2, 0.6)
    else:
        shifted = x * count + 0.5 * (np.floor(y * count) % 2)
        mask = np.hypot(shifted % 1 - 0.5, (y * count) % 1 - 0.5) < rng.uniform(0.15, 0.35)
    return to_image(np.where(mask[..., None], other, base) * (1 + 0.01 * noise(rng, 1, 1)[..., None]))


def bricks(rng: Generator) -> Image:
    """A wall of bricks in running bond."""
    base = colour(rng, (0.0, 0.1), (0.15, 0.6), (0.45, 0.9))
    return _blocks(rng, base, rows=8, columns=4, offset=0.5, joint_px=3, spread=0.13)


def tiles(rng: Generator) -> Image:
    """Square tiles with joints, in one colour or as a chequerboard."""
    base = colour(rng, (0, 1), (0.0, 0.3), (0.4, 0.97))
    count = int(rng.choice([2, 4, 6, 8]))
    image = _blocks(rng, base, rows=count, columns=count, offset=0.0, joint_px=2, spread=0.05)
    if rng.random() < 0.35:
        y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX] * count // SIDE_PX
        dark = ((y + x) % 2 == 1)[..., None]
        image = np.where(dark, (image * rng.uniform(0.25, 0.75)).astype(np.uint8), image)
    return image


def planks(rng: Generator) -> Image:
    """Boards of wood along y with grain."""
    base = colour(rng, (0.04, 0.11), (0.2, 0.7), (0.3, 0.85))
    boards = int(rng.choice([4, 6, 8]))
    column = np.arange(SIDE_PX) * boards // SIDE_PX
    tone_K = rng.normal(1.0, 0.1, boards)[column]
    grain = 0.06 * noise(rng, 24, 0.8) + 0.05 * noise(rng, 60, 3)
    joint = np.where(np.diff(column, prepend=-1) != 0, 0.55, 1.0)
    ends = np.ones((SIDE_PX, SIDE_PX))
    for board in range(boards):
        ends[int(rng.integers(SIDE_PX)), column == board] = 0.6
    return to_image(base * ((1 + grain) * tone_K * joint * ends)[..., None])


def carpet(rng: Generator) -> Image:
    """Wall-to-wall carpet: coarse speckle."""
    base = colour(rng, (0, 1), (0.05, 0.5), (0.25, 0.8))
    return to_image(base * (1 + 0.1 * noise(rng, 0.7, 0.7) + 0.04 * noise(rng, 8, 8))[..., None])


def stone(rng: Generator) -> Image:
    """Veined stone slabs or bare concrete."""
    base = colour(rng, (0.05, 0.15), (0.0, 0.2), (0.45, 0.9))
    veins = np.exp(-np.abs(noise(rng, 14, 14)) * 9)
    image = to_image(base * (1 + 0.05 * noise(rng, 6, 6) - rng.uniform(0, 0.3) * veins)[..., None])
    if rng.random() < 0.6:
        count = int(rng.choice([1, 2, 4]))
        line = (np.arange(SIDE_PX) * count % SIDE_PX) < 2 * count
        image[line] = image[line] // 2
        image[:, line] = image[:, line] // 2
    return image


def grass(rng: Generator) -> Image:
    """A lawn."""
    base = colour(rng, (0.2, 0.32), (0.35, 0.7), (0.3, 0.6))
    return to_image(base * (1 + 0.18 * noise(rng, 1.5, 0.7) + 0.1 * noise(rng, 16, 16))[..., None])


def paving(rng: Generator) -> Image:
    """Outdoor paving or gravel."""
    base = colour(rng, (0.04, 0.14), (0.02, 0.25), (0.4, 0.75))
    return _blocks(rng, base, rows=8, columns=8, offset=float(rng.choice([0.0, 0.5])), joint_px=3, spread=0.12)


def rug(rng: Generator) -> Image:
    """A rug with a border and bands, rings or diamonds."""
    tones = [colour(rng, (0, 1), (0.2, 0.8), (0.2, 0.9)) for _ in range(3)]
    y, x = np.abs(np.mgrid[0:SIDE_PX, 0:SIDE_PX] / SIDE_PX - 0.5) * 2
    measure = (x, np.hypot(x, y), x + y)[int(rng.integers(3))]
    band = np.floor(measure * rng.integers(3, 9)).astype(int) % 2
    out = np.where((band == 0)[..., None], tones[0], tones[1])
    out = np.where((np.maximum(x, y) > rng.uniform(0.78, 0.92))[..., None], tones[2], out)
    return to_image(out * (1 + 0.08 * noise(rng, 0.8, 0.8))[..., None])


def painting(rng: Generator) -> Image:
    """A painting: a landscape of bands, blots of colour, or shapes."""
    tones = np.stack([colour(rng, (0, 1), (0.1, 0.9), (0.15, 1.0)) for _ in range(5)])
    style = rng.integers(3)
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX] / SIDE_PX
    if style == 0:
        level = y + 0.05 * noise(rng, 20, 20)
        index = np.digitize(level, np.sort(rng.uniform(0.15, 0.9, 4)))
    elif style == 1:
        index = np.digitize(noise(rng, 25, 25), [-1.0, -0.3, 0.3, 1.0])
    else:
        index = np.zeros((SIDE_PX, SIDE_PX), dtype=int)
        for tone in range(1, 5):
            cx, cy, rx, ry = *rng.uniform(0.1, 0.9, 2), *rng.uniform(0.08, 0.35, 2)
            inside = (
                np.hypot((x - cx) / rx, (y - cy) / ry) < 1
                if rng.random() < 0.5
                else (abs(x - cx) < rx) & (abs(y - cy) < ry)
            )
            index[inside] = tone
    return to_image(tones[index] * (1 + 0.05 * noise(rng, 2, 2))[..., None])


def outlook(rng: Generator) -> Image:
    """The view through a window: bright sky over greenery, or haze."""
    sky = colour(rng, (0.52, 0.62), (0.02, 0.4), (0.9, 1.0))
    green = colour(rng, (0.2, 0.38), (0.1, 0.5), (0.3, 0.8))
    y = np.mgrid[0:SIDE_PX, 0:SIDE_PX][0] / SIDE_PX
    share = np.clip((y + 0.06 * noise(rng, 10, 10) - rng.uniform(0.4, 1.1)) * 8, 0, 1)[..., None]
    return to_image((sky * (1 - share) + green * share) * (1 + 0.02 * noise(rng, 6, 6))[..., None])


def _blocks(
    rng: Generator, base: NDArray[np.float64], rows: int, columns: int, offset: float, joint_px: int, spread: float
) -> Image:
    """A grid of blocks with joints; `offset` shifts every second row by that share of a block."""
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX]
    row = y * rows // SIDE_PX
    across = (x * columns / SIDE_PX + offset * (row % 2)) % columns
    column = np.floor(across).astype(int)
    tone = rng.normal(1.0, spread, (rows, columns))[row, column]
    joint = ((y * rows % SIDE_PX) < joint_px * rows) | ((across - column) * SIDE_PX / columns < joint_px)
    shade = tone * (1 + 0.04 * noise(rng, 1.2, 1.2))
    mortar = np.clip(base * 0.4 + rng.uniform(0.1, 0.5), 0, 1)
    return to_image(np.where(joint[..., None], mortar, base * shade[..., None]))


WALLS: tuple[tuple[Texture, float], ...] = ((paint, 0.6), (wallpaper, 0.2), (bricks, 0.1), (tiles, 0.1))
FLOORS: tuple[tuple[Texture, float], ...] = ((planks, 0.45), (tiles, 0.25), (carpet, 0.18), (stone, 0.12))


def pick(rng: Generator, choices: tuple[tuple[Texture, float], ...]) -> Image:
    """A texture of a kind drawn by weight."""
    weights = np.array([weight for _, weight in choices])
    return choices[int(rng.choice(len(choices), p=weights / weights.sum()))][0](rng)
