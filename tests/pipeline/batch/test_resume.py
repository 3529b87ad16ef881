"""Going on with an earlier run: nothing is done twice, nothing of another key is mixed in, damage is done again."""

import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from equal_runs import compare_runs

from deltascene import open_run
from deltascene.cache.zarr_store import ZarrStore
from deltascene.pipeline.batch import flow, plan_video
from deltascene.pipeline.runs.videos_table import read_records, write_records

# float32, as on a busy machine two runs may not find the same type faster.
QUIET = ["--set", "save.video=false", "--set", "numerics.threads=1", "--dtype", "float32"]
SEGMENTS_OF_4 = ["--set", "segment.frames=4", *QUIET]


def test_running_again_redoes_nothing_and_run_only_keys_may_change(run_cli, tiny, make_clip, tmp_path):
    """And options that aren't given are as the run was begun; a preset that nobody chose is told once."""
    clip, out = make_clip(10), tmp_path / "out"
    _, _, error = run_cli("run", clip, "-o", out, "--model", tiny, "--stride", 2, *QUIET)
    assert error.startswith("note: preset balanced, as none was chosen: ")
    assert error.count("\n") == 1
    before = (out / "videos/clip/done.json").stat().st_mtime_ns
    for options in (
        ["--set", "source.threads=2"],
        ["--preset", "balanced", "--stride", 2, "--set", "policy.reuse=true"],
    ):
        code, text, error = run_cli("run", clip, "-o", out, "--json", *options)
        events = [json.loads(line) for line in text.splitlines()]
        assert (code, error) == (0, "")
        assert [event["event"] for event in events] == ["video_ended", "run_ended"]
        assert events[0]["reused"]
        assert (out / "videos/clip/done.json").stat().st_mtime_ns == before
    assert run_cli("run", clip, "-o", out, "--dry-run")[1].startswith("clip: 5 frames")
    for options in (["--preset", "exact"], ["--stride", 1]):
        assert run_cli("run", clip, "-o", out, "--dry-run", *options)[0] == 2


def test_ids_stay_when_files_are_added_and_results_lie_among_the_inputs(run_cli, tiny, make_clip, tmp_path):
    """Also those that earlier versions made: of names that aren't ASCII they kept `_`."""
    inputs, out, events = tmp_path / "in", tmp_path / "in/out", []
    inputs.mkdir()
    command = [
        "run",
        f"{inputs}/**",
        "-o",
        out,
        "--model",
        tiny,
        "--json",
        "--no-archive",
        "--set",
        "numerics.threads=1",
    ]

    def run(*added):
        for name in added:
            shutil.copy(make_clip(2), inputs / name)
        code, text, error = run_cli(*command)
        assert code == 0, error
        events[:] = [json.loads(line) for line in text.splitlines()]
        return {each["id"]: each["reused"] for each in events if each["event"] == "video_ended"}

    assert run("a.avi", "日本.avi") == {"a": False, "日本": False}
    records = read_records(out / "videos.parquet")
    done = json.loads((out / "videos/日本/done.json").read_text(encoding="utf-8"))
    (out / "videos/日本").rename(out / "videos/__")
    (out / "videos/__/done.json").write_text(json.dumps(done | {"id": "__"}))
    write_records(out / "videos.parquet", [replace(each, id={"日本": "__"}.get(each.id, each.id)) for each in records])
    assert (out / "videos/a/overlay.webm").is_file()
    again = run("A.avi", "中国.avi")
    assert len(again) == 4
    assert {id_ for id_, reused in again.items() if reused} == {"a", "__"}
    assert re.fullmatch("A-[0-9a-f]{6}", *again.keys() - {"a", "__", "中国"})
    code, _, error = run_cli("run", out / "videos/a/overlay.webm", *command[2:])
    assert (code, error.count("\n")) == (2, 1)
    assert "results of runs (out)" in error


def test_the_same_command_goes_on_even_if_another_dtype_measures_as_faster_now(
    run_cli, tiny, make_clip, tmp_path, monkeypatch
):
    from deltascene.pipeline.numerics import dtype

    options = [make_clip(4), "-o", tmp_path / "out", "--model", tiny, *QUIET[:-2]]
    monkeypatch.setattr(dtype, "multiplies_bfloat16", lambda: True)
    for ratio in (0.5, 2.0):
        monkeypatch.setattr(dtype, "_times_as_fast", lambda numerics, ratio=ratio: ratio)
        code, text, error = run_cli("run", *options)
        assert code == 0, error
    assert "by an earlier run" in text
    code, _, error = run_cli("run", *options, "--set", "numerics.dtype=bfloat16")
    assert code == 2
    assert "--set numerics.dtype=bfloat16: " in error
    assert "/out has float32; " in error


def test_another_config_input_or_model_in_the_same_out_is_refused_by_the_differing_key(
    run_cli, tiny, make_clip, tmp_path
):
    clip, out = make_clip(4), tmp_path / "out"
    assert run_cli("run", clip, "-o", out, "--model", tiny, *QUIET)[0] == 0
    code, _, error = run_cli("run", clip, "-o", out, "--model", tiny, "--stride", 2, *QUIET)
    assert (code, error.count("\n")) == (2, 1)
    assert f"--stride 2: {out} has 1; " in error
    shutil.copy(make_clip(5), clip)
    code, _, error = run_cli("run", clip, "-o", out, "--model", tiny, *QUIET)
    assert (code, error.count("\n")) == (2, 1)
    assert "was made from another clip.avi" in error
    assert run_cli("run", clip, "-o", out, "--model", tiny, "--force", *QUIET)[0] == 0
    assert len(open_run(out)["clip"]) == 5


