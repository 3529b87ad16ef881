"""Occupied parts of a room: axis-aligned boxes that must not overlap."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Extent:
    """An axis-aligned box in world metres."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def overlaps(self, other: "Extent") -> bool:
        """Whether two boxes share a volume."""
        return all(a < d and c < b for a, b, c, d in zip(self.low, self.high, other.low, other.high, strict=True))

    def grown(self, margin_m: float) -> "Extent":
        """The box with a margin on the four sides, not above or below."""
        x0, y0, z0 = self.low
        x1, y1, z1 = self.high
        return Extent((x0 - margin_m, y0, z0 - margin_m), (x1 + margin_m, y1, z1 + margin_m))


def extent_of(size_3: NDArray[np.float64], yaw_rad: float, base_3: NDArray[np.float64]) -> Extent:
    """Box around a thing of a given size turned by a yaw, its base centred over a point."""
    cos, sin = abs(np.cos(yaw_rad)), abs(np.sin(yaw_rad))
    half_x = (size_3[0] * cos + size_3[2] * sin) / 2
    half_z = (size_3[0] * sin + size_3[2] * cos) / 2
    x, y, z = (float(value) for value in base_3)
    return Extent((x - half_x, y, z - half_z), (x + half_x, y + float(size_3[1]), z + half_z))


@dataclass
class Space:
    """The free part of a room.

    Attributes:
        width_m: length along x; the room is centred over the origin.
        depth_m: length along z.
        height_m: height of the ceiling.
        taken: boxes that nothing new may overlap.
    """

    width_m: float
    depth_m: float
    height_m: float
    taken: list[Extent] = field(default_factory=list)

    def fits(self, extent: Extent) -> bool:
        """Whether a box lies inside the room and overlaps nothing."""
        slack = 1e-3
        inside = (
            extent.low[0] >= -self.width_m / 2 - slack
            and extent.high[0] <= self.width_m / 2 + slack
            and extent.low[2] >= -self.depth_m / 2 - slack
            and extent.high[2] <= self.depth_m / 2 + slack
            and extent.low[1] >= -slack
            and extent.high[1] <= self.height_m + slack
        )
        return inside and not any(extent.overlaps(other) for other in self.taken)

    def take(self, extent: Extent) -> None:
        """Marks a box as taken."""
        self.taken.append(extent)


@dataclass(frozen=True)
class Wall:
    """One of the four walls, seen from inside.

    Attributes:
        inward: unit normal into the room, as (x, z).
        length_m: its length.
        offset_m: its distance from the room's centre.
    """

    inward: tuple[float, float]
    length_m: float
    offset_m: float

    @property
    def yaw_rad(self) -> float:
        """Yaw of a thing with its back to this wall."""
        return float(np.arctan2(self.inward[0], self.inward[1]))

    def point(self, along_m: float, out_m: float, y_m: float) -> NDArray[np.float64]:
        """World point at a place along the wall (0 is its middle), so far out from it and so high [3]."""
        x, z = self.inward
        base = np.array([-x * self.offset_m, y_m, -z * self.offset_m])
        return base + np.array([z, 0.0, -x]) * along_m + np.array([x, 0.0, z]) * out_m


def four_walls(space: Space) -> tuple[Wall, Wall, Wall, Wall]:
    """The walls at -z, +x, +z and -x."""
    return (
        Wall((0.0, 1.0), space.width_m, space.depth_m / 2),
        Wall((-1.0, 0.0), space.depth_m, space.width_m / 2),
        Wall((0.0, -1.0), space.width_m, space.depth_m / 2),
        Wall((1.0, 0.0), space.depth_m, space.width_m / 2),
    )
