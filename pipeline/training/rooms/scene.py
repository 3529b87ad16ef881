"""Furnished rooms, each a pure function of its seed and config."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from deltascene.pipeline.training.rooms import textures
from deltascene.pipeline.training.rooms.catalogue import Model
from deltascene.pipeline.training.rooms.furnishing import FurnishingConfig, furnish
from deltascene.pipeline.training.rooms.lighting import Light, Lighting
from deltascene.pipeline.training.rooms.meshes import Mesh, MeshStore
from deltascene.pipeline.training.rooms.placing import Placed, Placer
from deltascene.pipeline.training.rooms.recipes import RECIPES, RoomRecipe
from deltascene.pipeline.training.rooms.shell import picture, room_shell, rug
from deltascene.pipeline.training.rooms.soup import Material, Soup, from_mesh, join, move, squash_depth, yaw_matrix
from deltascene.pipeline.training.rooms.space import Space, Wall, four_walls

FIRST_THING = 10


@dataclass(frozen=True)
class SceneConfig:
    """Distribution of scenes.

    Attributes:
        kinds: names of the recipes to draw from, empty for all.
        furnishing: how rooms are filled.
        recolour_chance: probability that a piece of furniture gets another colour.
    """

    kinds: tuple[str, ...] = ()
    furnishing: FurnishingConfig = field(default_factory=FurnishingConfig)
    recolour_chance: float = 0.45


@dataclass(frozen=True)
class Furniture:
    """The models that scenes are built from.

    Attributes:
        models: usable models, in a fixed order.
        store: their meshes.
    """

    models: tuple[Model, ...]
    store: MeshStore


@dataclass(frozen=True)
class Scene:
    """A room at rest.

    Attributes:
        kind: name of its recipe.
        space: its size and the boxes that are taken.
        walls: walls that stand.
        static: everything in it as one body.
        lighting: its light.
        models: models in it.
    """

    kind: str
    space: Space
    walls: tuple[Wall, ...]
    static: Soup
    lighting: Lighting
    models: tuple[Model, ...]


def build_scene(seed: int, config: SceneConfig, furniture: Furniture) -> Scene:
    """Builds the room of a seed."""
    rng = np.random.default_rng([seed, 1])
    recipe = _recipe(rng, config)
    width, depth = (float(side) for side in rng.uniform(*recipe.side_m, 2))
    space = Space(width, depth, 9.0 if recipe.outdoors else float(rng.uniform(2.4, 3.1)))
    walls: tuple[Wall, ...] = four_walls(space)
    if recipe.outdoors:
        first = int(rng.integers(4))
        walls = tuple(walls[(first + step) % 4] for step in range(int(rng.integers(1, 3))))
    parts = room_shell(rng, space, walls, recipe.outdoors)
    placer = Placer(rng, space, furniture.store, walls)
    furnish(placer, furniture.models, recipe, config.furnishing)
    instance = FIRST_THING
    night = not recipe.outdoors and rng.random() < 0.2
    for thing in placer.placed:
        parts.append(_thing(rng, thing, instance, config, night))
        instance += 1
    parts += _decoration(rng, space, walls, instance) if not recipe.outdoors else []
    lighting = _daylight(rng) if recipe.outdoors else _indoor_light(rng, space, placer.placed, night)
    used = tuple(thing.model for thing in placer.placed)
    return Scene(recipe.name, space, walls, join(parts), lighting, used)


def _recipe(rng: Generator, config: SceneConfig) -> RoomRecipe:
    pool = [recipe for recipe in RECIPES if not config.kinds or recipe.name in config.kinds]
    if not pool:
        raise ValueError(f"kinds {config.kinds} name none of {', '.join(recipe.name for recipe in RECIPES)}")
    weights = np.array([recipe.weight for recipe in pool])
    return pool[int(rng.choice(len(pool), p=weights / weights.sum()))]


def _thing(rng: Generator, thing: Placed, instance: int, config: SceneConfig, night: bool) -> Soup:
    soup = dress(rng, thing.model, thing.mesh, instance, config, night)
    if thing.squash < 1.0:
        soup = squash_depth(soup, thing.squash)
    return move(soup, yaw_matrix(thing.yaw_rad), thing.base_3)


def dress(rng: Generator, model: Model, mesh: Mesh, instance: int, config: SceneConfig, night: bool) -> Soup:
    """A model with its materials, some recoloured; windows show the outdoors, and lamps may glow."""
    tint = np.eye(3)
    if model.class_name not in ("person", "animal", "plant", "screen") and rng.random() < config.recolour_chance:
        tint = _tint(rng)
    glass = Material((0.75, 0.82, 0.85))
    if model.class_name in ("window", "door"):
        glass = Material((0.05, 0.06, 0.1)) if night else Material((1.0, 1.0, 1.0), textures.outlook(rng), glow=0.8)
    soup = from_mesh(mesh, model.label.class_id, instance, tint, glass)
    if model.class_name == "lamp" and rng.random() < 0.6:
        lit = tuple(replace(m, glow=1.2) if min(m.rgb) > 0.55 else m for m in soup.materials)
        soup = replace(soup, materials=lit)
    return soup


def _tint(rng: Generator) -> NDArray[np.float64]:
    """A random matrix that partly permutes colour channels and scales them."""
    turned = np.eye(3)[rng.permutation(3)]
    share = rng.uniform(0.0, 0.8)
    scale = textures.colour(rng, (0, 1), (0.0, 0.45), (0.55, 1.0))
    return np.asarray(np.diag(scale) @ (np.eye(3) * (1 - share) + turned * share))


def _decoration(rng: Generator, space: Space, walls: tuple[Wall, ...], instance: int) -> list[Soup]:
    """Rugs and pictures with procedural textures."""
    parts: list[Soup] = []
    if rng.random() < 0.45:
        parts.append(rug(rng, space, instance))
    for number in range(int(rng.integers(1, 6))):
        found = picture(rng, space, walls, instance + 1 + number)
        if found is not None:
            parts.append(found)
    return parts


def _warmth(rng: Generator, strength: float) -> tuple[float, float, float]:
    """Colour of light between candle light and daylight."""
    tone = rng.uniform(-1, 1)
    return strength * (1 + 0.16 * tone), strength, strength * (1 - 0.22 * tone)


def _indoor_light(rng: Generator, space: Space, placed: list[Placed], night: bool) -> Lighting:
    """One or two lamps that cast shadows, and windows as lights that don't."""
    lights = []
    for _ in range(int(rng.integers(1, 3))):
        x, z = rng.uniform(-0.35, 0.35, 2) * [space.width_m, space.depth_m]
        y = space.height_m - rng.uniform(0.15, 0.6)
        rgb = _warmth(rng, float(rng.uniform(0.5, 1.3)))
        lights.append(Light((float(x), float(y), float(z)), rgb, float(rng.uniform(2.0, 4.5)), True))
    for thing in placed:
        if thing.model.class_name == "window" and not night:
            ahead = np.array([np.sin(thing.yaw_rad), 0.0, np.cos(thing.yaw_rad)])
            x, y, z = thing.base_3 + ahead * 0.3 + [0.0, thing.mesh.box_3[1] / 2, 0.0]
            rgb = (0.55, 0.62, 0.72)
            lights.append(Light((float(x), float(y), float(z)), rgb, float(rng.uniform(1.5, 3.0)), False))
    fill = float(rng.uniform(0.25, 0.6))
    return Lighting(
        lights=tuple(lights[:4]),
        sky_rgb=_warmth(rng, fill),
        ground_rgb=_warmth(rng, fill * float(rng.uniform(0.5, 0.9))),
        exposure=float(rng.uniform(0.1, 0.25)),
        zenith_rgb=(0.0, 0.0, 0.0),
        horizon_rgb=(0.0, 0.0, 0.0),
    )


def _daylight(rng: Generator) -> Lighting:
    """A sun and a blue or overcast sky."""
    turn, rise = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 1.2)
    x, y, z = np.array([np.cos(turn) * np.cos(rise), np.sin(rise), np.sin(turn) * np.cos(rise)]) * 200.0
    cloud = float(rng.uniform(0, 1))
    sun = Light((float(x), float(y), float(z)), _warmth(rng, 1.1 * (1.2 - cloud)), 1e4, True)
    zenith = (0.35 + 0.5 * cloud, 0.55 + 0.35 * cloud, 1.0)
    return Lighting(
        lights=(sun,),
        sky_rgb=(0.5, 0.55, 0.65),
        ground_rgb=(0.25, 0.25, 0.22),
        exposure=float(rng.uniform(0.16, 0.3)),
        zenith_rgb=zenith,
        horizon_rgb=(0.85, 0.9, 1.0),
    )
