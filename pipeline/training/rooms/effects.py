"""What light, weather and a camera's electronics do to pictures whose truth stays the same."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from deltascene.pipeline.training.rooms.clip_config import ClipConfig, Effect
from deltascene.pipeline.training.rooms.motion import ease
from deltascene.pipeline.training.rooms.render import add_noise

Bytes = NDArray[np.uint8]
Light = NDArray[np.float32]

NIGHT_LIGHT = 0.35
NIGHT_NOISE = 9.0
BLOTCH_NOISE = 5.0
BLOTCH_PX = 6
STREAKS = 220
SWITCHED_OFF = (0.35, 0.68)  # shares of a clip's time between which a lamp is off
SWITCHED_LIGHT = 0.45


class Effects:
    """The effects of a clip, in the order in which they happen: light, exposure, sensor, then what is drawn on top."""

    def __init__(self, config: ClipConfig) -> None:
        self._config = config
        self._seconds = config.frames / config.fps
        rng = np.random.default_rng([config.seed, 6])
        self._gain_at = _pumping(rng, self._seconds) if "pumping" in config.effects else lambda t: 1.0
        self._passing = np.cumsum(rng.uniform(2.5, 4.5, 40))
        self._switch_s = self._seconds * float(rng.uniform(0.45, 0.55))

    def light(self, light_HW3: Light, seconds: float) -> Light:
        """Linear light with the headlights of cars that pass by."""
        if not self._has("headlights"):
            return light_HW3
        height, width = light_HW3.shape[:2]
        y_H, x_W = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None]
        pool_HW = np.zeros((height, width))
        for number, start in enumerate(self._passing):
            share = (seconds - float(start)) / 1.8
            if -0.3 < share < 1.3:
                x = share if number % 2 else 1 - share
                pool_HW += np.exp(-(((x_W - x) / 0.16) ** 2) - ((y_H - 0.55 + 0.2 * x) / 0.3) ** 2)
        return np.asarray(light_HW3 * (1 + 1.6 * pool_HW[..., None]), np.float32)

    def gain(self, seconds: float) -> float:
        """Exposure beside that of the clip's start."""
        if self._has("switch") and SWITCHED_OFF[0] <= seconds / self._seconds < SWITCHED_OFF[1]:
            return SWITCHED_LIGHT
        gain = self._gain_at(seconds) * (NIGHT_LIGHT if self._has("night") else 1.0)
        since = seconds - self._switch_s
        if self._has("infrared") and since >= 0:
            gain *= 1.15 + 0.8 * float(np.exp(-since / 0.4))  # too bright until the exposure has settled
        return gain

    def sensor(self, picture: Bytes, frame: int, seconds: float) -> Bytes:
        """The picture as the sensor gives it, with what is drawn into it."""
        rng = np.random.default_rng([self._config.seed, 4, frame])
        if self._has("rain"):
            picture = _rain(rng, picture)
        if self._has("infrared") and seconds >= self._switch_s:
            picture = np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        sigma = self._config.noise_sigma
        if self._has("night"):
            picture, sigma = _blotched(rng, picture), float(np.hypot(sigma, NIGHT_NOISE))
        picture = add_noise(rng, picture, sigma)
        return _clock(picture, seconds) if self._has("clock") else picture

    def _has(self, effect: Effect) -> bool:
        return effect in self._config.effects


def _pumping(rng: Generator, seconds: float) -> Callable[[float], float]:
    """An automatic exposure that overshoots now and then and comes back within about a second."""
    times, gains = [0.0], [1.0]
    while times[-1] < seconds:
        start = times[-1] + float(rng.uniform(1.5, 3.0))
        peak = float(np.exp(rng.choice([-1, 1]) * rng.uniform(0.12, 0.3)))
        times += [start, start + 0.25, start + float(rng.uniform(1.0, 1.6))]
        gains += [1.0, peak, 1.0]
    return lambda t: ease(t, times, gains)


def _rain(rng: Generator, picture: Bytes) -> Bytes:
    height, width = picture.shape[:2]
    drops = np.zeros((height, width), np.uint8)
    scale = height / 480
    for x, y, length in zip(
        rng.uniform(0, width, STREAKS), rng.uniform(-20, height, STREAKS), rng.uniform(10, 45, STREAKS), strict=True
    ):
        end = (int(x + 0.12 * length * scale), int(y + length * scale))
        cv2.line(drops, (int(x), int(y)), end, 255, 1, cv2.LINE_AA)
    share = cv2.blur(drops, (1, 5)).astype(np.float32)[..., None] / 255 * 0.45
    wet: Bytes = np.round(picture * (1 - share) + 215 * share).astype(np.uint8)
    return wet


def _blotched(rng: Generator, picture: Bytes) -> Bytes:
    """Noise of colour that is the same over some pixels, as a sensor's gain at night gives it."""
    height, width = picture.shape[:2]
    coarse = rng.standard_normal((height // BLOTCH_PX + 1, width // BLOTCH_PX + 1, 3), dtype=np.float32) * BLOTCH_NOISE
    noise = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    noisy: Bytes = np.round(np.clip(picture + noise, 0, 255)).astype(np.uint8)
    return noisy


def _clock(picture: Bytes, seconds: float) -> Bytes:
    """A date and a time that is burnt into the upper left corner."""
    whole = int(seconds)
    text = f"2026-03-14  07:{12 + whole // 60:02d}:{whole % 60:02d}"
    size = picture.shape[0] / 480
    out = picture.copy()
    cv2.rectangle(out, (0, 0), (int(300 * size), int(30 * size)), (0, 0, 0), -1)
    place = (int(8 * size), int(21 * size))
    cv2.putText(
        out, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6 * size, (240, 240, 240), max(1, round(size)), cv2.LINE_AA
    )
    return out
