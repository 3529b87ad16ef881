"""Kinds of rooms and their furniture."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wish:
    """A number of similar pieces of furniture.

    Attributes:
        classes: allowed class names.
        categories: allowed catalogue categories, empty for any.
        least: minimum number that is tried.
        most: maximum number that is tried.
        where: wall, corner, centre or any place on the floor.
        size_m: minimum and maximum height, None for any.
        seats: maximum number of chairs around each.
    """

    classes: tuple[str, ...]
    categories: tuple[str, ...]
    least: int
    most: int
    where: str
    size_m: tuple[float, float] | None = None
    seats: int = 0


@dataclass(frozen=True)
class RoomRecipe:
    """A kind of room.

    Attributes:
        name: kind of room.
        weight: relative frequency.
        side_m: minimum and maximum length of a wall.
        wishes: furniture on the floor, in the order in which it is placed.
        hanging: catalogue categories of things on the walls.
        tabletop: catalogue categories of things on tables and cabinets.
        outdoors: whether it is outdoors, with one or two house walls.
    """

    name: str
    weight: float
    side_m: tuple[float, float]
    wishes: tuple[Wish, ...]
    hanging: tuple[str, ...]
    tabletop: tuple[str, ...]
    outdoors: bool = False


LOW = (0.0, 0.62)
HIGH = (0.62, 1.2)
HOME = ("Living room", "Bedroom", "Office", "Miscellaneous")

COMMON = (
    Wish(("lamp",), (), 0, 1, "corner"),
    Wish(("plant",), (), 0, 2, "corner"),
    Wish(("appliance",), ("Miscellaneous", "Living room"), 0, 1, "wall"),
    Wish(("textile",), (), 0, 1, "any"),
    Wish(("small_object",), (), 1, 3, "any"),
    Wish(("animal",), (), 0, 2, "any"),
)

LIVING = RoomRecipe(
    "living", 0.25, (3.4, 6.5),
    (
        Wish(("sofa",), (), 1, 2, "wall"),
        Wish(("table",), (), 1, 1, "centre", LOW),
        Wish(("cabinet",), ("Living room",), 1, 3, "wall"),
        Wish(("shelf",), ("Living room", "Bedroom"), 0, 2, "wall"),
        Wish(("chair",), ("Living room", "Office"), 1, 3, "any"),
        Wish(("screen",), (), 0, 1, "any"),
        *COMMON,
    ),
    HOME, HOME,
)  # fmt: skip
BEDROOM = RoomRecipe(
    "bedroom", 0.17, (3.0, 5.0),
    (
        Wish(("bed",), ("Bedroom",), 1, 2, "wall"),
        Wish(("cabinet",), ("Bedroom",), 2, 4, "wall"),
        Wish(("table",), ("Bedroom", "Office", "Living room"), 0, 1, "wall", HIGH, 1),
        Wish(("shelf",), ("Bedroom", "Living room"), 0, 1, "wall"),
        Wish(("chair",), (), 0, 1, "any"),
        *COMMON,
    ),
    HOME, HOME,
)  # fmt: skip
KITCHEN = RoomRecipe(
    "kitchen", 0.16, (2.8, 5.0),
    (
        Wish(("cabinet",), ("Kitchen",), 4, 7, "wall"),
        Wish(("appliance",), ("Kitchen",), 2, 4, "wall"),
        Wish(("table",), ("Kitchen", "Living room"), 1, 1, "centre", HIGH, 4),
        Wish(("chair",), ("Kitchen",), 0, 2, "any"),
        *COMMON,
    ),
    ("Kitchen", "Living room"), ("Kitchen",),
)  # fmt: skip
BATH = RoomRecipe(
    "bath", 0.13, (2.4, 4.2),
    (
        Wish(("bath",), ("Bathroom",), 3, 5, "wall"),
        Wish(("appliance",), ("Bathroom", "Miscellaneous"), 0, 1, "wall"),
        Wish(("cabinet",), ("Bedroom", "Bathroom"), 0, 2, "wall"),
        Wish(("shelf",), (), 0, 1, "wall"),
        Wish(("chair",), ("Kitchen", "Bathroom"), 0, 1, "any"),
        *COMMON,
    ),
    ("Bathroom",), ("Bathroom",),
)  # fmt: skip
OFFICE = RoomRecipe(
    "office", 0.13, (3.2, 6.0),
    (
        Wish(("table",), ("Office",), 1, 3, "any", HIGH, 1),
        Wish(("screen",), (), 0, 1, "any"),
        Wish(("cabinet",), ("Office", "Living room"), 1, 2, "wall"),
        Wish(("shelf",), (), 1, 2, "wall"),
        Wish(("chair",), ("Office",), 1, 2, "any"),
        *COMMON,
    ),
    ("Office", "Living room", "Miscellaneous"), ("Office", "Miscellaneous"),
)  # fmt: skip
DINING = RoomRecipe(
    "dining", 0.08, (3.4, 6.0),
    (
        Wish(("table",), (), 1, 2, "centre", HIGH, 6),
        Wish(("cabinet",), (), 1, 2, "wall"),
        Wish(("sofa", "shelf"), (), 0, 2, "wall"),
        Wish(("structure",), (), 0, 1, "wall"),
        *COMMON,
    ),
    HOME, ("Kitchen", "Living room"),
)  # fmt: skip
YARD = RoomRecipe(
    "yard", 0.11, (6.0, 10.0),
    (
        Wish(("vehicle",), (), 1, 3, "any"),
        Wish(("structure",), (), 1, 3, "any"),
        Wish(("plant",), (), 2, 4, "any"),
        Wish(("table",), (), 0, 1, "any", None, 3),
        Wish(("chair", "sofa"), (), 0, 2, "any"),
        Wish(("lamp",), (), 0, 1, "any"),
        Wish(("animal",), (), 0, 2, "any"),
    ),
    (), ("Exterior", "Kitchen"), outdoors=True,
)  # fmt: skip

RECIPES = (LIVING, BEDROOM, KITCHEN, BATH, OFFICE, DINING, YARD)
