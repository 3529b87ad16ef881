"""Furnishes a room by its recipe: doors and windows, furniture, things on walls and on tops, and people."""

from dataclasses import dataclass

import numpy as np

from deltascene.pipeline.training.rooms.catalogue import Model
from deltascene.pipeline.training.rooms.placing import Placed, Placer, candidates
from deltascene.pipeline.training.rooms.recipes import RoomRecipe, Wish
from deltascene.pipeline.training.rooms.space import Extent

OPENING_DEPTH_M = 0.09
DOOR_FREE_M = 0.7
WALL_ANYWHERE = ("textile", "lamp", "small_object", "appliance", "screen", "shelf", "cabinet", "bath", "picture")


@dataclass(frozen=True)
class FurnishingConfig:
    """Densities of a room's furnishing.

    Attributes:
        people_chance: probability of people in a room.
        most_people: maximum number of people.
        hanging: minimum and maximum number of models tried on the walls.
        on_top: minimum and maximum number of models tried on each table or cabinet.
    """

    people_chance: float = 0.45
    most_people: int = 3
    hanging: tuple[int, int] = (2, 6)
    on_top: tuple[int, int] = (1, 5)


def furnish(placer: Placer, models: tuple[Model, ...], recipe: RoomRecipe, furnishing: FurnishingConfig) -> None:
    """Places all things of a room with the placer."""
    _openings(placer, models, recipe)
    for wish in recipe.wishes:
        _floor(placer, models, wish, recipe.outdoors)
    if not recipe.outdoors:
        _ceiling(placer, models)
    _hanging(placer, models, recipe, furnishing)
    _tops(placer, models, recipe, furnishing)
    _people(placer, models, furnishing)


def _choose(placer: Placer, pool: list[Model]) -> Model:
    return pool[int(placer.rng.integers(len(pool)))]


def _openings(placer: Placer, models: tuple[Model, ...], recipe: RoomRecipe) -> None:
    """Places doors and windows, and keeps the floor before doors free."""
    rng = placer.rng
    doors = [m for m in models if m.class_name == "door" and (recipe.outdoors or m.size_m[0] < 2.0)]
    windows = [m for m in models if m.class_name == "window"]
    for _ in range(1 + int(rng.random() < 0.35)):
        door = placer.on_wall(_choose(placer, doors), 0.0, OPENING_DEPTH_M)
        if door is not None:
            placer.space.take(_before(door))
    for _ in range(int(rng.integers(1, 3))):
        model = _choose(placer, windows)
        placer.on_wall(model, model.elevation_m or 0.9, OPENING_DEPTH_M)


def _before(door: Placed) -> Extent:
    """The floor before a door, as a box."""
    extent = door.extent()
    ahead = np.array([np.sin(door.yaw_rad), 0.0, np.cos(door.yaw_rad)]) * DOOR_FREE_M
    low = np.minimum(extent.low, np.array(extent.low) + ahead)
    high = np.maximum(extent.high, np.array(extent.high) + ahead)
    return Extent((low[0], 0.05, low[2]), (high[0], high[1], high[2]))


def _floor(placer: Placer, models: tuple[Model, ...], wish: Wish, outdoors: bool) -> None:
    placements = ("outdoor", "floor") if outdoors else ("floor",)
    if "vehicle" in wish.classes or "animal" in wish.classes:
        placements = ("outdoor", "floor")
    pool = [m for m in candidates(models, wish, placements) if max(m.size_m) < 5.2]
    if not outdoors:
        pool = [m for m in pool if m.size_m[1] < placer.space.height_m and m.label.placement == "floor"]
    else:
        pool = [m for m in pool if m.label.placement == "outdoor"] or pool
    seats = (
        [m for m in models if m.class_name == "chair" and m.label.placement == pool[0].label.placement] if pool else []
    )
    seats = [m for m in seats if max(m.size_m[0], m.size_m[2]) < 0.75]
    for _ in range(int(placer.rng.integers(wish.least, wish.most + 1)) if pool else 0):
        thing = placer.on_floor(_choose(placer, pool), wish.where)
        if thing is not None and wish.seats and seats:
            placer.around(thing, _choose(placer, seats), int(placer.rng.integers(1, wish.seats + 1)))


def _ceiling(placer: Placer, models: tuple[Model, ...]) -> None:
    pool = [m for m in models if m.label.placement == "ceiling"]
    lamps = [m for m in pool if m.class_name == "lamp"]
    for _ in range(int(placer.rng.integers(0, 3))):
        placer.under_ceiling(_choose(placer, lamps if placer.rng.random() < 0.85 else pool))


def _hanging(placer: Placer, models: tuple[Model, ...], recipe: RoomRecipe, furnishing: FurnishingConfig) -> None:
    """Places things on the walls; classes are drawn first, so that classes with many models don't dominate."""
    pool = [m for m in models if m.label.placement == "wall" and m.class_name in WALL_ANYWHERE]
    pool = [m for m in pool if m.category in recipe.hanging or m.class_name in ("lamp", "picture")]
    by_class: dict[str, list[Model]] = {}
    for model in pool:
        by_class.setdefault(model.class_name, []).append(model)
    names = sorted(by_class)
    for _ in range(int(placer.rng.integers(furnishing.hanging[0], furnishing.hanging[1] + 1)) if names else 0):
        model = _choose(placer, by_class[names[int(placer.rng.integers(len(names)))]])
        placer.on_wall(model, 1.2 if model.elevation_m is None else model.elevation_m)


def _tops(placer: Placer, models: tuple[Model, ...], recipe: RoomRecipe, furnishing: FurnishingConfig) -> None:
    """Places things on tables, cabinets, shelves and appliances with a flat top below eye level."""
    rng = placer.rng
    pool = [m for m in models if m.label.placement == "tabletop"]
    small = [m for m in pool if m.class_name == "small_object" and m.category in recipe.tabletop]
    other: dict[str, list[Model]] = {}
    for model in pool:
        if model.class_name != "small_object" and (
            model.class_name != "appliance" or model.category in recipe.tabletop
        ):
            other.setdefault(model.class_name, []).append(model)
    names = sorted(other)
    for support in list(placer.placed):
        top = support.base_3[1] + support.model.size_m[1]
        if support.model.class_name not in ("table", "cabinet", "shelf", "appliance") or not 0.25 < top < 1.5:
            continue
        for _ in range(int(rng.integers(furnishing.on_top[0], furnishing.on_top[1] + 1))):
            big = rng.random() < 0.5 or not small
            model = _choose(placer, other[names[int(rng.integers(len(names)))]]) if big else _choose(placer, small)
            placer.on_top(model, support)


def _people(placer: Placer, models: tuple[Model, ...], furnishing: FurnishingConfig) -> None:
    if placer.rng.random() >= furnishing.people_chance:
        return
    pool = [m for m in models if m.class_name == "person" and "seat under" not in m.label.notes]
    pool = [m for m in pool if "edge" not in m.label.notes]
    standing = [m for m in pool if "standing" in m.label.notes]
    for _ in range(int(placer.rng.integers(1, furnishing.most_people + 1))):
        placer.on_floor(_choose(placer, standing if placer.rng.random() < 0.8 else pool), "any")
