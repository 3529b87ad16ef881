"""What is in a clip: its size and rate, who moves, how the camera moves, and what light and weather do to it."""

from dataclasses import dataclass, field, replace
from typing import Literal

from deltascene.pipeline.training.rooms.furnishing import FurnishingConfig
from deltascene.pipeline.training.rooms.scene import SceneConfig

INDOORS = ("living", "bedroom", "kitchen", "office", "dining")
LOW_M = (0.35, 0.6)

Path = Literal["", "hand_slow", "hand_fast", "walk_through", "drive", "tripod", "shake"]
Effect = Literal["clock", "rain", "night", "infrared", "headlights", "pumping", "switch"]


@dataclass(frozen=True)
class ClipConfig:
    """Parameters of a clip.

    Attributes:
        seed: room seed, of the split `clip`.
        frames: number of frames.
        fps: frames per second.
        step: of the frames only every so many are rendered, so that one motion can be had at several rates.
        height: rows of a frame.
        width: columns of a frame.
        truth_height: rows of the truth, over the same field of view.
        truth_width: columns of the truth.
        noise_sigma: sensor noise in steps of 255.
        people: number of people that walk.
        objects: number of other things that move or are carried.
        plants: number of plants that sway.
        speed_m_s: walking speed.
        visits_s: start and end of the times in which people and things are there; empty is always.
        exposure_swing: amplitude of the oscillation of exposure, as a share; 0 for none.
        swing_s: period of the oscillation of exposure or camera in seconds.
        pan_deg: maximum rotation of the camera to each side.
        drift_m: maximum shift of the camera to each side.
        path: how the camera moves besides; empty for not at all.
        blur: moments that are averaged over half of a frame's time; 1 is a shutter without duration.
        cut_frame: first frame of the next room, None for no cut.
        effects: what light, weather and the camera's electronics do.
        eye_m: minimum and maximum height of the camera.
        scene: distribution of rooms.
    """

    seed: int
    frames: int = 150
    fps: float = 15.0
    step: int = 1
    height: int = 480
    width: int = 640
    truth_height: int = 224
    truth_width: int = 308
    noise_sigma: float = 2.0
    people: int = 1
    objects: int = 1
    plants: int = 0
    speed_m_s: float = 0.8
    visits_s: tuple[tuple[float, float], ...] = ()
    exposure_swing: float = 0.0
    swing_s: float = 8.0
    pan_deg: float = 0.0
    drift_m: float = 0.0
    path: Path = ""
    blur: int = 1
    cut_frame: int | None = None
    effects: tuple[Effect, ...] = ()
    eye_m: tuple[float, float] = (1.3, 1.8)
    scene: SceneConfig = field(default_factory=lambda: SceneConfig(INDOORS, FurnishingConfig(people_chance=0.0)))

    @property
    def still(self) -> bool:
        """Whether the camera stands still."""
        return self.pan_deg == 0 and self.drift_m == 0 and not self.path

    @property
    def like_life(self) -> bool:
        """Whether it is compressed as cameras do it, which smooths noise away."""
        return bool(self.path or self.effects or self.plants or self.visits_s or self.step > 1 or self.fps != 15)

    @property
    def rendered(self) -> range:
        """Numbers of the frames that are rendered."""
        return range(0, self.frames, self.step)


def clip_of_kind(kind: str, seed: int) -> ClipConfig:
    """The config of a named kind of clip.

    Raises:
        ValueError: there is no such kind.
    """
    base = ClipConfig(seed)
    kinds = {
        "empty": replace(base, people=0, objects=0),
        "static": base,
        "lively": replace(base, people=3, objects=2),
        "busy": replace(base, people=4, objects=4, speed_m_s=1.3),
        "pan": replace(base, pan_deg=18.0, drift_m=0.15),
        "drift": replace(base, drift_m=0.25),
        "flicker": replace(base, exposure_swing=0.2, swing_s=3.0),
        "cut": replace(base, cut_frame=base.frames // 2),
        "hand_slow": replace(base, path="hand_slow", blur=2, objects=0, speed_m_s=0.4),
        "hand_fast": replace(base, path="hand_fast", blur=4, people=2),
        "walk_through": replace(base, path="walk_through", blur=3, people=0, objects=0),
        "drive": replace(base, path="drive", blur=2, eye_m=LOW_M, people=1),
        "tripod": replace(base, path="tripod", blur=3, people=2),
        "shake": replace(base, path="shake", people=2),
        "clock": replace(base, people=2, effects=("clock",)),
        "foliage": replace(base, plants=2),
        "rain": replace(base, effects=("rain",)),
        "night": replace(base, effects=("night",)),
        "infrared": replace(base, people=2, effects=("infrared", "clock")),
        "headlights": replace(base, effects=("headlights",)),
        "pumping": replace(base, people=2, effects=("pumping",)),
        "idle": replace(base, frames=900, people=1, visits_s=((17.0, 22.5), (43.0, 48.5))),
        "calm_busy": replace(base, frames=900, people=4, objects=3, speed_m_s=1.1, visits_s=((20.0, 41.0),)),
        "light_switch": replace(base, frames=900, people=1, effects=("switch",)),
    }
    if kind not in kinds:
        raise ValueError(f"clip kind {kind!r} is none of {', '.join(kinds)}")
    return kinds[kind]
