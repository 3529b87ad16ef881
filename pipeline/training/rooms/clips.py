"""Short clips of rooms with exact truth: moving people and things, camera motion, sensor noise and cuts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from deltascene.pipeline.training.rooms.backdrop import Backdrop, light_backdrop, light_over, make_backdrop, overlay
from deltascene.pipeline.training.rooms.camera_paths import camera_path, freest_heading
from deltascene.pipeline.training.rooms.catalogue import Model
from deltascene.pipeline.training.rooms.clip_config import ClipConfig
from deltascene.pipeline.training.rooms.effects import Effects
from deltascene.pipeline.training.rooms.lighting import auto_gain
from deltascene.pipeline.training.rooms.motion import (
    Track,
    carried,
    closest_m,
    floor_point,
    free_floor,
    swayed,
    visiting,
    walk,
)
from deltascene.pipeline.training.rooms.rays import Camera
from deltascene.pipeline.training.rooms.render import World, highlight_cap, paint_view, see, shade, to_bytes, truth_of
from deltascene.pipeline.training.rooms.scene import Furniture, Scene, build_scene, dress
from deltascene.pipeline.training.rooms.soup import yaw_matrix
from deltascene.pipeline.training.rooms.surfels import Body, Posed, at_rest, make_body
from deltascene.pipeline.training.rooms.truth import Truth
from deltascene.pipeline.training.rooms.views import ViewConfig, choose_views

NEXT_ROOM = 50_000
FIRST_MOVER = 1000
VIEWS_TO_CHOOSE_FROM = 10
WALKS_TO_CHOOSE_FROM = 8
WALKER_M = 0.25
HAND_3 = (-0.2, 1.05, 0.28)
SHUTTER = 0.5
"""Share of a frame's time in which the shutter is open, where motion blurs."""


@dataclass(frozen=True)
class Mover:
    """A body with its track.

    Attributes:
        body: the body.
        track: its poses.
        visits: first frames and ends of the times in which it is there; empty is always.
    """

    body: Body
    track: Track
    visits: tuple[tuple[float, float], ...] = ()

    def is_there(self, frame: float) -> bool:
        """Whether the body is there in a frame."""
        return not self.visits or any(start <= frame < end for start, end in self.visits)

    def at(self, frame: float) -> Posed:
        """The body at its pose in a frame, or at a moment between two."""
        first = min(int(frame), len(self.track.yaw_T) - 1)
        following, share = min(first + 1, len(self.track.yaw_T) - 1), frame - first
        shift_3, yaw = self.track.shift_T3[first], float(self.track.yaw_T[first])
        if share:
            turn = float(self.track.yaw_T[following]) - yaw
            yaw += share * float((turn + np.pi) % (2 * np.pi) - np.pi)
            shift_3 = shift_3 + share * (self.track.shift_T3[following] - shift_3)
        return Posed(self.body, yaw_matrix(yaw), shift_3)


@dataclass(frozen=True)
class Shot:
    """A sequence of frames in one room.

    Attributes:
        scene: the room.
        room: the room at rest as a posed body.
        camera: the camera in its middle position.
        movers: moving bodies.
        models: models of the room and of the moving bodies.
    """

    scene: Scene
    room: Posed
    camera: Camera
    movers: tuple[Mover, ...]
    models: tuple[Model, ...]

    def world(self, frame: float) -> World:
        """All bodies at their poses in a frame, or at a moment between two."""
        there = (mover.at(frame) for mover in self.movers if mover.is_there(frame))
        return World((self.room, *there), self.scene.lighting)


def make_shots(config: ClipConfig, furniture: Furniture) -> list[tuple[int, int, Shot]]:
    """First frame, end and content of each shot of a clip.

    Raises:
        RoomImpossible: a room has no good view.
    """
    cut = config.cut_frame
    if cut is None or not 0 < cut < config.frames:
        return [(0, config.frames, _shot(config, config.seed, furniture))]
    following = _shot(config, config.seed + NEXT_ROOM, furniture)
    return [(0, cut, _shot(config, config.seed, furniture)), (cut, config.frames, following)]


