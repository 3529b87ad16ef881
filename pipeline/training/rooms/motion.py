"""Motion of people, things and cameras through a room: tracks of poses, one per frame."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from deltascene.pipeline.training.rooms.rays import Camera
from deltascene.pipeline.training.rooms.soup import yaw_matrix
from deltascene.pipeline.training.rooms.space import Extent, Space

STEP_M = 0.1
ENTERING_S = 1.2


@dataclass(frozen=True)
class Track:
    """Poses of a body in T frames.

    Attributes:
        shift_T3: world point under the middle of its base.
        yaw_T: rotation about the vertical axis in radians.
    """

    shift_T3: NDArray[np.float64]
    yaw_T: NDArray[np.float64]


def walk(
    rng: Generator, space: Space, camera: Camera, frames: int, step_m: float, radius_m: float, bob_m: float
) -> Track:
    """A walk back and forth over free floor in a camera's view, facing ahead.

    Args:
        rng: random generator of all choices.
        space: the room.
        camera: the camera whose view is walked through.
        frames: length of the track.
        step_m: distance per frame.
        radius_m: free floor needed on each side.
        bob_m: height by which it rises and falls with each step.
    """
    points_K3 = _waypoints(rng, space, camera, radius_m)
    lengths_K = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points_K3, axis=0), axis=1))])
    way_T = float(rng.uniform(0, 2 * lengths_K[-1])) + np.arange(frames) * step_m
    # There and back again along the same line.
    way_T = lengths_K[-1] - np.abs(way_T % max(2 * lengths_K[-1], 1e-6) - lengths_K[-1])
    shift_T3 = np.stack([np.interp(way_T, lengths_K, points_K3[:, axis]) for axis in range(3)], axis=1)
    ahead_T3 = np.gradient(shift_T3, axis=0) if frames > 1 else np.ones((1, 3))
    ahead_T3 = ndimage.gaussian_filter1d(ahead_T3, 2.5, axis=0, mode="nearest")
    shift_T3 = ndimage.gaussian_filter1d(shift_T3, 1.5, axis=0, mode="nearest")
    shift_T3[:, 1] += bob_m * np.abs(np.sin(np.arange(frames) * step_m / 0.7 * np.pi))
    return Track(shift_T3, np.arctan2(ahead_T3[:, 0], ahead_T3[:, 2]))


def carried(track: Track, offset_3: NDArray[np.float64]) -> Track:
    """Track of a thing held by a walker, at an offset in the walker's frame of reference."""
    shift_T3 = np.stack([yaw_matrix(float(yaw)) @ offset_3 for yaw in track.yaw_T]) + track.shift_T3
    return Track(shift_T3, track.yaw_T)


def free_floor(space: Space, camera: Camera, radius_m: float) -> float:
    """Share of a grid of floor points within 1.5 to 4.5 m before a camera on which a walker may stand."""
    depths, asides = np.linspace(1.5, 4.5, 9), np.linspace(-0.9, 0.9, 9)
    points = [floor_point(camera, float(d), float(a * d)) for d in depths for a in asides]
    return float(np.mean([is_free(space, point, radius_m) for point in points]))


def closest_m(track: Track, others: list[Track]) -> float:
    """Least distance on the floor between a track and others over all frames; infinite where there are none."""
    gaps = [np.hypot(*(track.shift_T3 - other.shift_T3)[:, [0, 2]].T).min() for other in others]
    return float(min(gaps, default=np.inf))


def floor_point(camera: Camera, ahead_m: float, aside: float) -> NDArray[np.float64]:
    """Floor point so far ahead of a camera; `aside` is in halves of the view's width at 1 m."""
    ahead = camera.axes_33[2] * [1, 0, 1] / np.linalg.norm(camera.axes_33[2] * [1, 0, 1])
    right = camera.axes_33[0] * [1, 0, 1] / np.linalg.norm(camera.axes_33[0] * [1, 0, 1])
    return np.asarray(camera.position_3 * [1, 0, 1] + ahead * ahead_m + right * aside * camera.tan_half_wh[0])


