"""Pictures of frames with their predictions, and the video of them: drawn, encoded and decoded again."""

import json
import re
import shutil
import subprocess
import time
from itertools import repeat
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltascene.pipeline.drawing.overlay import FrameNote, change_of, compose, draw_overlay, frame_notes, shown_at_ms
from deltascene.pipeline.drawing.panel import GAP, Change, change_tile, class_counts, class_swatches, plan_panel
from deltascene.pipeline.runs import ledger
from deltascene.pipeline.runs.ledger import SCHEMA
from deltascene.stages.kinds import Classes, Heatmaps, Scalar, Vector
from deltascene.stages.types import Frame

NTSC = 30000 / 1001
KINDS = {
    "parts": Classes(("sky", "road", "car"), ((250, 20, 20), (20, 250, 20), (20, 20, 250))),
    "height": Scalar("m", (0.5, 8.0), log=True),
    "flow": Vector(3),
    "one": Heatmaps(("edge",)),
    "many": Heatmaps(tuple("abcdefg")),
}
IMAGE = np.full((48, 64, 3), (200, 120, 40), np.uint8)
VALUES = {
    "parts": np.full((12, 16), 2, np.uint8),
    "height": np.full((12, 16), np.nan, np.float32),
    "flow": np.full((12, 16, 3), (0, 0, -1), np.float32),
    "one": np.ones((12, 16), np.float32),
    "many": np.tile(np.eye(7, dtype=np.float32)[4], (12, 16, 1)),
}


def tile_of(picture, number, kinds=KINDS, frame_size=(48, 64), height=120, header=False):
    return picture[plan_panel(frame_size, len(kinds), height, header).place(number)]


