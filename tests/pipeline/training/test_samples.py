"""Samples: always the same, picture and truth turned together, and what doesn't fit is named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deltascene.pipeline.bundles.bundle import Bundle, read_bundle
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.training.data import LabelledFolder
from deltascene.pipeline.training.recipe import Recipe
from deltascene.pipeline.training.samples import batches_of, read_ahead


@pytest.fixture(scope="module")
def bundle(tiny):
    return read_bundle(tiny)


@pytest.mark.parametrize("variants", [1, 2, 3])
def test_picture_and_truth_are_turned_together(bundle, samples_of, variants):
    """The square is nearer and redder than what is around it, wherever a variant puts it."""
    samples, turned, straight = samples_of(bundle, variants=variants), 0, 0
    assert len(samples) == 16 * variants
    for number in range(8 * variants):
        red = samples.picture(number)[0].view(3, 16, 4, 16).mean((1, 3)).flatten()
        near = (samples.cells(number, "height", 4).float() < 1).float().mean(1)
        assert torch.corrcoef(torch.stack([red, near]))[0, 1] > 0.85
        plain, truth = samples.data.truth("height", samples.stems[number // variants]), samples.truth(number, "height")
        turned += np.array_equal(truth, plain[:, ::-1])
        straight += np.array_equal(truth, plain)
    assert turned >= 4 * variants
    assert straight >= 4 * variants  # a square in the middle is both
    assert turned + straight <= 9 * variants


def test_a_sample_is_the_same_every_time_and_another_with_another_seed(bundle, samples_of):
    one, again, other = samples_of(bundle), samples_of(bundle), samples_of(bundle, seed=1)
    assert torch.equal(one.picture(1), again.picture(1))
    assert not torch.equal(one.picture(1), other.picture(1))
    assert torch.equal(one.cells(1, "parts", 4), other.cells(1, "parts", 4))


def test_what_is_judged_is_not_varied(bundle, samples_of):
    judged = samples_of(bundle, "val", variants=3)
    assert len(judged) == 2
    for number, stem in enumerate(judged.stems):
        assert np.array_equal(judged.truth(number, "parts"), judged.data.truth("parts", stem))
        red = judged.data.image(stem)[..., 0] / 255
        assert judged.picture(number)[0].numpy() == pytest.approx((red - 0.485) / 0.229, abs=1e-5)


def test_truth_of_another_size_is_named(bundle, labelled, samples_of, tmp_path):
    root = Path(shutil.copytree(labelled.root, tmp_path / "data"))
    np.save(root / "height" / "a03.npy", np.ones((24, 64), np.float16))
    samples = samples_of(bundle, data=LabelledFolder(root, labelled.split))
    with pytest.raises(
        UsageError, match=r"height/a03: expected truth of the input's size, \(48, 64\); found \(24, 64\)"
    ):
        samples.truth(3, "height")


def test_a_picture_that_comes_to_another_input_is_named(bundle, labelled, samples_of, tmp_path):
    root = Path(shutil.copytree(labelled.root, tmp_path / "data"))
    Image.fromarray(np.zeros((64, 48, 3), np.uint8)).save(root / "images" / "a03.png")
    wanted = bundle.entry.input.model_copy(update={"size": None, "short_side": 48})
    flexible = Bundle(bundle.folder, bundle.entry.model_copy(update={"input": wanted}), bundle.kinds)
    samples = samples_of(flexible, data=LabelledFolder(root, labelled.split))
    assert samples.size == (48, 64)
    samples.picture(2)
    said = r"a03\.png: expected an image with an input size of \(48, 64\), that of a00; found \(64, 48\)"
    with pytest.raises(UsageError, match=said):
        samples.picture(3)


def test_samples_are_told_apart_by_names_variants_and_pictures(bundle, labelled, samples_of, tmp_path):
    root = Path(shutil.copytree(labelled.root, tmp_path / "data"))
    moved = samples_of(bundle, data=LabelledFolder(root, labelled.split))
    here = samples_of(bundle).identity()
    assert here == samples_of(bundle).identity() == moved.identity()
    for other in (samples_of(bundle, variants=2), samples_of(bundle, seed=3), samples_of(bundle, "val")):
        assert other.identity()["samples"] != here["samples"]
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(root / "images" / "a00.png")
    assert moved.identity()["samples"] == here["samples"]
    assert moved.identity()["pictures"] != here["pictures"]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 3), st.integers(0, 30), st.integers(0, 5))
def test_every_pass_takes_every_sample_once_but_for_its_rest(count, batch, passes, steps, seed):
    recipe = Recipe(batch=batch, passes=passes, steps=steps, seed=seed)
    batches = batches_of(count, recipe)
    size = min(batch, count)
    each = count // size
    assert len(batches) == min(steps or passes * each, passes * each)
    assert all(len(chosen) == size for chosen in batches)
    for number in range(len(batches) // each):
        taken = np.concatenate(batches[number * each : (number + 1) * each])
        assert len(set(taken)) == len(taken)
        assert set(taken) <= set(range(count))
    again = batches_of(count, recipe)
    assert all(np.array_equal(one, other) for one, other in zip(batches, again, strict=True))


@given(st.lists(st.integers(), max_size=12), st.integers(1, 4))
def test_reading_ahead_changes_no_order(wanted, depth):
    assert list(read_ahead(lambda item: -item, wanted, depth)) == [-item for item in wanted]


def test_what_goes_wrong_ahead_is_raised_in_its_place():
    def read(item):
        if item == 2:
            raise UsageError("no image 2")
        return item

    ahead = read_ahead(read, range(5))
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(UsageError, match="no image 2"):
        next(ahead)