def _shot(config: ClipConfig, seed: int, furniture: Furniture) -> Shot:
    rng = np.random.default_rng([seed, 3])
    scene = build_scene(seed, config.scene, furniture)
    room = at_rest(scene.static)
    view = ViewConfig(aspect=config.width / config.height, field_deg=(64.0, 80.0), eye_m=config.eye_m, far_m=2.0)
    cameras = choose_views(rng, scene, room, VIEWS_TO_CHOOSE_FROM, view)
    if config.path in ("walk_through", "drive"):
        camera = max(cameras, key=lambda candidate: freest_heading(scene.space, candidate)[1])
    else:
        camera = max(cameras, key=lambda candidate: free_floor(scene.space, candidate, WALKER_M))
    movers, models = _movers(rng, scene, camera, config, furniture)
    return Shot(scene, room, camera, tuple(movers), scene.models + tuple(models))


def _movers(
    rng: Generator, scene: Scene, camera: Camera, config: ClipConfig, furniture: Furniture
) -> tuple[list[Mover], list[Model]]:
    """People first; then things, alternately on the floor and carried by a person."""
    step_m = config.speed_m_s / config.fps
    visits = tuple((start * config.fps, end * config.fps) for start, end in config.visits_s)
    movers: list[Mover] = []
    models: list[Model] = []

    def add(pool: list[Model], track: Track) -> None:
        model = pool[int(rng.integers(len(pool)))]
        mesh = furniture.store.load(model)
        soup = dress(rng, model, mesh, FIRST_MOVER + len(movers), config.scene, night=False)
        if visits:
            track = visiting(track, config.visits_s, config.fps, floor_point(camera, 2.5, 1.4 * 2.5))
        movers.append(Mover(make_body(soup), track, visits))
        models.append(model)

    def free_walk(pace: float, bob_m: float) -> Track:
        tries = [
            walk(rng, scene.space, camera, config.frames, pace, WALKER_M, bob_m) for _ in range(WALKS_TO_CHOOSE_FROM)
        ]
        return max(tries, key=lambda track: closest_m(track, [mover.track for mover in movers]))

    for _ in range(config.people):
        add(_people(furniture.models), free_walk(step_m * float(rng.uniform(0.7, 1.3)), 0.03))
    for number in range(config.objects):
        if number % 2 == 1 and config.people:
            holder = movers[number // 2 % config.people]
            add(_carried(furniture.models), carried(holder.track, np.array(HAND_3)))
        else:
            add(_runners(furniture.models), free_walk(step_m * 1.3, 0.0))
    for _ in range(config.plants):
        place_3 = free_walk(step_m, 0.0).shift_T3[0]
        add(_plants(furniture.models), swayed(rng, place_3, config.frames, config.fps))
    return movers, models


def _people(models: tuple[Model, ...]) -> list[Model]:
    return [m for m in models if m.class_name == "person" and m.label.notes.startswith("standing")]


def _carried(models: tuple[Model, ...]) -> list[Model]:
    pool = [m for m in models if m.class_name == "small_object" and m.label.moving and m.label.placement == "tabletop"]
    return [m for m in pool if 0.1 < max(m.size_m) < 0.4]


def _plants(models: tuple[Model, ...]) -> list[Model]:
    return [m for m in models if m.class_name == "plant" and m.label.placement == "floor" and 0.7 < m.size_m[1] < 2.2]


def _runners(models: tuple[Model, ...]) -> list[Model]:
    """Animals and small things on the floor."""
    pool = [m for m in models if m.label.moving and m.label.placement == "floor" and max(m.size_m) < 0.9]
    return [m for m in pool if m.class_name in ("animal", "small_object") and m.size_m[1] < 0.8]


@dataclass(frozen=True)
class ClipFrame:
    """A frame; the picture is None where only truth was requested."""

    image_HW3: NDArray[np.uint8] | None
    truth: Truth


def clip_frames(config: ClipConfig, shots: list[tuple[int, int, Shot]], images: bool) -> Iterator[ClipFrame]:
    """Renders a clip frame by frame, as a pure function of its config.

    Args:
        config: the clip.
        shots: its shots, from `make_shots`.
        images: whether pictures are rendered in addition to truth.
    """
    effects = Effects(config)
    for start, end, shot in shots:
        truth_at, light_at = _still_shot(config, shot, images) if config.still else _moving_shot(config, shot)
        gain: float | None = None
        for frame in (each for each in config.rendered if start <= each < end):
            seconds = frame / config.fps
            truth = truth_at(frame)
            if not images:
                yield ClipFrame(None, truth)
                continue
            light_HW3 = effects.light(light_at(frame), seconds)
            gain = gain if gain is not None else auto_gain(shot.scene.lighting, light_HW3.reshape(-1, 3))
            turn = 2 * np.pi * frame / (config.swing_s * config.fps)
            exposure = (1 + config.exposure_swing * float(np.sin(turn))) * effects.gain(seconds)
            picture = to_bytes(light_HW3, gain * exposure)
            yield ClipFrame(effects.sensor(picture, frame, seconds), truth)


_TruthAt = Callable[[int], Truth]
_LightAt = Callable[[int], NDArray[np.float32]]


def _still_shot(config: ClipConfig, shot: Shot, images: bool) -> tuple[_TruthAt, _LightAt]:
    """Functions for the frames of a still camera, over backdrops; pictures are rendered at double size and averaged."""
    rest = World((shot.room,), shot.scene.lighting)
    truth_size = (config.truth_height, config.truth_width)
    back: Backdrop = make_backdrop(shot.room, shot.camera, *truth_size)
    fine_size = (2 * config.height, 2 * config.width) if images else (2, 2)
    lit = light_backdrop(make_backdrop(shot.room, shot.camera, *fine_size), rest)

    cap = highlight_cap(lit.radiance_R3)

    def truth_at(frame: int) -> Truth:
        return truth_of(overlay(back, shot.world(frame).bodies[1:])[0], shot.camera, *truth_size)

    def light_at(frame: int) -> NDArray[np.float32]:
        capped = np.minimum(light_over(lit, shot.world(frame)), np.float32(cap))
        return average_blocks(capped, config.height, config.width)

    return truth_at, light_at


def average_blocks(fine_R3: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Box average of samples at double size [4*H*W, 3] to [H, W, 3]."""
    return np.asarray(fine_R3.reshape(height, 2, width, 2, 3).mean(axis=(1, 3)), dtype=np.float32)


def _moving_shot(config: ClipConfig, shot: Shot) -> tuple[_TruthAt, _LightAt]:
    """Functions for the frames of a moving camera; each frame is traced anew, where motion blurs at several moments."""
    path = camera_path(config, shot.scene.space, shot.camera)
    moments = SHUTTER * ((np.arange(config.blur) + 0.5) / config.blur - 0.5)

    def truth_at(frame: int) -> Truth:
        world, camera = shot.world(frame), path(frame / config.fps)
        back = make_backdrop(shot.room, camera, config.truth_height, config.truth_width)
        return truth_of(overlay(back, world.bodies[1:])[0], camera, config.truth_height, config.truth_width)

    cap = highlight_cap(shade(shot.world(0), see(shot.world(0), shot.camera, shot.camera.rays(60, 80), 0.01)))

    def light_at(frame: int) -> NDArray[np.float32]:
        light_HW3 = np.zeros((config.height, config.width, 3), np.float32)
        for moment in np.maximum(frame + moments, 0):
            camera = path(moment / config.fps)
            light_HW3 += paint_view(shot.world(moment), camera, config.height, config.width, cap).radiance_HW3
        return light_HW3 / np.float32(config.blur)

    return truth_at, light_at
