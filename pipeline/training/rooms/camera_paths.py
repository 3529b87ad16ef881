"""How a camera moves through a room: its pose at any time, a pure function of a seed."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from deltascene.pipeline.training.rooms.clip_config import ClipConfig
from deltascene.pipeline.training.rooms.motion import ease, is_free, swing_camera
from deltascene.pipeline.training.rooms.rays import Camera
from deltascene.pipeline.training.rooms.soup import yaw_matrix
from deltascene.pipeline.training.rooms.space import Space

CameraAt = Callable[[float], Camera]
"""Camera at a time in seconds."""

Waves = Callable[[float], NDArray[np.float64]]

WALK_M_S = 0.45
DRIVE_M_S = 0.6
TURN_RAD_S = np.radians(40.0)
ROOM_FOR_CAMERA_M = 0.3
STEPS_HZ = 1.8
WALL_APART_M = 0.5
HEADINGS = 24


def camera_path(config: ClipConfig, space: Space, camera: Camera) -> CameraAt:
    """The path of a clip's camera.

    Args:
        config: the clip.
        space: free and taken floor of its room.
        camera: its camera where the path begins, or in the middle of a swing.
    """
    rng = np.random.default_rng([config.seed, 5])
    if config.path in ("hand_slow", "hand_fast"):
        fast = config.path == "hand_fast"
        aim = _waves(rng, 2, (0.15, 0.5) if not fast else (0.4, 1.0), (3.0, 2.0) if not fast else (14.0, 7.0))
        tremor = _waves(rng, 3, (3.0, 7.0), (0.06, 0.06, 0.05) if not fast else (0.25, 0.25, 0.2))
        sway = _waves(rng, 3, (0.1, 0.4), (0.04, 0.02, 0.03) if not fast else (0.12, 0.05, 0.08))
        return lambda t: turned(shifted(camera, sway(t)), *(np.append(aim(t), 0.0) + tremor(t)))
    if config.path == "shake":
        return _shaken_pole(rng, camera)
    if config.path == "tripod":
        return _pan_with_stops(rng, camera, config.frames / config.fps)
    if config.path == "walk_through":
        return _walk_through(rng, space, camera, config.frames / config.fps)
    if config.path == "drive":
        return _drive(rng, space, camera, config.frames / config.fps)
    pan_rad = float(np.radians(config.pan_deg))
    return lambda t: swing_camera(camera, t / config.swing_s, pan_rad, config.drift_m)


def turned(camera: Camera, yaw_deg: float, pitch_deg: float, roll_deg: float) -> Camera:
    """A camera turned to its right, then upward, then about its view."""
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    x_3, y_3, z_3 = camera.axes_33 @ yaw_matrix(float(yaw))
    y_3, z_3 = y_3 * np.cos(pitch) + z_3 * np.sin(pitch), z_3 * np.cos(pitch) - y_3 * np.sin(pitch)
    x_3, y_3 = x_3 * np.cos(roll) + y_3 * np.sin(roll), y_3 * np.cos(roll) - x_3 * np.sin(roll)
    return Camera(camera.position_3, np.stack([x_3, y_3, z_3]), camera.tan_half_wh)


def shifted(camera: Camera, offset_3: NDArray[np.float64]) -> Camera:
    """A camera moved along its own axes, by metres to the right, downward and ahead."""
    return Camera(camera.position_3 + offset_3 @ camera.axes_33, camera.axes_33, camera.tan_half_wh)


def _waves(rng: Generator, axes: int, hertz: tuple[float, float], reach: tuple[float, ...]) -> Waves:
    """Smooth motion of several coordinates: for each a sum of three sines, at most as large as its reach."""
    rate, phase = rng.uniform(*hertz, (axes, 3)), rng.uniform(0, 2 * np.pi, (axes, 3))
    share = rng.dirichlet([3, 3, 3], axes)
    return lambda t: np.asarray((share * np.sin(2 * np.pi * rate * t + phase)).sum(axis=1) * reach)


def _shaken_pole(rng: Generator, camera: Camera) -> CameraAt:
    """A still camera whose pole swings after gusts of wind, two to five seconds apart, and comes to rest."""
    starts = np.cumsum(rng.uniform(2.0, 5.0, 400))
    strength, rate = rng.uniform(0.15, 0.5, 400), rng.uniform(1.5, 3.5, 400)

    def at(t: float) -> Camera:
        last = int(np.searchsorted(starts, t, side="right")) - 1
        if last < 0:
            return camera
        since = t - float(starts[last])
        swing = float(strength[last] * np.exp(-since / 0.6) * np.sin(2 * np.pi * rate[last] * since))
        return turned(camera, swing, 0.4 * swing, 0.2 * swing)

    return at


def _pan_with_stops(rng: Generator, camera: Camera, seconds: float) -> CameraAt:
    """A camera on a tripod that rests, is panned to another direction within a second or two, and rests again."""
    times, yaws_deg = [0.0], [float(rng.uniform(-12, 12))]
    while times[-1] < seconds:
        rest, move = rng.uniform(1.5, 3.0), rng.uniform(0.8, 1.8)
        aside = float(rng.uniform(10, 25)) * (-1 if yaws_deg[-1] > 0 else 1)
        times += [times[-1] + float(rest), times[-1] + float(rest + move)]
        yaws_deg += [yaws_deg[-1], yaws_deg[-1] + aside]
    return lambda t: turned(camera, ease(t, times, yaws_deg), 0.0, 0.0)


def _walk_through(rng: Generator, space: Space, camera: Camera, seconds: float) -> CameraAt:
    """Somebody who walks slowly ahead over free floor and looks around."""
    turn, way_m = freest_heading(space, camera)
    camera = turned(camera, float(np.degrees(turn)), 0.0, 0.0)
    ahead_3 = _levelled(camera.axes_33)[2]
    pace_m_s = min(WALK_M_S, way_m / seconds)
    look = _waves(rng, 2, (0.05, 0.2), (22.0, 5.0))
    tremor = _waves(rng, 3, (2.0, 5.0), (0.2, 0.2, 0.3))

    def at(t: float) -> Camera:
        bob_3 = np.array([0.015 * np.sin(np.pi * STEPS_HZ * t), 0.02 * abs(np.sin(np.pi * STEPS_HZ * t)), 0.0])
        moved = Camera(camera.position_3 + ahead_3 * pace_m_s * t, camera.axes_33, camera.tan_half_wh)
        return turned(shifted(moved, bob_3), *(np.append(look(t), 0.0) + tremor(t)))

    return at


def freest_heading(space: Space, camera: Camera) -> tuple[float, float]:
    """Turn from a camera's view, in radians, behind which the longest free way lies, and that way in metres."""
    turns = np.linspace(-np.pi, np.pi, HEADINGS, endpoint=False)
    level_33 = _levelled(camera.axes_33)
    ways = [_free_way_m(space, camera.position_3, (level_33 @ yaw_matrix(float(turn)))[2]) for turn in turns]
    best = int(np.argmax(ways))
    return float(turns[best]), ways[best]


