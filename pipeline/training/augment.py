"""Augmentation: fixed variants of pictures and their truth, the same in every pass.

Variant 0 is the picture as it is; all others have jittered light and noise, and every odd one is mirrored. The variants
of every second picture start at 1, so that half of all samples are mirrored even with one variant each.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.stages.kinds import Kind
from deltascene.stages.types import Image


def variant_of(image: int, place: int) -> int:
    """Number of the variant at a place among those of an image, from the image's number."""
    return place + image % 2


def is_mirrored(variant: int) -> bool:
    """Whether a variant is mirrored left to right: every second one is."""
    return variant % 2 == 1


def vary(image: Image, variant: int, seed: tuple[int, ...]) -> Image:
    """A variant of a picture.

    Args:
        image: RGB [H, W, 3].
        variant: 0 is the picture as it is.
        seed: of the jitter.
    """
    turned = image[:, ::-1] if is_mirrored(variant) else image
    return turned if variant == 0 else jitter(turned, np.random.default_rng([*seed, variant]))


def mirrored(truth: NDArray[Any], kind: Kind) -> NDArray[Any]:
    """Truth of the mirrored image; the x component of vectors changes its sign."""
    turned = truth[:, ::-1]
    if kind.name != "vector":
        return turned
    return np.asarray(turned * np.array([-1] + [1] * (kind.components - 1), truth.dtype))


def jitter(image: Image, rng: np.random.Generator) -> Image:
    """Random gain, offset, gamma, colour cast and sensor noise; RGB [H, W, 3]."""
    light = (image / 255.0) ** rng.uniform(0.75, 1.35) * rng.uniform(0.75, 1.25, 3) * rng.uniform(0.75, 1.2)
    noisy = light * 255 + rng.uniform(-15, 15) + rng.normal(0, rng.uniform(0, 5), image.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
