"""Rooms of boxes: a scene, its views and clips are pure functions of the seed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deltascene.pipeline.training.rooms.clip_config import ClipConfig, clip_of_kind
from deltascene.pipeline.training.rooms.clips import clip_frames, make_shots
from deltascene.pipeline.training.rooms.furnishing import FurnishingConfig
from deltascene.pipeline.training.rooms.labels import class_id
from deltascene.pipeline.training.rooms.motion import closest_m, is_free
from deltascene.pipeline.training.rooms.scene import Furniture, SceneConfig, build_scene
from deltascene.pipeline.training.rooms.space import Extent, Space, extent_of, four_walls
from deltascene.pipeline.training.rooms.write import SetConfig, room_frames

LIVING = SceneConfig(kinds=("living",))
SMALL = ClipConfig(
    5, frames=6, height=24, width=32, truth_height=20, truth_width=28,
    scene=SceneConfig(("living",), FurnishingConfig(people_chance=0.0)),
)  # fmt: skip


def small_set(folder: Path) -> SetConfig:
    return SetConfig(folder, folder, folder, {"train": 1}, views=2, height=28, width=36, scene=LIVING)


def test_a_room_repeats_byte_for_byte(furniture: Furniture) -> None:
    first, second = (build_scene(7, LIVING, furniture).static for _ in range(2))
    other = build_scene(8, LIVING, furniture).static
    assert first.corners_F33.tobytes() == second.corners_F33.tobytes()
    assert first.corners_F33.tobytes() != other.corners_F33.tobytes()


@pytest.mark.parametrize("seed", range(6))
def test_furniture_stands_inside_and_apart(furniture: Furniture, seed: int) -> None:
    scene = build_scene(seed, LIVING, furniture)
    low, high = scene.static.corners_F33.reshape(-1, 3).min(axis=0), scene.static.corners_F33.reshape(-1, 3).max(axis=0)
    half = np.array([scene.space.width_m / 2, scene.space.height_m / 2, scene.space.depth_m / 2])
    assert (low >= -half * [1, 0, 1] - 0.05).all()
    assert (high <= half * [1, 2, 1] + 0.05).all()
    assert set(scene.static.class_F) >= {class_id("wall"), class_id("floor"), class_id("ceiling"), class_id("sofa")}


def test_unknown_kind_is_refused(furniture: Furniture) -> None:
    with pytest.raises(ValueError, match="name none of living"):
        build_scene(0, SceneConfig(kinds=("attic",)), furniture)


@pytest.mark.usefixtures("needs_embree")
def test_frames_of_a_room_repeat_byte_for_byte(furniture: Furniture, tmp_path: Path) -> None:
    first, second = (room_frames(3, small_set(tmp_path), furniture) for _ in range(2))
    assert 1 <= len(first) == len(second)
    for one, two in zip(first, second, strict=True):
        assert one.image_HW3.tobytes() == two.image_HW3.tobytes()
        assert one.truth.depth_HW.tobytes() == two.truth.depth_HW.tobytes()
        assert (one.truth.depth_HW > 0).all()
        assert one.image_HW3.shape == (28, 36, 3)


@pytest.mark.usefixtures("needs_embree")
@pytest.mark.parametrize("kind", ["static", "pan", "cut"])
def test_a_clip_repeats_byte_for_byte(furniture: Furniture, kind: str) -> None:
    named = clip_of_kind(kind, 5)
    config = replace(SMALL, pan_deg=named.pan_deg, drift_m=named.drift_m, cut_frame=3 if kind == "cut" else None)
    first, second = (list(clip_frames(config, make_shots(config, furniture), images=True)) for _ in range(2))
    assert len(first) == config.frames
    for one, two in zip(first, second, strict=True):
        assert one.image_HW3 is not None
        assert two.image_HW3 is not None
        assert one.image_HW3.tobytes() == two.image_HW3.tobytes()
        assert one.truth.normals_HW3.tobytes() == two.truth.normals_HW3.tobytes()


@pytest.mark.usefixtures("needs_embree")
def test_truth_is_the_same_without_pictures(furniture: Furniture) -> None:
    shots = make_shots(SMALL, furniture)
    with_images = list(clip_frames(SMALL, shots, images=True))
    without = list(clip_frames(SMALL, shots, images=False))
    assert all(frame.image_HW3 is None for frame in without)
    for one, two in zip(with_images, without, strict=True):
        assert np.array_equal(one.truth.edges_HW, two.truth.edges_HW)


@pytest.mark.usefixtures("needs_embree")
def test_noise_is_the_only_change_in_an_empty_clip(furniture: Furniture) -> None:
    config = replace(SMALL, people=0, objects=0)
    images = [f.image_HW3 for f in clip_frames(config, make_shots(config, furniture), images=True)]
    change = np.stack([image for image in images if image is not None]).astype(float)
    assert np.abs(np.diff(change, axis=0)).max() > 0
    assert change.std(axis=0).mean() == pytest.approx(2.0, rel=0.3)
    quiet = replace(config, noise_sigma=0.0)
    still = [f.image_HW3 for f in clip_frames(quiet, make_shots(quiet, furniture), images=True)]
    assert all(np.array_equal(still[0], image) for image in still)


@pytest.mark.usefixtures("needs_embree")
def test_a_cut_changes_the_room(furniture: Furniture) -> None:
    config = replace(SMALL, people=0, objects=0, cut_frame=3)
    truths = [frame.truth for frame in clip_frames(config, make_shots(config, furniture), images=False)]
    assert np.array_equal(truths[1].depth_HW, truths[2].depth_HW)
    assert not np.array_equal(truths[2].depth_HW, truths[3].depth_HW)


@pytest.mark.usefixtures("needs_embree")
def test_walkers_keep_to_free_floor(furniture: Furniture) -> None:
    config = replace(SMALL, frames=40, people=2, objects=0)
    (_, _, shot), = make_shots(config, furniture)  # fmt: skip
    tracks = [mover.track for mover in shot.movers]
    assert closest_m(tracks[0], tracks[1:]) >= 0
    steps = np.linalg.norm(np.diff(tracks[0].shift_T3[:, [0, 2]], axis=0), axis=1)
    assert steps.max() <= 1.3 * config.speed_m_s / config.fps + 1e-6


def test_unknown_clip_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'wild' is none of empty, static"):
        clip_of_kind("wild", 1)


def test_a_turned_box_takes_its_turned_extent() -> None:
    extent = extent_of(np.array([2.0, 1.0, 0.5]), np.pi / 2, np.array([1.0, 0.2, 0.0]))
    assert extent.low == pytest.approx((0.75, 0.2, -1.0))
    assert extent.high == pytest.approx((1.25, 1.2, 1.0))


def test_space_refuses_what_overlaps_or_sticks_out() -> None:
    space = Space(4.0, 4.0, 2.5, [Extent((0, 0, 0), (1, 1, 1))])
    assert space.fits(Extent((1.0, 0, 0), (1.5, 1, 1)))
    assert not space.fits(Extent((0.9, 0, 0), (1.5, 1, 1)))
    assert not space.fits(Extent((1.5, 0, 0), (2.2, 1, 1)))
    assert not is_free(space, np.array([0.5, 0.0, 0.5]), 0.25)
    assert is_free(space, np.array([-1.0, 0.0, -1.0]), 0.25)


def test_walls_face_inward() -> None:
    for wall in four_walls(Space(4.0, 6.0, 2.5)):
        inside, outside = wall.point(0.0, 0.5, 1.0), wall.point(0.0, 0.0, 1.0)
        assert np.hypot(*inside[[0, 2]]) < np.hypot(*outside[[0, 2]])


@pytest.mark.usefixtures("needs_embree")
@pytest.mark.parametrize(
    "kind",
    [
        *("hand_fast", "drive", "rain", "infrared", "headlights"),
        *(
            pytest.param(kind, marks=pytest.mark.nightly)
            for kind in ("hand_slow", "walk_through", "tripod", "shake", "clock", "night", "pumping")
        ),
    ],
)
def test_kinds_like_life_repeat_and_differ_from_a_plain_clip(furniture: Furniture, kind: str) -> None:
    named = clip_of_kind(kind, 5)
    length = replace(SMALL, frames=8, fps=1.0)
    config = replace(length, path=named.path, blur=named.blur, effects=named.effects)
    plain, first, second = (
        list(clip_frames(each, make_shots(each, furniture), images=True)) for each in (length, config, config)
    )
    for one, two in zip(first, second, strict=True):
        assert one.image_HW3 is not None
        assert two.image_HW3 is not None
        assert one.image_HW3.tobytes() == two.image_HW3.tobytes()
    assert any(not np.array_equal(one.image_HW3, other.image_HW3) for one, other in zip(first, plain, strict=True))
    same_truth = all(np.array_equal(a.truth.depth_HW, b.truth.depth_HW) for a, b in zip(first, plain, strict=True))
    assert same_truth == (not named.path)


@pytest.mark.usefixtures("needs_embree")
def test_every_other_frame_is_the_same_motion(furniture: Furniture) -> None:
    config = replace(SMALL, path="hand_fast")
    every, half = (
        [frame.truth.depth_HW for frame in clip_frames(each, make_shots(each, furniture), images=False)]
        for each in (config, replace(config, step=2))
    )
    assert len(half) == 3
    assert all(np.array_equal(one, other) for one, other in zip(every[::2], half, strict=True))


@pytest.mark.usefixtures("needs_embree")
def test_visitors_are_there_during_their_visit_only(furniture: Furniture) -> None:
    config = replace(SMALL, frames=40, fps=10.0, objects=0, visits_s=((1.0, 3.0),))
    (_, _, shot), = make_shots(config, furniture)  # fmt: skip
    there = [len(shot.world(frame).bodies) - 1 for frame in range(40)]
    assert there == [0] * 10 + [1] * 20 + [0] * 10
    track = shot.movers[0].track.shift_T3
    assert np.linalg.norm(track[10] - track[29]) < 0.5  # comes from and goes to the same place outside
    assert np.abs(np.diff(track[10:30], axis=0)).max() > 0.05
