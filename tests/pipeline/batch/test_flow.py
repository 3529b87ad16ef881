"""The batch flow on real files: outputs, overlays, accuracy, wrong use, locks, a stop while drawing."""

import json
import os
import signal
import time
import zipfile

import numpy as np
import pytest
from read_video import pictures

from deltascene import NotPredicted, open_run

# float32, as on a busy machine two runs may not find the same type faster.
QUIET = ["--set", "save.video=false", "--set", "numerics.threads=1", "--dtype", "float32"]


def test_a_run_leaves_everything_and_open_run_reads_it(run_cli, tiny, make_clip, tmp_path):
    options = ["--model", tiny, "--preset", "exact", "--set", "segment.frames=8"]
    code, text, _ = run_cli("run", make_clip(20), "-o", tmp_path / "out", *options)
    assert code == 0, text
    assert "clip: writing overlay" in text
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files >= {"run.yaml", "videos.parquet", "report.html", "report.json"}
    video = open_run(tmp_path / "out")["clip"]
    assert (video.status, len(video), video.fps, video.size) == ("done", 20, pytest.approx(10), (48, 64))
    assert sorted(path.name for path in video.folder.iterdir()) == [
        "activations.zarr", "done.json", "frames.parquet", "overlay.webm", "predictions.zarr",
    ]  # fmt: skip
    view = video.frame(9)
    assert (view.index, view.pts_s) == (9, pytest.approx(0.9))
    assert view["height"].dtype == np.float32
    assert view["parts"].shape == (48, 64)
    table = video.ledger()
    assert table.num_rows == 20 * 4
    assert table["macs_executed"].to_pylist() == table["macs_dense"].to_pylist()
    assert set(table["policy"].to_pylist()) == {"dense"}
    assert min(table["seconds"].to_pylist()) > 0


def test_predictions_are_those_of_the_engine(run_cli, tiny, make_clip, tmp_path):
    from deltascene import Engine

    clip = make_clip(6)
    run_cli("run", clip, "-o", tmp_path / "out", "--model", tiny, *QUIET)
    video = open_run(tmp_path / "out")["clip"]
    for place, result in enumerate(Engine.load(tiny, overrides=["numerics.dtype=float32"]).run(clip)):
        for task, prediction in result.predictions.items():
            kept = prediction.kind.decode(prediction.kind.stored.encode(prediction.array))
            np.testing.assert_array_equal(video.frame(place)[task], kept)


def test_a_task_that_was_not_asked_for_is_absent(run_cli, tiny, make_clip, tmp_path):
    run_cli("run", make_clip(3), "-o", tmp_path / "out", "--model", tiny, "--tasks", "height", *QUIET)
    view = open_run(tmp_path / "out")["clip"].frame(0)
    assert view.tasks == ("height",)
    with pytest.raises(NotPredicted, match="the run predicted height"):
        view["parts"]


@pytest.mark.parametrize("times", [1, 2])
def test_stopped_while_drawing_the_next_run_draws(run_cli, tiny, make_clip, tmp_path, monkeypatch, times):
    from deltascene.pipeline.workers import overlay_piece

    def stopped(path, drawn_by, parts, video):
        yield 0.0
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
        yield 0.5
        raise AssertionError("drawing went on")

    options = [make_clip(6), "-o", tmp_path / "out", "--model", tiny]
    with monkeypatch.context() as patch:
        patch.setattr(overlay_piece, "join_pieces", stopped)
        code, _, error = run_cli("run", *options)
    assert code == 130
    assert (
        "stopping as soon as the open segments (up to 256 frames each) are finished; stop again to end at once" in error
    )
    assert error.endswith("stopped at once; finished segments are kept; run the same command again to continue\n") == (
        times == 2
    )
    video = open_run(tmp_path / "out")["clip"]
    assert (video.status, len(video)) == ("partial", 6) if times == 1 else video.status != "done"
    code, text, _ = run_cli("run", *options, "--json")
    assert code == 0
    assert not any(json.loads(line)["event"] == "frame" for line in text.splitlines())
    assert (video.folder / "overlay.webm").is_file()


def test_stride_and_times_choose_the_source_frames(run_cli, tiny, make_clip, tmp_path):
    options = ["--start", "0.5", "--end", "2", "--stride", 4, "--set", "segment.frames=2"]
    run_cli("run", make_clip(30), "-o", tmp_path / "out", "--model", tiny, *options, *QUIET)
    video = open_run(tmp_path / "out")["clip"]
    assert [video.frame(place).index for place in range(len(video))] == [5, 9, 13, 17]
    assert video.fps == pytest.approx(2.5)


