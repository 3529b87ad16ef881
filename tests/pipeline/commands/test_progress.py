"""What is told while a run goes on and at its end: readable for one input and for thousands."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from deltascene.pipeline.commands import progress, progress_text
from deltascene.pipeline.commands.job_table import JobRow, cut_rows, failed_lines, print_table
from deltascene.pipeline.commands.progress import BarEvents, JsonEvents, LineEvents
from deltascene.pipeline.commands.tally import Tally
from deltascene.pipeline.runs.videos_table import VideoRecord
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.workers.jobs import FrameSummary

FRAME = FrameSummary(0, 0.0, True, "", "dense", 40, 100, 0.1)


def spec(number):
    return SourceSpec(f"v{number}", "video", (Path(f"/in/v{number}.avi"),))


def record(number, status="done", **about):
    return VideoRecord(f"v{number}", f"/in/v{number}.avi", status, **about)


def tell(events, inputs, lanes=3, failing=5):
    """A run of as many inputs as are asked for, two frames each; every n-th fails before it has frames."""
    open_ = []
    for number in range(inputs):
        if number % failing == failing - 1:
            events.video_ended(record(number, "failed", cause="no video"), reused=False)
            continue
        events.video_started(spec(number), 2, 0, archive=1000)
        events.frame_done(spec(number), FRAME)
        open_.append(number)
        if len(open_) == lanes:
            done = open_.pop(0)
            events.frame_done(spec(done), FRAME)
            events.frames_lost(spec(done), 1) if done % 1000 == 0 else None
            events.finishing(spec(done), "overlay", 0.5)
            events.video_ended(record(done, frames=2), reused=False)
    return open_


def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=160, height=40)


def test_only_videos_under_way_have_a_bar():
    events = BarEvents(terminal(), 2000)
    open_ = tell(events, 2000)
    shown = [task.description for task in events.progress.tasks]
    assert shown == ["inputs", *(f"v{number}" for number in open_)]
    total = events.progress.tasks[0]
    assert (total.completed, total.total) == (1998, 2000)
    lines = events.progress.console.file.getvalue().splitlines()
    narrow = Console(file=io.StringIO(), width=60)
    narrow.print(events.progress.get_renderable())
    seen = narrow.file.getvalue().splitlines()
    assert len(seen) <= 6
    assert max(map(len, seen)) <= 60
    for words in (
        "1\u202f598 done · 400 failed · 2 under way · ",
        " frames · ",
        " fps · ",
        "left · 60.0 % compute saved",
    ):
        assert words in " ".join(line.strip() for line in seen)
    assert sum("failed (no video)" in line for line in lines) == progress_text.FAILURES
    assert sum("errors.jsonl lists them all" in line for line in lines) == 1
    assert len(lines) < 50


def test_of_many_lanes_a_few_bars_are_seen():
    events = BarEvents(terminal(), 100)
    for number in range(30):
        events.video_started(spec(number), 2, 0)
    seen = [task.description for task in events.progress.tasks if task.visible]
    assert seen == ["inputs", *(f"v{number}" for number in range(progress.BARS))]
    events.video_ended(record(0), reused=False)
    assert [task.description for task in events.progress.tasks if task.visible][-1] == f"v{progress.BARS}"


def test_the_only_video_keeps_its_bar():
    events = BarEvents(terminal(), 1)
    events.video_started(spec(0), 2, 0)
    events.frame_done(spec(0), FRAME)
    events.video_ended(record(0), reused=False)
    (total, bar) = events.progress.tasks
    assert not total.visible
    assert "fps · 60.0% compute saved · done" in bar.fields["note"]


def test_lines_of_a_long_job_are_few_and_those_of_a_short_one_tell_each_input(monkeypatch):
    long, short = io.StringIO(), io.StringIO()
    tell(LineEvents(long, 2000), 2000)
    assert len(long.getvalue().splitlines()) < 60
    tell(LineEvents(short, 10), 10)
    for line in ("v0: 2 frames", "v0: done, 2 frames", "v4: failed (no video), 0 frames"):
        assert line in short.getvalue().splitlines()
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    told = io.StringIO()
    tell(LineEvents(told, 2000), 40)
    assert " · 1\u202f960 waiting · " in told.getvalue()
    assert " left · 60.0 % compute saved" in told.getvalue()


def test_json_events_have_the_same_facts(monkeypatch):
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    out = io.StringIO()
    tell(JsonEvents(out, 20), 20)
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    last = [event for event in events if event["event"] == "progress"][-1]
    assert {name: last[name] for name in ("inputs", "done", "failed", "partial", "under_way", "waiting")} == {
        "inputs": 20, "done": 14, "failed": 4, "partial": 0, "under_way": 2, "waiting": 0,
    }  # fmt: skip
    assert last["saved"] == pytest.approx(0.6)
    assert (last["frames"], last["retries"]) == (29, 1)
    assert last["left_s"] == pytest.approx(3 / last["fps"], abs=2e-3)
    ended = next(event for event in events if event["event"] == "video_ended")
    assert {"retries", "seconds", "computed"} <= set(ended)


def test_inputs_that_wait_are_taken_to_be_as_long_as_those_met_and_reused_ones_not_among_them():
    tally = Tally(10)
    assert tally.left_s is None
    for number in range(4):
        tally.end(record(number, frames=50), reused=True)
    tally.end(record(4, "failed"), reused=False)
    tally.begin("v5", 12)
    for _ in range(2):
        tally.add("v5", FRAME)
    assert tally.waiting == 4
    assert tally.left_frames == 10 + 4 * 12 / 2
    assert tally.left_s > 0


def rows(count):
    statuses = ["done", "done", "failed", "waiting", "partial"]
    return [JobRow(record(number, statuses[number % 5], cause="why" * (number % 5 == 2))) for number in range(count)]


def test_a_long_table_is_cut_failures_first():
    assert cut_rows(rows(40)) == rows(40)
    cut = cut_rows(rows(10_000))
    assert len(cut) == 40
    assert {row.record.status for row in cut} == {"failed"}
    assert [row.record.status for row in cut_rows(rows(45), 20)] == ["failed"] * 9 + ["partial"] * 9 + ["done"] * 2


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_table_is_one_line_a_row_whatever_stands_in_it(is_terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=100, color_system=None)
    hostile = record(1, "failed", cause="\x1b[31m[red]\n" + "very " * 99, retries=2, seconds=3.0, computed=30)
    long = VideoRecord("x" * 107, "s", "done", frames=1200, seconds=4.0, computed=800, selected=1200)
    print_table([JobRow(hostile), JobRow(long)], console, Path("/out/videos.parquet"))
    text = out.getvalue()
    assert "\x1b" not in text
    lines = [line for line in text.splitlines() if "failed" in line or "done" in line]
    assert len(lines) == 2
    assert r"\x1b[31m[red]" in lines[0]
    for cell in ("2", "3.0", "10.0"):
        assert cell in lines[0].replace("│", " ").split()
    for cell in ("1200", "4.0", "200.0"):
        assert cell in lines[1].replace("│", " ").split()


def test_what_is_left_out_is_said():
    out = io.StringIO()
    print_table(rows(10_000), Console(file=out, width=100), Path("/out/videos.parquet"))
    assert "… and 9\u202f960 more; all in /out/videos.parquet" in out.getvalue()
    assert len(out.getvalue().splitlines()) == 42
    assert failed_lines([row.record for row in rows(1000)]).splitlines()[-1] == "  … and 180 more"
