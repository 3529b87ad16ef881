"""The demo clip and its truth belong together."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from deltascene.pipeline.training.rooms.truth import Truth, changed_share

DEMO = Path(__file__).parents[4] / "configs" / "demo"


@pytest.fixture(scope="module")
def truth() -> dict[str, np.ndarray]:
    with np.load(DEMO / "room.truth.npz") as stored:
        return {name: stored[name] for name in stored.files}


def test_truth_has_the_stored_types_and_time_last(truth: dict[str, np.ndarray]) -> None:
    assert truth["seg"].shape == truth["depth"].shape == truth["edges"].shape == (224, 308, 150)
    assert truth["normals"].shape == (224, 308, 3, 150)
    kinds = [truth[name].dtype for name in ("seg", "depth", "normals", "edges")]
    assert kinds == [np.uint8, np.float16, np.int8, np.uint8]
    assert truth["seg"].max() < 24
    assert set(np.unique(truth["edges"])) == {0, 255}


def test_video_has_as_many_frames_as_the_truth(truth: dict[str, np.ndarray]) -> None:
    video = cv2.VideoCapture(str(DEMO / "room.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(float(truth["fps"]))
    count = 0
    while True:
        found, frame = video.read()
        if not found:
            break
        assert frame.shape == (480, 640, 3)
        count += 1
    video.release()
    assert count == truth["seg"].shape[-1]


def test_moved_share_is_as_stated_and_in_range(truth: dict[str, np.ndarray]) -> None:
    frames = [
        Truth(truth["seg"][..., t], truth["depth"][..., t], truth["normals"][..., t], truth["edges"][..., t])
        for t in range(40)
    ]
    assert changed_share(frames).mean() == pytest.approx(float(truth["moved_share"]), abs=0.06)
    assert 0.15 <= float(truth["moved_share"]) <= 0.25


def test_every_model_may_be_passed_on(truth: dict[str, np.ndarray]) -> None:
    assert {str(line).rsplit("|", 1)[1] for line in truth["models"]} <= {"CC0-1.0", "CC-BY-3.0", "CC-BY-3.0-US"}


def test_files_are_small() -> None:
    assert all((DEMO / name).stat().st_size < 4_200_000 for name in ("room.mp4", "room.truth.npz"))
