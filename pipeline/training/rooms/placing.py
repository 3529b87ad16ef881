"""Puts furniture into a room: on the floor, on walls, under the ceiling and on table tops."""

from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from deltascene.pipeline.training.rooms.catalogue import Model
from deltascene.pipeline.training.rooms.meshes import Mesh, MeshStore
from deltascene.pipeline.training.rooms.recipes import Wish
from deltascene.pipeline.training.rooms.soup import yaw_matrix
from deltascene.pipeline.training.rooms.space import Extent, Space, Wall, extent_of

TRIES = 30
SUPPORT_M = 0.015


@dataclass(frozen=True)
class Placed:
    """A placed thing.

    Attributes:
        model: its furniture model.
        mesh: its triangles in its own frame.
        yaw_rad: rotation about the vertical axis.
        base_3: world point under the middle of its base.
        squash: factor of its depth; small for doors and windows.
    """

    model: Model
    mesh: Mesh
    yaw_rad: float
    base_3: NDArray[np.float64]
    squash: float = 1.0

    def extent(self) -> Extent:
        """Its bounding box in the world."""
        return extent_of(self.mesh.box_3 * [1.0, 1.0, self.squash], self.yaw_rad, self.base_3)


@dataclass
class Placer:
    """Places things at random where they fit.

    Attributes:
        rng: random generator of all choices.
        space: the room; boxes of placed things are taken there.
        store: meshes.
        walls: walls that things may stand against or hang on.
        placed: everything placed so far.
    """

    rng: Generator
    space: Space
    store: MeshStore
    walls: tuple[Wall, ...]
    placed: list[Placed] = field(default_factory=list)

    def on_floor(self, model: Model, where: str) -> Placed | None:
        """Stands a model against a wall, in a corner, near the centre or anywhere; None where it fits nowhere."""
        mesh = self.store.load(model)
        for _ in range(TRIES):
            yaw, base = self._floor_pose(mesh.box_3, where)
            base[1] = model.elevation_m or 0.0
            if (found := self._try(Placed(model, mesh, yaw, base))) is not None:
                return found
        return None

    def _floor_pose(self, size_3: NDArray[np.float64], where: str) -> tuple[float, NDArray[np.float64]]:
        rng, space = self.rng, self.space
        if where in ("wall", "corner") and self.walls:
            wall = self.walls[int(rng.integers(len(self.walls)))]
            reach = max((wall.length_m - size_3[0]) / 2, 0.0)
            along = (
                float(rng.choice([-1, 1])) * (reach - 0.02) if where == "corner" else float(rng.uniform(-reach, reach))
            )
            return wall.yaw_rad, wall.point(along, size_3[2] / 2 + 0.01 + 0.05 * float(rng.random()), 0.0)
        spread = 0.25 if where == "centre" else 0.47
        x, z = rng.uniform(-spread, spread, 2) * [space.width_m, space.depth_m]
        yaw = float(rng.integers(4)) * np.pi / 2 + (float(rng.normal(0, 0.25)) if where == "any" else 0.0)
        return yaw, np.array([x, 0.0, z])

    def around(self, table: Placed, seat: Model, count: int) -> None:
        """Puts seats around a table, turned to it and pushed a little under it."""
        mesh, size = self.store.load(seat), table.mesh.box_3
        seat_depth = mesh.box_3[2]
        spots = [(side, share) for side in range(4) for share in (-0.25, 0.25)]
        for pick in self.rng.permutation(len(spots))[: count * 2]:
            side, share = spots[int(pick)]
            length, reach = (size[0], size[2]) if side % 2 == 0 else (size[2], size[0])
            if length < 0.9:
                share = 0.0
            out = reach / 2 + seat_depth / 2 - self.rng.uniform(-0.1, min(0.2, seat_depth / 3))
            local = yaw_matrix(side * np.pi / 2) @ np.array([share * length, 0.0, out])
            base = table.base_3 + yaw_matrix(table.yaw_rad) @ local
            base[1] = 0.0
            yaw = table.yaw_rad + side * np.pi / 2 + np.pi + float(self.rng.normal(0, 0.12))
            self._try(Placed(seat, mesh, yaw, base), ignore=table.extent())

    def on_wall(self, model: Model, bottom_m: float, squash_to_m: float | None = None) -> Placed | None:
        """Hangs a model on a wall with its underside at a height; None where it fits nowhere."""
        mesh = self.store.load(model)
        width, height, depth = mesh.box_3
        squash = min(1.0, squash_to_m / depth) if squash_to_m is not None else 1.0
        bottom = min(bottom_m, self.space.height_m - height - 0.02)
        if bottom < -1e-6 or not self.walls:
            return None
        for _ in range(TRIES):
            wall = self.walls[int(self.rng.integers(len(self.walls)))]
            if wall.length_m <= width + 0.1:
                continue
            along = float(self.rng.uniform(-1, 1)) * (wall.length_m - width - 0.1) / 2
            base = wall.point(along, depth * squash / 2 + 0.003, bottom)
            if (found := self._try(Placed(model, mesh, wall.yaw_rad, base, squash))) is not None:
                return found
        return None

    def under_ceiling(self, model: Model) -> Placed | None:
        """Hangs a model under the ceiling; None where it is too long or something is in the way."""
        mesh = self.store.load(model)
        bottom = self.space.height_m - mesh.box_3[1] - 0.002
        if bottom < 1.3:
            return None
        for _ in range(TRIES):
            x, z = self.rng.uniform(-0.3, 0.3, 2) * [self.space.width_m, self.space.depth_m]
            if (found := self._try(Placed(model, mesh, 0.0, np.array([x, bottom, z])))) is not None:
                return found
        return None

    def on_top(self, model: Model, support: Placed) -> Placed | None:
        """Puts a model on the flat top of a placed thing; None where it fits nowhere."""
        mesh, tops, size = self.store.load(model), support.mesh.tops_GG, support.mesh.box_3
        width, _, depth = mesh.box_3
        cells = len(tops)
        for _ in range(TRIES):
            yaw = float(self.rng.normal(0, 0.4))
            half = np.array([width * abs(np.cos(yaw)) + depth * abs(np.sin(yaw)),
                             width * abs(np.sin(yaw)) + depth * abs(np.cos(yaw))]) / 2  # fmt: skip
            room = size[[0, 2]] / 2 - half
            if np.any(room < 0):
                continue
            x, z = self.rng.uniform(-1, 1, 2) * room
            low = np.floor((np.array([z, x]) - half[::-1] + size[[2, 0]] / 2) / size[[2, 0]] * cells).astype(int)
            high = np.ceil((np.array([z, x]) + half[::-1] + size[[2, 0]] / 2) / size[[2, 0]] * cells).astype(int)
            patch = tops[max(low[0], 0) : high[0], max(low[1], 0) : high[1]]
            if patch.size == 0 or np.isnan(patch).any() or float(np.ptp(patch)) > SUPPORT_M:
                continue
            local = np.array([x, float(patch.max()) + 0.001, z])
            base = support.base_3 + yaw_matrix(support.yaw_rad) @ local
            found = self._try(Placed(model, mesh, support.yaw_rad + yaw, base), ignore=support.extent())
            if found is not None:
                return found
        return None

    def _try(self, thing: Placed, ignore: Extent | None = None) -> Placed | None:
        """Takes the thing's box if it is free; the box in `ignore` doesn't count."""
        extent = thing.extent()
        if ignore is not None:
            others = [other for other in self.space.taken if other != ignore]
            free = Space(self.space.width_m, self.space.depth_m, self.space.height_m, others).fits(extent)
        else:
            free = self.space.fits(extent)
        if not free:
            return None
        self.space.take(extent)
        self.placed.append(thing)
        return thing


def candidates(models: tuple[Model, ...], wish: Wish, placements: tuple[str, ...]) -> list[Model]:
    """Models that fit a wish."""
    found = []
    for model in models:
        fits = model.class_name in wish.classes and model.label.placement in placements
        fits = fits and (not wish.categories or model.category in wish.categories)
        if fits and (wish.size_m is None or wish.size_m[0] <= model.size_m[1] <= wish.size_m[1]):
            found.append(model)
    return found