def _waypoints(rng: Generator, space: Space, camera: Camera, radius_m: float) -> NDArray[np.float64]:
    """Two to five floor points in view with free straight lines between them [K, 3]."""
    points: list[NDArray[np.float64]] = []
    spare = floor_point(camera, 2.0, 0.0)
    for _ in range(400):
        depth = float(rng.uniform(1.5, 4.5))
        point = floor_point(camera, depth, float(rng.uniform(-0.9, 0.9)) * depth)
        if not is_free(space, point, radius_m):
            continue
        spare = point
        far_enough = not points or np.linalg.norm(point - points[-1]) > 1.0
        if far_enough and (not points or _way_is_free(space, points[-1], point, radius_m)):
            points.append(point)
        if len(points) == 5:
            break
    if len(points) < 2:
        aside = camera.axes_33[0] * [0.3, 0, 0.3]
        points = [spare - aside, spare + aside]
    return np.stack(points)


def is_free(space: Space, point_3: NDArray[np.float64], radius_m: float) -> bool:
    """Whether a walker may stand at a floor point."""
    x, z = float(point_3[0]), float(point_3[2])
    person = Extent((x - radius_m, 0.06, z - radius_m), (x + radius_m, 1.7, z + radius_m))
    inside = abs(x) + radius_m < space.width_m / 2 and abs(z) + radius_m < space.depth_m / 2
    return inside and not any(person.overlaps(other) for other in space.taken)


def _way_is_free(space: Space, start_3: NDArray[np.float64], end_3: NDArray[np.float64], radius_m: float) -> bool:
    steps = int(np.ceil(np.linalg.norm(end_3 - start_3) / STEP_M)) + 1
    return all(is_free(space, start_3 + (end_3 - start_3) * share, radius_m) for share in np.linspace(0, 1, steps))


def ease(time: float, times: list[float], values: list[float]) -> float:
    """Value at a time between given ones, from which it starts and at which it ends without a jerk."""
    at = min(max(int(np.searchsorted(times, time, side="right")) - 1, 0), len(times) - 2)
    share = min(max((time - times[at]) / max(times[at + 1] - times[at], 1e-9), 0.0), 1.0)
    return values[at] + (values[at + 1] - values[at]) * share * share * (3 - 2 * share)


def swayed(rng: Generator, place_3: NDArray[np.float64], frames: int, fps: float) -> Track:
    """A plant in a wind that comes and goes: it turns a few degrees to and fro on its place."""
    seconds_T = np.arange(frames) / fps
    gust_T = 0.3 + 0.7 * np.sin(2 * np.pi * float(rng.uniform(0.1, 0.25)) * seconds_T + rng.uniform(0, 6)) ** 2
    sway_T = np.sin(2 * np.pi * float(rng.uniform(0.8, 1.4)) * seconds_T + rng.uniform(0, 6))
    flutter_T = 0.4 * np.sin(2 * np.pi * float(rng.uniform(2.0, 3.0)) * seconds_T)
    yaw_T = np.radians(5.0) * gust_T * (sway_T + flutter_T) + rng.uniform(0, 2 * np.pi)
    shift_T3 = place_3 + np.outer(0.015 * gust_T * sway_T, [1.0, 0.0, 0.4])
    return Track(shift_T3, yaw_T)


def visiting(
    track: Track, visits_s: tuple[tuple[float, float], ...], fps: float, outside_3: NDArray[np.float64]
) -> Track:
    """A track that begins and ends each visit at a point outside the view, within `ENTERING_S`."""
    seconds_T = np.arange(len(track.yaw_T)) / fps
    inside_T = np.zeros_like(seconds_T)
    for start, end in visits_s:
        inside_T = np.maximum(inside_T, np.clip(np.minimum(seconds_T - start, end - seconds_T) / ENTERING_S, 0, 1))
    shift_T3 = outside_3 + (track.shift_T3 - outside_3) * inside_T[:, None]
    ahead_T3 = ndimage.gaussian_filter1d(np.gradient(shift_T3, axis=0), 2.5, axis=0, mode="nearest")
    return Track(shift_T3, np.arctan2(ahead_T3[:, 0], ahead_T3[:, 2]))


def swing_camera(camera: Camera, phase: float, pan_rad: float, drift_m: float) -> Camera:
    """A camera that swings back and forth: `pan_rad` to each side and `drift_m` along its x axis, both at once.

    Args:
        camera: the camera in the middle of its swing.
        phase: number of swings so far, with fractions.
        pan_rad: maximum rotation about the world's y axis.
        drift_m: maximum shift.
    """
    share = 1 - 4 * abs((phase + 0.25) % 1.0 - 0.5)
    turned = camera.axes_33 @ yaw_matrix(pan_rad * share)
    return Camera(camera.position_3 + camera.axes_33[0] * drift_m * share, turned, camera.tan_half_wh)