def middle(tile):
    """Mean colour of what no caption covers."""
    return tile[tile.shape[0] // 2 :].reshape(-1, 3).mean(0)


@pytest.mark.parametrize("tasks", range(1, 7))
@pytest.mark.parametrize("frame_size", [(48, 64), (64, 48), (37, 61)])
def test_a_panel_holds_every_tile_once_and_is_even(tasks, frame_size):
    panel = plan_panel(frame_size, tasks, 75)
    covered = np.zeros(panel.size, int)
    for number in range(panel.cells):
        covered[panel.place(number)] += 1
    assert panel.cells > tasks
    assert covered.max() == 1
    assert covered[panel.header :].sum() == panel.cells * panel.tile[0] * panel.tile[1]
    assert not panel.size[0] % 2
    assert not panel.size[1] % 2
    assert panel.tile[1] / panel.tile[0] == pytest.approx(frame_size[1] / frame_size[0], rel=0.05)


def test_tiles_show_the_frame_and_every_kind_in_its_colours():
    picture = compose(IMAGE, VALUES, KINDS, height=120)
    np.testing.assert_allclose(middle(tile_of(picture, 0)), (200, 120, 40), atol=2)
    grey = cv2.cvtColor(IMAGE[:1, :1], cv2.COLOR_RGB2GRAY)[0, 0]
    np.testing.assert_allclose(middle(tile_of(picture, 1)), 0.4 * grey + 0.6 * np.array((20, 20, 250)), atol=2)
    np.testing.assert_allclose(middle(tile_of(picture, 2)), (0, 0, 0), atol=2)  # not a number
    np.testing.assert_allclose(middle(tile_of(picture, 3)), (128, 128, 255), atol=2)
    np.testing.assert_allclose(middle(tile_of(picture, 4)), (255, 255, 255), atol=2)
    np.testing.assert_allclose(middle(tile_of(picture, 5)), KINDS["many"].colour(VALUES["many"])[0, 0], atol=2)


def test_an_invalid_frame_is_grey_everywhere_and_says_why():
    picture = compose(IMAGE, VALUES, KINDS, cause="corrupt", height=120)
    tiles = [tile_of(picture, number).astype(int) for number in range(len(KINDS) + 1)]
    assert all(np.ptp(tile, axis=2).max() < 8 for tile in tiles)
    assert any((tile > 200).any() for tile in tiles)  # the word


def test_what_was_not_predicted_is_told_from_what_was():
    picture = compose(IMAGE, {"flow": VALUES["flow"]}, KINDS, height=120)
    assert np.ptp(tile_of(picture, 1).astype(int), axis=2).max() < 8
    np.testing.assert_allclose(middle(tile_of(picture, 3)), (128, 128, 255), atol=2)


def test_predictions_are_shown_without_a_frame():
    picture = compose(None, {"one": VALUES["one"]}, {"one": KINDS["one"]}, height=120)
    np.testing.assert_allclose(middle(tile_of(picture, 1, {"one": 0}, (12, 16))), (255, 255, 255), atol=2)


def test_a_caption_adds_a_line_and_never_runs_out_of_it():
    plain, captioned = (compose(IMAGE, VALUES, KINDS, caption=text, height=120) for text in ("", "#12 " * 400))
    assert captioned.shape[0] > plain.shape[0]
    assert captioned.shape[1] == plain.shape[1]
    assert (captioned[:, -GAP - 4 :][: captioned.shape[0] - plain.shape[0]] < 60).all()


def test_a_spare_tile_lists_the_classes():
    kinds = {name: KINDS[name] for name in ("parts", "height", "flow", "one")}
    spare = tile_of(compose(IMAGE, VALUES, kinds, height=120), 5, kinds)
    for colour in class_swatches(kinds["parts"]):
        assert (np.abs(spare.astype(int) - colour) < 3).all(-1).sum() >= 9


def test_of_more_classes_than_fit_the_first_are_listed():
    kind = Classes(tuple(f"class {number}" for number in range(250)))
    value = np.full((12, 16), 240, np.uint8)
    kinds = {"many": kind, **{name: KINDS[name] for name in ("height", "flow", "one")}}
    spare = tile_of(compose(IMAGE, {"many": value}, kinds, height=120), 5, kinds)
    assert (np.abs(spare.astype(int) - class_swatches(kind)[3]) < 3).all(-1).any()


def test_ids_outside_the_labels_are_not_counted():
    counts = class_counts(KINDS["parts"], np.array([[0, 1, 1], [2, 255, 7]], np.uint8))
    assert counts.tolist() == [1, 2, 1]


@given(st.lists(st.floats(0, 0.5, allow_subnormal=False), min_size=1, max_size=40))
def test_every_frame_is_shown_at_its_time_and_no_two_at_once(steps):
    pts_s = np.cumsum(steps)
    shown_ms, true_ms = np.array(shown_at_ms(pts_s)), 1000 * (pts_s - pts_s[0])
    assert (np.diff(shown_ms) > 0).all()
    crowd = len(pts_s) if np.diff(true_ms).min(initial=1) < 1 else 0  # whoever comes in the same millisecond waits
    assert (np.abs(shown_ms - true_ms) <= 0.5 + 1e-9 + crowd).all()


@pytest.mark.parametrize("fps", [NTSC, 24000 / 1001, 25, 0.2])
def test_a_constant_rate_stays_one(fps):
    true_ms = 1000 * np.arange(5000) / fps
    assert np.abs(shown_at_ms(np.round(true_ms / 1000, 3)) - true_ms).max() < 1.5


def test_a_hole_in_the_clock_is_shown_for_a_minute_at_most():
    assert shown_at_ms([3.0, 3.1, 86400.0, 86400.1]) == [0, 100, 60_100, 60_200]


def changed(moved, policy="rows", content=(0.0, 0.0, 1.0, 1.0)):
    """A change map of 2 x 4 patches whose listed patches are far over a threshold of 10."""
    strength = np.zeros(8, np.uint8)
    strength[list(moved)] = 200
    return Change(strength.reshape(2, 4), 10.0, policy, content)


def patch(tile, number, inset=3):
    """One patch of a tile of 2 x 4 patches, without its rim."""
    height, width = tile.shape[0] // 2, tile.shape[1] // 4
    top, left = number // 4 * height, number % 4 * width
    return tile[top + inset : top + height - inset, left + inset : left + width - inset].astype(int)


def test_moved_patches_are_tinted_by_strength_and_the_others_darkened():
    frame = np.full((40, 80, 3), 100, np.uint8)
    change = changed([1, 6])
    change.strength[1, 2] = 10  # just at the threshold
    tile = change_tile(frame, change)
    assert change.moved == 2
    for number in range(8):
        red, _, blue = patch(tile, number).reshape(-1, 3).mean(0)
        if number in (1, 6):
            assert red > 110 > 100 > blue
        else:
            assert red == blue == 42
    assert patch(tile, 1)[..., 0].mean() > patch(tile, 6)[..., 0].mean()
    assert (frame == 100).all()


def test_a_dense_frame_stays_light_inside_an_edge():
    frame = np.full((40, 80, 3), 100, np.uint8)
    for change in (changed([1], "dense"), Change(None, 0.0, "dense")):
        tile = change_tile(frame, change)
        assert (patch(tile, 3) == 100).all()
        assert (tile[0] > 230).all()
        assert (tile[:, -1] > 230).all()
    assert (change_tile(frame, Change(None, 0.0, "warped")) == 100).all()


def test_a_change_map_lies_on_the_frame_where_the_input_has_margins():
    frame = np.full((40, 40, 3), 100, np.uint8)
    tile = change_tile(frame, changed([1], content=(0.0, 0.25, 1.0, 0.5)))  # the frame is columns 1 and 2
    assert (tile[2:18, 2:18, 0] > 110).all()
    assert (tile[2:18, 22:] == 42).all()
    assert (tile[22:] == 42).all()


def stand_in(pts_s, fps, invalid=()):
    """A processed video whose class moves from 0 to 2, as `draw_overlay` sees it."""
    frames = len(pts_s)
    stored = {"parts": np.stack([np.full((12, 16), place * 3 // frames, np.uint8) for place in range(frames)])}
    valid = np.array([place not in invalid for place in range(frames)])
    rows = [
        {
            "source": "clip", "index": place, "pts_s": pts_s[place], "task": "parts", "predicted": bool(valid[place]),
            "valid": bool(valid[place]), "cause": "" if valid[place] else "corrupt", "policy": "dense",
            "macs_executed": 5_000_000, "macs_dense": 10_000_000, "seconds": 0.25,
        }
        for place in range(frames)
    ]  # fmt: skip
    arrays = SimpleNamespace(
        index=np.arange(frames),
        pts_s=np.asarray(pts_s),
        valid={"parts": valid},
        stored=lambda task, at: stored[task][at],
        attributes={
            "change_threshold": None,
            "content": (0, 0, 12, 16),
            "model_size": (12, 16),
            "frame_size": (48, 64),
        },
        change=lambda place: None,
    )
    table = ledger.pa.Table.from_pylist(rows, schema=SCHEMA)
    kinds = {"parts": KINDS["parts"]}
    return SimpleNamespace(id="clip", fps=fps, kinds=kinds, arrays=arrays, ledger=lambda: table)


def source_frames(pts_s):
    return (Frame("clip", place, time_s, IMAGE) for place, time_s in enumerate(pts_s))


def decoded(path):
    capture = cv2.VideoCapture(str(path))
    fps, frames = capture.get(cv2.CAP_PROP_FPS), []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return fps, frames


def draw_all(*arguments, **options):
    """Every share that was told."""
    return list(draw_overlay(*arguments, **options))


def test_the_video_decodes_to_its_frames_rate_size_and_colours(tmp_path, capfd):
    pts_s = (np.arange(45) / NTSC).tolist()
    shares = draw_all(tmp_path / "overlay.webm", stand_in(pts_s, NTSC, invalid=(20,)), source_frames(pts_s), height=120)
    fps, frames = decoded(tmp_path / "overlay.webm")
    assert len(frames) == len(shares) == 45
    assert fps == pytest.approx(NTSC, rel=1e-3)
    panel = plan_panel((48, 64), 1, 120)
    assert {frame.shape for frame in frames} == {(*panel.size, 3)}
    for place in (2, 17, 43):
        np.testing.assert_allclose(middle(frames[place][panel.place(0)]), (200, 120, 40), atol=12)
        assert middle(frames[place][panel.place(1)]).argmax() == place * 3 // 45
    assert np.ptp(middle(frames[20][panel.place(1)])) < 12  # invalid: grey
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["overlay.webm"]
    assert capfd.readouterr() == ("", "")


def test_a_kept_change_map_gets_a_tile_of_its_own(tmp_path):
    pts_s = (np.arange(12) / 10).tolist()
    video = stand_in(pts_s, 10.0, invalid=(7,))
    video.arrays.attributes["change_threshold"] = 12.0
    video.arrays.change = lambda place: np.array([[200 if place > 5 else 0, 0, 0, 0], [0] * 4], np.uint8)
    known = change_of(video, 6, "rows")
    assert (known.moved, known.threshold, known.policy, known.content) == (1, 12.0, "rows", (0, 0, 1, 1))
    draw_all(tmp_path / "o.webm", video, source_frames(pts_s), height=120)
    _, frames = decoded(tmp_path / "o.webm")
    assert len(frames) == 12
    panel = plan_panel((48, 64), 2, 120)
    assert panel.tiles == 3
    still, moved, invalid = (frames[place][panel.place(2)][24:56, 4:36].astype(int) for place in (3, 9, 7))
    np.testing.assert_allclose(still.reshape(-1, 3).mean(0), (200, 120, 40), atol=25)  # dense: light
    assert np.ptp(invalid.reshape(-1, 3).mean(0)) < 12
    assert moved[..., 0].mean() > 200


def test_a_variable_rate_keeps_its_times(tmp_path):
    pts_s = [5.0, 5.1, 5.2, 5.6, 5.61, 5.7]
    draw_all(tmp_path / "o.webm", stand_in(pts_s, 10.0), source_frames(pts_s), height=60)
    capture, shown_ms, classes = cv2.VideoCapture(str(tmp_path / "o.webm")), [], []
    panel = plan_panel((48, 64), 1, 60)
    while (read := capture.read())[0]:
        shown_ms.append(round(capture.get(cv2.CAP_PROP_POS_MSEC)))
        classes.append(2 - int(middle(read[1][panel.place(1)]).argmax()))
    assert shown_ms == [0, 100, 200, 600, 610, 700]
    assert classes == [0, 0, 1, 1, 2, 2]


def test_a_source_that_ended_early_leaves_the_predictions(tmp_path):
    pts_s = (np.arange(12) / 10).tolist()
    draw_all(tmp_path / "o.webm", stand_in(pts_s, 10.0), iter(()), height=60)
    _, frames = decoded(tmp_path / "o.webm")
    assert len(frames) == 12
    assert middle(frames[-1][plan_panel((48, 64), 1, 60).place(1)]).argmax() == 2


def test_frames_of_another_source_are_refused_and_nothing_is_left(tmp_path):
    pts_s = (np.arange(12) / 10).tolist()
    others = (Frame("clip", index, 0.0, IMAGE) for index in repeat(7))
    with pytest.raises(ValueError, match="clip: expected frame 0 of the source; found frame 7"):
        draw_all(tmp_path / "o.webm", stand_in(pts_s, 10.0), others, height=60)
    assert not list(tmp_path.iterdir())


def test_a_drawing_that_is_broken_off_leaves_nothing(tmp_path):
    pts_s = (np.arange(12) / 10).tolist()
    drawing = draw_overlay(tmp_path / "o.webm", stand_in(pts_s, 10.0), source_frames(pts_s), height=60)
    assert next(drawing) == pytest.approx(1 / 12)
    deadline = time.monotonic() + 20
    while not list(tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    drawing.close()
    assert not list(tmp_path.iterdir())


PLAYER = """<!doctype html><video src="overlay.webm" muted></video><pre></pre><script>
const video = document.querySelector("video"), out = document.querySelector("pre");
video.addEventListener("canplaythrough", () => { video.currentTime = 1; }, {once: true});
for (const name of ["seeked", "error"]) video.addEventListener(name, () => {
  const {readyState, duration, videoWidth, videoHeight, currentTime} = video;
  out.textContent = JSON.stringify({readyState, duration, videoWidth, videoHeight, currentTime});
});</script>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
def test_the_video_plays_in_a_browser(tmp_path):
    pts_s = (np.arange(60) / NTSC).tolist()
    draw_all(tmp_path / "overlay.webm", stand_in(pts_s, NTSC), source_frames(pts_s), height=60)
    (tmp_path / "player.html").write_text(PLAYER)
    for budget_ms in (4_000, 16_000, 64_000):  # its clock runs on while a busy machine decodes
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--virtual-time-budget={budget_ms}", "--dump-dom"]
        page = subprocess.run(
            ["chromium", *flags, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "player.html").as_uri()],
            capture_output=True, text=True, timeout=120, check=True,
        ).stdout  # fmt: skip
        if said := re.search(r"<pre>(.*)</pre>", page)[1]:
            break
    told = json.loads(said)
    height, width = plan_panel((48, 64), 1, 60).size
    assert (told["readyState"] >= 2, told["videoWidth"], told["videoHeight"]) == (True, width, height)
    assert told["duration"] == pytest.approx(60 / NTSC, abs=0.04)
    assert told["currentTime"] == pytest.approx(1, abs=0.04)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone/o\.webm"):
        draw_all(tmp_path / "gone" / "o.webm", stand_in([0.0], 10.0), iter(()), height=60)


def test_the_header_says_policy_reason_rows_compute_time_and_cause():
    assert frame_notes(stand_in([0.0, 0.1], 10.0, invalid=(1,)).ledger()) == {
        0: FrameNote("dense   5.00 MMAC, 50.0 % saved   250 ms", "dense", ""),
        1: FrameNote("dense   5.00 MMAC   250 ms", "dense", "corrupt"),
    }
    own = {"index": 3, "valid": True, "policy": "rows", "reason": "changed", "seconds": 0.0125, "rows": 353}
    rows = [
        own | {"task": "parts", "rows_computed": 45, "macs_executed": 100, "macs_dense": 900},
        own | {"task": "own", "rows_computed": 44, "macs_executed": 50, "macs_dense": 100},
    ]
    notes = frame_notes(ledger.pa.Table.from_pylist(rows, schema=SCHEMA))
    assert notes[3].text == "rows (changed)   45/353 rows   150 MAC, 85.0 % saved   25.0 ms"