@pytest.fixture(scope="module")
def whole(run_cli, tiny, make_clip, tmp_path_factory):
    """A finished run of six segments; the parts that its arrays were joined from are still there."""
    call, out = ["run", make_clip(21), "--model", tiny, *SEGMENTS_OF_4], tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, "_tidy", lambda *_: None)
        assert run_cli(*call, "-o", out)[0] == 0
    return call, out


def test_resume_after_a_lost_segment_equals_the_undisturbed_run(run_cli, whole, tmp_path, untidied):
    call, torn = whole[0], shutil.copytree(whole[1], tmp_path / "torn")
    folder = torn / "videos/clip"
    (folder / "done.json").unlink()
    (folder / "segments/00000012.zip").unlink()
    (folder / "segments/00000016.zip").write_bytes(b"torn")
    _, text, _ = run_cli(*call, "-o", torn, "--json")
    events = [json.loads(line) for line in text.splitlines()]
    assert events[0] == {**events[0], "event": "video_started", "frames": 21, "sealed": 13}  # all but 12 to 19
    assert sum(event["event"] == "frame" for event in events) == 8
    assert not (found := compare_runs(whole[1], torn)), found


@pytest.mark.parametrize("decoder", ["decord", "opencv"])
def test_a_store_goes_on_with_the_decoder_that_it_was_begun_with(
    run_cli, tiny, make_clip, tmp_path, untidied, monkeypatch, decoder
):
    if decoder == "decord":
        pytest.importorskip("decord")
    call, out, torn = ["run", make_clip(9), "--model", tiny, *SEGMENTS_OF_4], tmp_path / "out", tmp_path / "torn"
    probe = plan_video.probe
    with monkeypatch.context() as patch:  # earlier versions chose it by themselves
        patch.setattr(plan_video, "probe", lambda spec, **how: probe(spec, **how | {"decoder": decoder}))
        assert run_cli(*call, "-o", out)[0] == 0
    shutil.copytree(out, torn)
    (torn / "videos/clip/done.json").unlink()
    (torn / "videos/clip/segments/00000004.zip").unlink()
    _, text, _ = run_cli(*call, "-o", torn, "--json")
    assert json.loads(text.splitlines()[0])["sealed"] == 5  # frames 0 to 3, and 8
    assert not (found := compare_runs(out, torn)), found


@pytest.mark.parametrize("name", ["parts/c/0/0/0", "height/zarr.json", "ledger.parquet"])
def test_a_changed_byte_in_a_sealed_segment_is_noticed_and_redone(run_cli, whole, tmp_path, untidied, harm, name):
    call, out = whole[0], shutil.copytree(whole[1], tmp_path / "out")
    folder = out / "videos/clip"
    (folder / "done.json").unlink()
    harm(folder / "segments/00000000.zip", name)
    _, text, _ = run_cli(*call, "-o", out, "--json")
    assert json.loads(text.splitlines()[0])["sealed"] == 17  # the other segments stay


@pytest.mark.parametrize(("number", "preset"), [(signal.SIGINT, "exact"), (signal.SIGKILL, "balanced")])
def test_stopped_or_killed_it_goes_on_and_equals_the_undisturbed_run(
    run_cli, tiny_delta, make_clip, tmp_path, number, preset
):
    clip, out = make_clip(160), tmp_path / "out"
    options = ["--model", tiny_delta, "--preset", preset, "--set", "segment.frames=16", *QUIET]
    command = [sys.executable, "-m", "deltascene", "run", str(clip), "-o", str(out), "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "frame" and (out / "videos/clip/segments/00000000.zip").exists():
            process.send_signal(number)
            break
    process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    if number == signal.SIGINT:
        partial = open_run(out)["clip"]
        assert partial.status == "partial"
        assert 0 < len(partial) < 160
        assert len(partial) % 16 == 0
        assert partial.frame(len(partial) - 1)["parts"].shape == (48, 64)
    assert run_cli("run", clip, "-o", out, *options)[0] == 0
    run_cli("run", clip, "-o", tmp_path / "whole", *options)
    assert not (found := compare_runs(tmp_path / "whole", out)), found
    assert ZarrStore(open_run(out)["clip"].files.activations).starts() == tuple(range(0, 160, 16))


def test_a_folder_of_other_files_is_not_written_into(run_cli, tiny, make_clip, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/holiday.txt").touch()
    code, _, error = run_cli("run", make_clip(2), "-o", tmp_path / "photos", "--model", tiny)
    assert code == 2
    assert "found other files" in error
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["holiday.txt"]


def test_a_harmed_finished_store_is_noticed_and_healed(run_cli, whole, tmp_path):
    call, out = whole[0], shutil.copytree(whole[1], tmp_path / "out")
    shutil.rmtree(out / "videos/clip/segments")  # as a run leaves it
    shutil.rmtree(out / "videos/clip/predictions.zarr/height/c/0")
    _, text, _ = run_cli(*call, "-o", out, "--json")
    assert json.loads(text.splitlines()[0])["sealed"] == 0  # its parts are gone: all of it is done again
    assert not (found := compare_runs(whole[1], out)), found
