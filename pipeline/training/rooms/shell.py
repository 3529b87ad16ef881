"""Parts of a room besides furniture: walls, floor, ceiling, rugs and pictures."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from deltascene.pipeline.training.rooms import textures
from deltascene.pipeline.training.rooms.labels import class_id
from deltascene.pipeline.training.rooms.soup import Material, Soup, box, join, move, quad, yaw_matrix
from deltascene.pipeline.training.rooms.space import Extent, Space, Wall, extent_of

WHITE = (1.0, 1.0, 1.0)
SKIRTING_M = 0.08


def room_shell(rng: Generator, space: Space, walls: tuple[Wall, ...], outdoors: bool) -> list[Soup]:
    """Floor, walls and (indoors) ceiling; their instances are 0, 1 and so on in that order."""
    x, z, top = space.width_m / 2, space.depth_m / 2, space.height_m
    if outdoors:
        ground = textures.pick(rng, ((textures.grass, 0.45), (textures.paving, 0.4), (textures.stone, 0.15)))
        x, z, top = 40.0, 40.0, float(rng.uniform(2.8, 4.0))
    else:
        ground = textures.pick(rng, textures.FLOORS)
    tile_m = float(rng.uniform(0.9, 2.2))
    corners = np.array([[-x, 0, -z], [x, 0, -z], [x, 0, z], [-x, 0, z]])
    if rng.random() < 0.5:
        corners = np.roll(corners, 1, axis=0)
    parts = [quad(corners, Material(WHITE, ground), class_id("floor"), 0, tile_m)]
    skin, accent = textures.pick(rng, textures.WALLS), textures.pick(rng, textures.WALLS)
    accent_wall = int(rng.integers(len(walls))) if walls and rng.random() < 0.4 else -1
    wall_tile_m = float(rng.uniform(1.0, 2.2))
    for number, wall in enumerate(walls):
        image = accent if number == accent_wall else skin
        parts.append(_wall(wall, top, Material(WHITE, image), number + 1, wall_tile_m))
    if not outdoors:
        over = corners[::-1] + np.array([0.0, top, 0.0])
        parts.append(quad(over, Material(WHITE, textures.ceiling_paint(rng)), class_id("ceiling"), 5, 2.0))
        if rng.random() < 0.6:
            parts += [_skirting(rng, wall, number + 1) for number, wall in enumerate(walls)]
    return parts


def _wall(wall: Wall, top_m: float, material: Material, instance: int, tile_m: float) -> Soup:
    half = wall.length_m / 2
    corners = [wall.point(-half, 0, top_m), wall.point(half, 0, top_m), wall.point(half, 0, 0), wall.point(-half, 0, 0)]
    return quad(np.array(corners), material, class_id("wall"), instance, tile_m)


def _skirting(rng: Generator, wall: Wall, instance: int) -> Soup:
    tone = float(rng.uniform(0.6, 0.95))
    board = box(np.array([wall.length_m, SKIRTING_M, 0.02]), Material((tone, tone, tone)), class_id("wall"), instance)
    return move(board, yaw_matrix(wall.yaw_rad), wall.point(0.0, 0.0, 0.0))


def rug(rng: Generator, space: Space, instance: int) -> Soup:
    """A rug on the floor near the room's centre; furniture may stand on it."""
    size = np.array([rng.uniform(1.2, 2.8), 0.012, rng.uniform(1.0, 2.0)])
    size = np.minimum(size, [space.width_m - 0.6, 1.0, space.depth_m - 0.6])
    base = np.array([rng.uniform(-0.15, 0.15) * space.width_m, 0.0, rng.uniform(-0.15, 0.15) * space.depth_m])
    flat = box(size, Material(WHITE, textures.rug(rng)), class_id("textile"), instance)
    return move(flat, yaw_matrix(float(rng.integers(2)) * np.pi / 2 if size[0] < space.depth_m else 0.0), base)


def picture(rng: Generator, space: Space, walls: tuple[Wall, ...], instance: int) -> Soup | None:
    """A framed picture on a free part of a wall, whose box it takes; None if no part is free."""
    size = np.array([rng.uniform(0.35, 1.3), rng.uniform(0.3, 1.0), 0.03])
    for _ in range(20):
        wall = walls[int(rng.integers(len(walls)))]
        reach = (wall.length_m - size[0]) / 2 - 0.1
        if reach <= 0:
            continue
        base = wall.point(float(rng.uniform(-reach, reach)), 0.017, float(rng.uniform(1.1, 1.5)))
        extent: Extent = extent_of(size, wall.yaw_rad, base)
        if space.fits(extent):
            space.take(extent)
            return move(_framed(rng, size, instance), yaw_matrix(wall.yaw_rad), base)
    return None


def _framed(rng: Generator, size_3: NDArray[np.float64], instance: int) -> Soup:
    """A flat frame with a painting set on its front."""
    red, green, blue = textures.colour(rng, (0.0, 0.15), (0.0, 0.6), (0.05, 0.9))
    frame = box(size_3, Material((float(red), float(green), float(blue))), class_id("picture"), instance)
    border = float(rng.uniform(0.02, 0.06))
    x, low, high, z = size_3[0] / 2 - border, border, size_3[1] - border, size_3[2] / 2 + 0.001
    corners = np.array([[-x, high, z], [x, high, z], [x, low, z], [-x, low, z]])
    canvas = quad(corners, Material(WHITE, textures.painting(rng)), class_id("picture"), instance, None)
    return join([frame, canvas])