def test_predictions_at_the_frames_own_size(run_cli, tiny, make_clip, tmp_path):
    run_cli("run", make_clip(3), "-o", tmp_path / "out", "--model", tiny, "--save-size", "frame", *QUIET)
    video = open_run(tmp_path / "out")["clip"]
    assert video.size == (72, 96)
    view = video.frame(1)
    assert view["flow"].shape == (72, 96, 3)
    np.testing.assert_allclose(np.linalg.norm(view["flow"], axis=-1), 1, atol=0.01)
    assert set(np.unique(view["parts"])) <= {0, 1, 2}


def test_pictures_and_npz(run_cli, tiny, make_clip, tmp_path):
    run_cli("run", make_clip(2), "-o", tmp_path / "out", "--model", tiny, "--save", "png,npz")
    folder = tmp_path / "out/videos/clip"
    assert not (folder / "overlay.webm").exists()
    assert len(list(folder.glob("png/height/*.png"))) == 2
    with np.load(folder / "npz/000001.npz") as data:
        np.testing.assert_array_equal(data["height"], open_run(tmp_path / "out")["clip"].frame(1)["height"])


def test_a_single_frame_is_fine(run_cli, tiny, make_clip, tmp_path):
    assert run_cli("run", make_clip(1), "-o", tmp_path / "out", "--model", tiny)[0] == 0
    assert len(open_run(tmp_path / "out")["clip"]) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.mp4"], "nowhere.mp4"),
        (["CLIP", "--tasks", "parts,heigth"], "did you mean 'height'"),
        (["CLIP", "--preset", "exat"], "did you mean 'exact'"),
        (["CLIP", "--set", "segment.frmes=3"], "did you mean 'segment.frames'"),
        (["CLIP", "--set", "segment.frames=0"], "segment.frames"),
        (["CLIP", "--set", "segment.frames"], "expected key=value"),
        (["CLIP", "--model", "romms"], "did you mean 'rooms'"),
        (["CLIP", "--size", "big"], "short side in pixels or H,W"),
        (["CLIP", "--start", "1:2:3:4"], "MM:SS"),
        (["CLIP", "--save", "gif"], "expected some of"),
        (["CLIP", "-o", "/proc/nowhere"], "can't be written"),
        (["CLIP", "-o", "CLIP"], "passed over: results of runs"),
        (["CLIP", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["CLIP", "--truth", "nowhere.npz"], "nowhere.npz"),
    ],
)
def test_wrong_use_is_one_clear_line_and_exit_2(run_cli, tiny, make_clip, tmp_path, arguments, says):
    clip = str(make_clip(2))
    call = ["run", *(clip if argument == "CLIP" else argument for argument in arguments)]
    defaults = (["--model", tiny] if "--model" not in call else []) + (
        ["-o", tmp_path / "out"] if "-o" not in call else []
    )
    code, _, error = run_cli(*call, *defaults, *QUIET)
    assert code == 2, error
    assert error.count("\n") == 1
    assert says in error
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").glob("videos/*"))


def test_two_runs_do_not_write_into_one_folder(run_cli, tiny, make_clip, tmp_path):
    out = tmp_path / "out"
    path = out / "locks/00000007.json"
    path.parent.mkdir(parents=True)
    lock = {"token": "x", "pid": os.getppid(), "host": os.uname().nodename, "beat_s": time.time()}
    path.write_text(json.dumps(lock))
    code, _, error = run_cli("run", make_clip(2), "-o", out, "--model", tiny)
    assert code == 2
    assert "is writing there" in error
    path.write_text(json.dumps({**lock, "pid": 2**22 + 1}))  # no such process: a run that was killed
    assert run_cli("run", make_clip(2), "-o", out, "--model", tiny, *QUIET)[0] == 0


def test_dry_run_writes_nothing(run_cli, tiny, make_clip, tmp_path):
    code, text, _ = run_cli("run", make_clip(12), "-o", tmp_path / "out", "--model", tiny, "--dry-run", "--stride", 3)
    assert code == 0
    assert "4 frames" in text
    assert not (tmp_path / "out").exists()


def test_accuracy_against_truth_is_printed_and_kept(run_cli, tiny, make_clip, tmp_path):
    clip = make_clip(3)
    run_cli("run", clip, "-o", tmp_path / "a", "--model", tiny, *QUIET)
    video = open_run(tmp_path / "a")["clip"]
    truth = {
        task: np.stack([video.arrays.stored(task, place) for place in range(3)], axis=-1)
        for task in ("parts", "height")
    }
    np.savez_compressed(tmp_path / "truth.npz", **truth)
    code, text, _ = run_cli(
        "run", clip, "-o", tmp_path / "b", "--model", tiny, "--truth", tmp_path / "truth.npz", *QUIET
    )
    assert code == 0
    assert "miou 1.000" in text
    accuracy = open_run(tmp_path / "b")["clip"].accuracy
    assert accuracy is not None
    assert accuracy["height"]["abs_rel"] == 0


def test_a_truncated_file_gives_the_frames_there_are_and_says_so(run_cli, tiny, make_clip, tmp_path):
    whole = make_clip(30).read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    code, text, _ = run_cli("run", cut, "-o", tmp_path / "out", "--model", tiny, *QUIET)
    assert code == 0, text
    video = open_run(tmp_path / "out")["cut"]
    assert (video.status, video.record.cause) == ("done", "truncated")
    assert 10 < len(video) < 30


def test_an_image_sequence_runs_at_the_rate_asked_for(run_cli, tiny, make_clip, tmp_path):
    from PIL import Image

    folder = tmp_path / "shots"
    folder.mkdir()
    for number in (1, 2, 10):
        Image.new("RGB", (96, 72), (number * 20, 0, 0)).save(folder / f"shot{number}.png")
    assert run_cli("run", folder, "-o", tmp_path / "out", "--model", tiny, "--fps", "5", *QUIET)[0] == 0
    video = open_run(tmp_path / "out")["shots"]
    assert [video.frame(place).pts_s for place in range(len(video))] == pytest.approx([0, 0.2, 1.8])  # by their numbers


def test_a_bundle_of_ones_own_runs_end_to_end_without_code(run_cli, make_clip, tmp_path):
    """Another timm ViT, a one-channel scalar and heatmaps: `models new`, then `run`."""
    model = tmp_path / "mine"
    tasks = ["--task", "anomaly:scalar", "--task", "hands:heatmaps:3"]
    backbone = ["--backbone", "timm:vit_tiny_patch16_224", "--random", "--size", "48,64"]
    code, text, error = run_cli("models", "new", model, *backbone, *tasks)
    assert code == 0, error
    assert "untrained" in text
    assert run_cli("run", make_clip(4), "-o", tmp_path / "out", "--model", model)[0] == 0
    view = open_run(tmp_path / "out")["clip"].frame(3)
    assert view["anomaly"].shape == (48, 64)
    assert view["hands"].shape == (48, 64, 3)
    assert (tmp_path / "out/videos/clip/overlay.webm").stat().st_size > 0


@pytest.mark.parametrize("truth", ["array.npy", "folder"])
def test_truth_that_is_none_is_refused_before_the_run(run_cli, tiny, make_clip, tmp_path, truth):
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "array.npy", np.zeros(3))
    code, _, error = run_cli("run", make_clip(2), "-o", tmp_path / "o", "--model", tiny, "--truth", tmp_path / truth)
    assert (code, error.count("\n")) == (2, 1)
    assert not (tmp_path / "o").exists()


def pieces_in(out):
    """Pieces of overlays in a video's sealed segments."""
    names = []
    for path in (out / "videos/clip/segments").glob("*.zip"):
        with zipfile.ZipFile(path) as part:
            names += part.namelist()
    return sum(name.startswith("overlay-") for name in names)


def test_an_overlay_is_joined_from_segments_or_drawn_anew_where_they_have_none(
    run_cli, tiny, make_clip, tmp_path, untidied
):
    options = [make_clip(10), "--model", tiny, "--preset", "balanced", "--set", "segment.frames=4"]
    out, late = tmp_path / "out", tmp_path / "late"
    assert run_cli("run", *options, "-o", out)[0] == 0
    assert run_cli("run", *options, "-o", late, "--save", "arrays")[0] == 0
    (late / "videos/clip/done.json").unlink()
    assert (pieces_in(out), pieces_in(late)) == (3, 0)
    code, text, _ = run_cli("run", *options, "-o", late, "--save", "video", "--json")
    assert code == 0
    assert not any(json.loads(line)["event"] == "frame" for line in text.splitlines())
    joined, drawn = ([*pictures(open_run(each)["clip"].files.overlay)] for each in (out, late))
    assert len(joined) == len(drawn) == 10
    below = joined[0].shape[0] // 12  # the line on top says how long a frame took
    for one, other in zip(joined, drawn, strict=True):
        assert np.abs(one[below:].astype(int) - other[below:]).mean() < 3


def test_a_killed_encoder_costs_its_segment(run_cli, tiny, make_clip, tmp_path, monkeypatch):
    from deltascene.pipeline.drawing.webm import WebmWriter

    real_write, killed = WebmWriter.write, []

    def write(self, picture, at_ms):
        if at_ms == 2 and not killed:
            killed.append(self._process.pid)
            os.kill(killed[0], signal.SIGKILL)
        real_write(self, picture, at_ms)

    monkeypatch.setattr(WebmWriter, "write", write)
    options = ["--model", tiny, "--set", "segment.frames=4", "--set", "numerics.threads=1"]
    code, text, error = run_cli("run", make_clip(10), "-o", tmp_path / "out", *options)
    assert code == 0, text + error
    assert killed
    assert "a worker was lost; its segment is computed again" in text
    video = open_run(tmp_path / "out")["clip"]
    assert (len(video), video.record.retries, len([*pictures(video.files.overlay)])) == (10, 1, 10)
