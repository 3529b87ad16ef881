"""Kept activations: what the base computes, going on where a pass stopped, and nobody else's."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deltascene.pipeline.bundles.bundle import read_bundle, read_folder
from deltascene.pipeline.bundles.scene_model import load_model
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.training import activations
from deltascene.pipeline.training.activations import begun_blocks, keep_activations
from deltascene.pipeline.training.data import LabelledFolder
from deltascene.stages.rows import run_blocks

pytestmark = pytest.mark.usefixtures("one_thread")


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def bundle(tiny):
    return read_bundle(tiny)


@pytest.fixture(scope="module")
def backbone(bundle):
    return load_model(bundle, ()).backbone


@pytest.fixture
def often(monkeypatch):
    """A mark of progress every third sample."""
    monkeypatch.setattr(activations, "AT_ONCE", 3)


def dying_after(samples):
    def progress(done, total):
        if done >= samples:
            raise Killed

    return progress


@torch.no_grad()
def test_they_are_what_the_base_computes(bundle, backbone, samples_of, tmp_path):
    samples = samples_of(bundle)
    kept = keep_activations(samples, backbone, [0, 3, 6], tmp_path)
    read = kept.read([5, 2])
    positions = backbone.positions(backbone.grid(samples.size))
    for place, number in enumerate((5, 2)):
        tapped = run_blocks(backbone.blocks, backbone.embed(samples.picture(number), positions), [0, 3, 6])
        for block in (0, 3, 6):
            assert read[block].dtype == torch.float32
            torch.testing.assert_close(read[block][place], tapped[block], rtol=1e-3, atol=1e-3)


def test_an_interrupted_pass_goes_on_and_a_whole_one_is_not_run_again(
    bundle, backbone, samples_of, tmp_path, often, monkeypatch
):
    samples = samples_of(bundle)
    whole = keep_activations(samples, backbone, [3, 4], tmp_path / "whole")
    with pytest.raises(Killed):
        keep_activations(samples, backbone, [3, 4], tmp_path / "cut", dying_after(6))
    marks: list[int] = []
    cut = keep_activations(samples, backbone, [3, 4], tmp_path / "cut", lambda done, total: marks.append(done))
    assert marks == [9, 12, 15, 16]
    for block in (3, 4):
        assert np.array_equal(cut.blocks[block], whole.blocks[block])
    monkeypatch.setattr(activations, "run_blocks", None)
    assert keep_activations(samples, backbone, [4], tmp_path / "cut").blocks.keys() == {4}


def test_blocks_of_several_cut_passes_are_all_right_in_the_end(
    bundle, backbone, samples_of, tmp_path, often, monkeypatch
):
    """Another block joins one that is half done; a cut before the first mark must not lose the half under its mark."""
    samples, run = samples_of(bundle), activations.run_blocks
    whole = keep_activations(samples, backbone, [3, 5], tmp_path / "whole")
    with pytest.raises(Killed):
        keep_activations(samples, backbone, [3], tmp_path / "cut", dying_after(6))
    turns = iter(range(2))

    def dying(*args, **options):
        if next(turns, None) is None:
            raise Killed
        return run(*args, **options)

    monkeypatch.setattr(activations, "run_blocks", dying)
    with pytest.raises(Killed):
        keep_activations(samples, backbone, [3, 5], tmp_path / "cut")
    monkeypatch.setattr(activations, "run_blocks", run)
    alone = keep_activations(samples, backbone, [3], tmp_path / "cut")
    assert np.array_equal(alone.blocks[3], whole.blocks[3])


def test_a_later_block_starts_from_an_earlier_one_that_is_there(
    bundle, backbone, samples_of, tmp_path, often, monkeypatch
):
    """No picture is read again, and a cut pass ends as a whole one, bit for bit, though float16 was between."""
    samples = samples_of(bundle)
    fresh = keep_activations(samples, backbone, [3, 5], tmp_path / "at_once")
    for folder in ("whole", "cut"):
        keep_activations(samples, backbone, [3], tmp_path / folder)
    monkeypatch.setattr(type(samples), "picture", None)
    whole = keep_activations(samples, backbone, [5], tmp_path / "whole")
    with pytest.raises(Killed):
        keep_activations(samples, backbone, [5], tmp_path / "cut", dying_after(6))
    cut = keep_activations(samples, backbone, [3, 5], tmp_path / "cut")
    assert np.array_equal(cut.blocks[5], whole.blocks[5])
    np.testing.assert_allclose(whole.blocks[5], fresh.blocks[5], rtol=0.01, atol=0.01)
    assert begun_blocks(tmp_path / "cut") == [3, 5]


def test_a_pass_from_the_pictures_stays_one_even_where_an_earlier_block_got_ready_first(
    bundle, backbone, samples_of, tmp_path, monkeypatch
):
    """Cut between the marks of two blocks: what is left is done as it would have been."""
    samples, write = samples_of(bundle), activations.write_whole
    whole = keep_activations(samples, backbone, [3, 5], tmp_path / "whole")

    def dying(path, text):
        if path.name == "block_03.done":
            raise Killed
        write(path, text)

    monkeypatch.setattr(activations, "AT_ONCE", 16)
    monkeypatch.setattr(activations, "write_whole", dying)
    with pytest.raises(Killed):
        keep_activations(samples, backbone, [3, 5], tmp_path / "cut")
    monkeypatch.setattr(activations, "write_whole", write)
    assert begun_blocks(tmp_path / "cut") == [5]
    cut = keep_activations(samples, backbone, [3, 5], tmp_path / "cut")
    for block in (3, 5):
        assert np.array_equal(cut.blocks[block], whole.blocks[block])


def test_those_of_another_base_are_refused(bundle, backbone, samples_of, tmp_path, tiny):
    keep_activations(samples_of(bundle), backbone, [3], tmp_path / "kept")
    folder = Path(shutil.copytree(tiny, tmp_path / "other"))
    (folder / "base.safetensors").write_bytes(b"other bytes")
    with pytest.raises(UsageError, match=r"kept: activations of another base: expected \w{12}; found \w{12}; name"):
        keep_activations(samples_of(read_folder(folder)), backbone, [3], tmp_path / "kept")


def test_those_of_other_samples_are_refused(bundle, backbone, labelled, samples_of, tmp_path):
    keep_activations(samples_of(bundle), backbone, [3], tmp_path / "kept")
    for other in (samples_of(bundle, variants=2), samples_of(bundle, seed=1), samples_of(bundle, "test")):
        with pytest.raises(UsageError, match="kept: activations of other samples: expected"):
            keep_activations(other, backbone, [3], tmp_path / "kept")
    root = Path(shutil.copytree(labelled.root, tmp_path / "data"))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(root / "images" / "a00.png")
    other = samples_of(bundle, data=LabelledFolder(root, labelled.split))
    with pytest.raises(UsageError, match="kept: activations of other pictures: expected"):
        keep_activations(other, backbone, [3], tmp_path / "kept")


def test_a_folder_that_says_less_is_still_of_use(bundle, backbone, samples_of, tmp_path):
    keep_activations(samples_of(bundle), backbone, [3], tmp_path)
    told = json.loads((tmp_path / "activations.json").read_text())
    del told["pictures"]
    (tmp_path / "activations.json").write_text(json.dumps(told))
    (tmp_path / "block_03.done").write_text("16\n")
    assert keep_activations(samples_of(bundle), backbone, [3], tmp_path).blocks.keys() == {3}


def test_what_float16_cannot_hold_is_not_kept(bundle, samples_of, tmp_path):
    loud = load_model(bundle, ()).backbone
    with torch.no_grad():
        loud.blocks[2].mlp.fc2.bias.fill_(1e5)
    with pytest.raises(UsageError, match=r"--activations: expected activations after block 3 within float16, ±65504"):
        keep_activations(samples_of(bundle), loud, [2, 3], tmp_path)
