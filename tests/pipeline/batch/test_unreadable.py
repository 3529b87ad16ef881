"""A video without a valid frame isn't done: status, cause, exit code, report and the next run say so."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deltascene import open_run
from deltascene.errors import ExitCode
from deltascene.pipeline.sources.reader import Reader

OPTIONS = ["--set", "numerics.threads=1", "--set", "segment.frames=4", "--dtype", "float32", "--save", "arrays"]
FRAMES = 6
CAUSE = "expected valid frames; found none in 6 (5 corrupt, 1 missing); repair it and run the same command again"


def damaged(frame):
    """A frame as a decoder gives it that can't decode it."""
    cause = "missing" if frame.index == 5 else "corrupt"
    return replace(frame, valid=False, cause=cause, image=None if cause == "missing" else frame.image)


@pytest.fixture
def clips(make_clip, tmp_path):
    """A video whose frames are all damaged, and one that is whole."""
    bad, good = make_clip(FRAMES, name="bad"), make_clip(FRAMES, name="good")
    return [bad.rename(tmp_path / "bad.avi"), good.rename(tmp_path / "good.avi")]


@pytest.fixture
def bad_decoded(monkeypatch):
    """Decoding gives no valid frame of `bad`; undone by `undo`."""
    real = Reader.__next__

    def decoded(self):
        frame = real(self)
        return damaged(frame) if frame.source == "bad" else frame

    monkeypatch.setattr(Reader, "__next__", decoded)
    return monkeypatch


def test_a_video_without_a_valid_frame_is_unreadable(run_cli, tiny_delta, clips, tmp_path, bad_decoded):
    out = tmp_path / "out"
    code, text, error = run_cli("run", *clips, "-o", out, "--model", tiny_delta, "--tasks", "parts", *OPTIONS)
    assert code == ExitCode.INPUT_FAILED, error
    assert f"bad: unreadable ({clips[0]}: {CAUSE}" in " ".join(text.split())
    assert "1 of 2 inputs done, 12 frames, 6 of them invalid" in text
    (line,) = (out / "errors.jsonl").read_text().splitlines()
    assert (json.loads(line)["id"], json.loads(line)["type"]) == ("bad", "UnreadableSource")

    bad, good = open_run(out).videos
    assert (bad.status, bad.record.frames, bad.record.invalid) == ("unreadable", FRAMES, FRAMES)
    assert CAUSE in bad.record.cause
    assert good.status == "done"
    assert not bad.frame(0).valid  # its results are kept
    assert bad.ledger().num_rows == FRAMES
    np.testing.assert_array_equal(bad.arrays.index, range(FRAMES))

    report = json.loads((out / "report.json").read_text())
    assert [video["status"] for video in report["videos"]] == ["unreadable", "done"]
    assert report["headline"]["what"].endswith("1 input had no valid frame.")
    page = (out / "report.html").read_text()
    assert '<span class="badge unreadable">unreadable</span>' in page
    code, text, _ = run_cli("jobs", out)
    assert code == 0
    assert "not under way: 1 unreadable, 1 done" in text

    code, text, error = run_cli("backfill", out, "--task", "height")
    assert code == 0, error
    assert "height: 2 of 2 videos done" in text
    assert open_run(out)["bad"].status == "unreadable"


@pytest.mark.nightly
def test_it_is_tried_again_and_may_have_been_repaired(run_cli, tiny, clips, tmp_path, bad_decoded, make_clip):
    out = tmp_path / "out"
    arguments = ["run", *clips, "-o", out, "--model", tiny, "--json", *OPTIONS]
    assert run_cli(*arguments)[0] == ExitCode.INPUT_FAILED
    code, text, error = run_cli(*arguments, "--only-failed")
    assert code == ExitCode.INPUT_FAILED, error
    events = [json.loads(line) for line in text.splitlines()]
    ended = {event["id"]: event for event in events if event["event"] == "video_ended"}
    assert (ended["bad"]["status"], ended["bad"]["computed"], ended["bad"]["reused"]) == ("unreadable", FRAMES, False)
    assert "good" not in ended
    assert events[-1]["failed"] == ["bad"]

    bad_decoded.undo()
    make_clip(FRAMES + 1, name="bad").replace(clips[0])  # repaired: other bytes
    code, _, error = run_cli(*arguments)
    assert code == 0, error
    assert open_run(out)["bad"].status == "done"
    assert open_run(out)["bad"].record.frames == FRAMES + 1
    assert not (out / "errors.jsonl").exists()


def test_a_decoder_that_reads_a_file_wrongly_is_refused_by_name(run_cli, tiny, tmp_path):
    """OpenCV knows no flips; the same file is read without the option."""
    flipped = Path(__file__).parents[2] / "data" / "odd_videos" / "hflip.mp4"
    options = ["-o", tmp_path / "out", "--model", tiny, "--set", "save.video=false", "--dtype", "float32"]
    code, text, _ = run_cli("run", flipped, *options, "--decoder", "opencv")
    assert code == 3
    text = " ".join(text.split())
    assert "expected a file that opencv reads rightly" in text
    assert "leave the decoder at auto" in text
    code, _, error = run_cli("run", flipped, *options, "--decoder", "ffmpeg")
    assert (code, error.count("\n")) == (2, 1)
    assert "source.decoder" in error