def _free_way_m(space: Space, position_3: NDArray[np.float64], ahead_3: NDArray[np.float64]) -> float:
    ways = np.arange(0.1, 6.0, 0.1)
    blocked = [not is_free(space, position_3 + ahead_3 * way, ROOM_FOR_CAMERA_M) for way in ways]
    return float(ways[int(np.argmax(blocked))] if any(blocked) else ways[-1])


def _drive(rng: Generator, space: Space, camera: Camera, seconds: float) -> CameraAt:
    """A small robot: it drives ahead, turns on the spot towards the next free point of the floor, and drives on."""
    level_33 = _levelled(camera.axes_33)
    place_3, (yaw, _) = camera.position_3, freest_heading(space, camera)
    times, places, yaws = [0.0], [place_3], [yaw]
    while times[-1] < seconds:
        ahead_3 = (level_33 @ yaw_matrix(yaw))[2]
        way_m = min(_free_way_m(space, place_3, ahead_3) - WALL_APART_M, float(rng.uniform(0.8, 2.5)))
        place_3 = place_3 + ahead_3 * max(way_m, 0.0)
        times.append(times[-1] + max(way_m, 0.1) / DRIVE_M_S)
        places.append(place_3)
        yaws.append(yaw)
        turns = [yaw + side * angle for angle in np.radians([35, 60, 90, 130]) for side in (1, -1)]
        free = [_free_way_m(space, place_3, (level_33 @ yaw_matrix(turn))[2]) for turn in turns]
        target = float(turns[int(rng.choice(np.argsort(free)[-2:]))])
        times.append(times[-1] + abs(target - yaw) / TURN_RAD_S)
        places.append(place_3)
        yaws.append(target)
        yaw = target
    shake = _waves(rng, 3, (4.0, 8.0), (0.05, 0.12, 0.05))

    def at(t: float) -> Camera:
        at_3 = np.array([ease(t, times, [float(each[axis]) for each in places]) for axis in range(3)])
        heading = Camera(at_3, level_33 @ yaw_matrix(ease(t, times, yaws)), camera.tan_half_wh)
        return turned(heading, *shake(t))

    return at


def _levelled(axes_33: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axes of a camera that looks the same way, but level."""
    ahead_3 = axes_33[2] * [1, 0, 1]
    ahead_3 /= np.linalg.norm(ahead_3)
    right_3 = np.cross(ahead_3, [0.0, 1.0, 0.0])
    return np.stack([right_3, np.cross(ahead_3, right_3), ahead_3])
