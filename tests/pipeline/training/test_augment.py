"""Variants of a picture: fixed, half of them mirrored."""

import numpy as np
import pytest

from deltascene.pipeline.training.augment import is_mirrored, jitter, mirrored, variant_of, vary
from deltascene.stages.kinds import Classes, Vector

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


@pytest.mark.parametrize("variants", [1, 2, 3, 4])
def test_half_of_all_samples_are_mirrored(variants):
    chosen = [variant_of(image, place) for image in range(4) for place in range(variants)]
    assert np.mean([is_mirrored(variant) for variant in chosen]) == 0.5
    assert all(len({variant_of(image, place) for place in range(variants)}) == variants for image in range(4))


def test_variant_0_is_the_picture_and_the_others_are_always_the_same():
    assert np.array_equal(vary(IMAGE, 0, (1, 2)), IMAGE)
    for variant in (1, 2, 3):
        assert np.array_equal(vary(IMAGE, variant, (1, 2)), vary(IMAGE, variant, (1, 2)))
        assert not np.array_equal(vary(IMAGE, variant, (1, 2)), vary(IMAGE, variant, (1, 3)))
    assert not np.array_equal(vary(IMAGE, 2, (1, 2)), vary(IMAGE, 4, (1, 2)))


def test_jitter_stays_a_picture():
    made = jitter(IMAGE, np.random.default_rng(3))
    assert made.dtype == np.uint8
    assert made.shape == IMAGE.shape
    bright = np.repeat(np.linspace(0, 255, 8)[None, :, None], 3, 2).repeat(6, 0).astype(np.uint8)
    assert np.corrcoef(jitter(bright, np.random.default_rng(3)).ravel(), bright.ravel())[0, 1] > 0.9


def test_mirroring_turns_vectors_round():
    normals = np.array([[[100, 5, -7], [0, 127, 0]]], np.int8)
    assert mirrored(normals, Vector()).tolist() == [[[0, 127, 0], [-100, 5, -7]]]
    assert mirrored(np.array([[1, 2]], np.uint8), Classes(("a", "b", "c"))).tolist() == [[2, 1]]
