"""Sensor noise."""

import numpy as np
from numpy.typing import NDArray


def add_noise(rng: np.random.Generator, image_HW3: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Gaussian sensor noise of `sigma` steps of 255."""
    if sigma <= 0:
        return image_HW3
    noise = rng.standard_normal(image_HW3.shape, dtype=np.float32) * np.float32(sigma)
    return np.round(np.clip(image_HW3 + noise, 0, 255)).astype(np.uint8)
