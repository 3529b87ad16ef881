"""The report: its numbers are the ledger's, its page says the same as its JSON, and the page stands alone."""

import html as html_module
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltascene import open_run
from deltascene.pipeline.cli import app
from deltascene.pipeline.report import build
from deltascene.pipeline.report.build import write_report
from deltascene.pipeline.report.numbers import frame_table
from deltascene.pipeline.report.page import FORMS, FRAME_TABLE, frame_cells, look_up, task_cells
from deltascene.pipeline.report.plots import runs, stacked_paths, step_line
from deltascene.pipeline.report.sentences import saved_line
from deltascene.pipeline.report.series import ceiling, evenly, film_places, in_steps, listed_frames, series
from deltascene.pipeline.report.totals import totals
from deltascene.pipeline.runs import ledger, reader
from deltascene.pipeline.runs.folder import RunFolder
from deltascene.pipeline.runs.pilot_record import MEAN
from deltascene.pipeline.runs.videos_table import VideoRecord, write_records

HOSTILE = "a<img src=x onerror=alert(1)>&\"'{{7*7}}"
VOID = {"meta", "link", "img", "br", "hr", "input"}


def table(*rows):
    """A ledger: every row a frame of one task, overridden where it differs from a dense one."""
    dense = {
        "source": "clip", "pts_s": 0.0, "valid": True, "cause": "", "task": "base", "predicted": True,
        "policy": "dense", "reason": "reset", "rows": 10, "rows_computed": 10, "oldest_s": 0.0, "macs_executed": 100,
        "macs_dense": 100, "seconds": 1.0, "seconds_blocks": 0.75, "seconds_decode": 0.25,
    }  # fmt: skip
    return pa.Table.from_pylist(
        [dense | {"index": place} | row for place, row in enumerate(rows)], schema=ledger.SCHEMA
    )


HELD = {"policy": "held", "reason": "unchanged", "rows_computed": 0, "macs_executed": 0, "seconds": 0.1}
WARPED = HELD | {"policy": "warped", "reason": "between", "oldest_s": 0.5}
ROWS = {"policy": "rows", "reason": "changed", "rows_computed": 2, "macs_executed": 20, "seconds": 0.3, "oldest_s": 1.5}
SKIPPED = {
    "policy": "skipped", "reason": "invalid", "valid": False, "cause": "corrupt", "predicted": False,
    "macs_executed": 0, "rows_computed": 0, "oldest_s": None,
}  # fmt: skip


@pytest.fixture
def one_dense_frame_is_enough(monkeypatch):
    """So that a few rows show how times are compared."""
    monkeypatch.setattr("deltascene.pipeline.report.totals.FEWEST_DENSE", 1)


def test_a_few_dense_frames_are_nothing_to_compare_a_time_with():
    """One a segment, the first of them slow: its time would make the saving look larger than it is."""
    few = totals(table({"seconds": 9.0}, *[ROWS] * 8, {}, {}, {}))
    assert few["seconds_saved"] is None
    assert saved_line(few).endswith("average; this run has too few dense frames (4) to compare it with.")
    assert totals(table({"seconds": 9.0}, *[ROWS] * 8, {}, {}, {}, {}))["seconds_saved"]["median"] == pytest.approx(0.7)


def test_dense_frames_save_nothing():
    whole = totals(table({}, {}))
    assert (whole["saved"], whole["seconds_saved"], whole["fps"]) == (0, {"mean": 0, "median": 0}, 1)
    assert saved_line(whole) == "Every token of every frame was computed (dense prediction), so nothing was saved."


@pytest.mark.usefixtures("one_dense_frame_is_enough")
def test_held_frames_save_macs_and_time():
    whole = totals(table({}, HELD, HELD, {}))
    assert whole["saved"] == 1 - 200 / 400
    assert whole["seconds_saved"] == pytest.approx({"mean": 0.45, "median": 0.45})
    assert whole["by_policy"]["held"] == {
        "frames": 2, "share": 0.5, "reasons": {"unchanged": 2}, "rows": 20, "rows_computed": 0,
        "macs_executed": 0, "macs_audit": 0, "macs_dense": 200,
        "frame_seconds": {"median": 0.1, "p95": 0.1, "mean": 0.1},
    }  # fmt: skip
    assert saved_line(whole) == (
        "50.0 % of the MACs of dense prediction were saved: of 4 frames, 2 ran dense, 2 had not changed and kept the"
        " last outputs. Time was saved, too: a frame took 550 ms on average, a dense frame of this run 1000 ms (45.0 %"
        " less); the medians are 550 ms and 1000 ms (45.0 % less)."
    )


@pytest.mark.usefixtures("one_dense_frame_is_enough")
def test_rows_and_warped_frames_are_reported_with_their_reasons_rows_and_age():
    refresh = {"reason": "refresh"}
    whole = totals(table({}, ROWS, WARPED, ROWS | {"rows_computed": 4, "macs_executed": 40}, WARPED, refresh, SKIPPED))
    assert list(whole["by_policy"]) == ["dense", "rows", "warped", "skipped"]
    assert whole["by_policy"]["dense"]["reasons"] == {"reset": 1, "refresh": 1}
    rows = whole["by_policy"]["rows"]
    assert (rows["frames"], rows["rows"], rows["rows_computed"], rows["macs_executed"]) == (2, 20, 6, 60)
    assert rows["share"] == pytest.approx(2 / 7)
    assert whole["oldest_s"] == {"median": 0.5, "max": 1.5}
    assert whole["saved"] == pytest.approx(1 - 260 / 600)
    assert saved_line(whole).startswith(
        "56.7 % of the MACs of dense prediction were saved: of 6 valid frames, 2 ran dense, 2 ran only on changed"
        " tokens (30.0 % of all on average), 2 were warped. Time was saved, too: a frame took 467 ms on average, a"
        " dense frame of this run 1000 ms (53.3 % less); the medians are 300 ms and 1000 ms (70.0 % less)."
    )
    one_each = saved_line(totals(table({}, ROWS, WARPED)))
    assert "of 3 frames, 1 ran dense, 1 ran only on changed tokens (20.0 % of all), 1 was warped." in one_each


@pytest.mark.usefixtures("one_dense_frame_is_enough")
def test_a_slow_first_frame_is_in_both_means_and_in_neither_median():
    whole = totals(table({"seconds": 9.0}, {}, {}, ROWS))
    mean, dense_mean = (9 + 1 + 1 + 0.3) / 4, (9 + 1 + 1) / 3
    assert whole["seconds_saved"] == pytest.approx({"mean": 1 - mean / dense_mean, "median": 0})
    assert saved_line(whole).endswith(
        "Time was saved, too: a frame took 2825 ms on average, a dense frame of this run 3667 ms (23.0 % less);"
        " the medians are 1000 ms and 1000 ms (no less)."
    )


def test_a_task_with_blocks_of_its_own_has_its_own_rows_and_the_frame_the_base_s():
    both = table(
        {"index": 0}, {"index": 1, **ROWS},
        {"index": 0, "task": "own", "rows_computed": 10, "macs_executed": 50, "macs_dense": 50},
        {"index": 1, "task": "own", **ROWS, "rows_computed": 3, "macs_executed": 15, "macs_dense": 50},
    )  # fmt: skip
    frames = frame_table(both)
    assert frames["rows_computed"].to_pylist() == [10, 2]
    listed = listed_frames(both, frames, 10)
    assert listed["tasks"] == {
        "base": [[10, 100, 100, 1.0], [2, 20, 100, 0.3]],
        "own": [[10, 50, 50, 1.0], [3, 15, 50, 0.3]],
    }
    assert task_cells(dict(zip(listed["task_columns"], listed["tasks"]["own"][1], strict=True))) == [
        "3",
        "15",
        "50",
        "300.0",
    ]


@pytest.mark.parametrize("claimed", [0, 100])
def test_invalid_frames_book_no_saving_whatever_their_row_claims(claimed):
    whole = totals(table({}, SKIPPED | {"macs_dense": claimed}, SKIPPED | {"macs_dense": claimed, "cause": "repeated"}))
    assert (whole["saved"], whole["macs_dense"], whole["frames"], whole["invalid"]) == (0, 100, 3, 2)
    assert whole["invalid_by_cause"] == {"corrupt": 1, "repeated": 1}
    assert whole["frame_seconds"]["mean"] == 1
    assert whole["fps"] == pytest.approx(1 / 3)  # their time is spent all the same
    assert saved_line(whole).startswith("Every token of every valid frame was computed")


def test_a_run_without_a_valid_frame_has_no_saving():
    whole = totals(table(SKIPPED))
    assert whole["saved"] is None
    assert saved_line(whole) == "No frame could be predicted."
    assert totals(table())["frames"] == 0


@pytest.mark.usefixtures("one_dense_frame_is_enough")
def test_a_saving_of_macs_that_saves_no_time_is_reported_as_that():
    whole = totals(table({}, ROWS | {"seconds": 1.5}))
    assert whole["saved"] == pytest.approx(0.4)
    assert saved_line(whole).endswith(
        "No time was saved: a frame took 1250 ms on average, a dense frame of this run 1000 ms"
        " (no less); the medians are 1250 ms and 1000 ms (no less)."
    )


def test_sharing_is_a_factor_of_its_own_and_only_where_it_is_known():
    known, unknown = {"macs_single_task": 250}, {"macs_single_task": None}
    assert totals(table(known, known))["sharing"] == 2.5
    assert totals(table(known, known))["saved"] == 0
    assert totals(table(known, SKIPPED))["sharing"] == 2.5
    assert totals(table(known, unknown))["sharing"] is None
    assert totals(table(known, unknown))["macs_single_task"] is None


def test_a_frame_is_the_sum_of_its_tasks_and_its_first_row_speaks_for_it():
    rows = [{"index": 4, "task": "base"}, {"index": 4, "task": "other", "rows_computed": 0, "seconds_head": 0.5}]
    frame = frame_table(table(*rows)).to_pylist()[0]
    assert (frame["macs_executed"], frame["seconds"], frame["rows_computed"]) == (200, 2.0, 10)
    assert frame["seconds_head"] == 0.5


def test_time_outside_the_stages_is_shown_as_other():
    assert totals(table({"seconds": 1.5}))["seconds_by_stage"]["other"] == 0.5
    assert totals(table({}))["seconds_by_stage"]["other"] == 0


def test_drift_of_audits():
    whole = totals(table({"drift": 0.1}, {"drift": 0.3}, {}))
    assert whole["drift"] == {"base": {"audits": 2, "mean": pytest.approx(0.2), "max": 0.3}}


counts = st.integers(0, 10**15)
ledger_rows = st.lists(
    st.fixed_dictionaries(
        {
            "macs_executed": counts,
            "macs_dense": counts,
            "seconds": st.integers(0, 10**6).map(lambda micros: micros / 1e4),
            "valid": st.booleans(),
        }
    ),
    max_size=60,
)


@settings(max_examples=40)
@given(ledger_rows)
def test_totals_are_sums_over_the_ledger(rows):
    whole = totals(table(*rows))
    dense = sum(row["macs_dense"] for row in rows if row["valid"])
    assert whole["macs_executed"] == sum(row["macs_executed"] for row in rows)
    assert whole["macs_dense"] == dense
    assert whole["seconds"] == pytest.approx(sum(row["seconds"] for row in rows))
    assert whole["saved"] == (1 - whole["macs_executed"] / dense if dense else None)


@settings(max_examples=40)
@given(st.integers(1, 300), st.integers(1, 50))
def test_a_series_has_every_frame_once(frames, points):
    rows = frame_table(table(*({"seconds": place % 7 / 8} for place in range(frames))))
    plotted = series(rows, points)
    size = plotted["frames_per_point"]
    sizes = [min(size, frames - start) for start in range(0, frames, size)]
    assert len(plotted["index"]) == len(sizes) <= points
    assert plotted["index"] == list(range(0, frames, size))
    total = sum(mean * count for mean, count in zip(plotted["seconds"], sizes, strict=True))
    assert total == pytest.approx(sum(rows["seconds"].to_pylist()), abs=1e-3)


def test_long_videos_list_evenly_sampled_frames_and_say_how_many_there_are():
    ledger_ = table(*({"seconds": place} for place in range(101)))
    listed = listed_frames(ledger_, frame_table(ledger_), 11)
    assert listed["total"] == 101
    assert [row[0] for row in listed["rows"]] == list(range(0, 101, 10))
    assert [row[3] for row in listed["tasks"]["base"]] == list(range(0, 101, 10))


def test_a_series_tells_rows_age_and_the_shares_of_policies():
    plotted = series(frame_table(table({}, ROWS, WARPED, ROWS)), 2)
    assert plotted["rows_share"] == [12 / 20, 2 / 20]
    assert plotted["oldest_s"] == [1.5, 1.5]
    assert plotted["policy_shares"] == {"dense": [0.5, 0], "rows": [0.5, 0.5], "warped": [0, 0.5]}
    assert list(zip(plotted["policy"], plotted["reason"], strict=True)) == [("dense", "reset"), ("warped", "between")]
    assert series(frame_table(table()), 2)["policy_shares"] == {}


def test_the_film_shows_both_ends_cuts_and_refreshes_and_no_wide_gap():
    rows = [ROWS if place % 2 else WARPED for place in range(200)]
    rows[0], rows[90], rows[91] = {}, {"reason": "cut"}, {"reason": "cut"}
    rows[140] = {"reason": "refresh"}
    rows[33] = ROWS | {"rows_computed": 9}
    places = film_places(frame_table(table(*rows)), 16)
    assert len(places) == 16
    assert {0, 33, 90, 91, 140, 141, 199} <= set(places)
    assert max(np.diff(places)) <= 30
    shown = {rows[place]["policy"] for place in places if place not in (0, 90, 91, 140)}
    assert shown == {"rows", "warped"}


@settings(max_examples=60)
@given(st.lists(st.sampled_from([{}, ROWS, WARPED, HELD, SKIPPED, {"reason": "cut"}]), max_size=60), st.integers(1, 20))
def test_the_film_is_as_long_as_asked_where_there_are_frames_enough(rows, count):
    places = film_places(frame_table(table(*rows)), count)
    assert places == sorted(set(places))
    assert len(places) == min(count, len(rows))


def test_places():
    assert evenly(3, 10) == [0, 1, 2]
    assert evenly(100, 3) == [0, 50, 99]
    assert evenly(0, 5) == evenly(5, 0) == []
    assert in_steps(150, 6) == [0, 29, 58, 87, 116, 145]
    assert in_steps(4, 6) == [0, 1, 2, 3]
    assert in_steps(1, 6) == [0]
    assert in_steps(9, 0) == []


def test_tops_of_axes_are_round_and_hold_everything():
    tops = [ceiling([value]) for value in (0, 0.9, 1, 124e-3, 9.2e9, 7e3)]
    assert tops == pytest.approx([1, 1, 1, 0.15, 1e10, 8e3])


def test_plots_stack_to_their_sum():
    lower, upper = stacked_paths([[1, 1], [1, 3]], 4)
    assert lower == "M0 75V75H2V100H1V100H0Z"
    assert upper == "M0 50V50H1V0H2V75H1V75H0Z"
    assert stacked_paths([[0, 0]], 4) == [""]
    assert step_line([4, 4, 0], 4) == "M0 0V0H2V100H3"
    assert runs("aab") == [(0, 2, "a"), (2, 1, "b")]


def run_command(out, model, *sources, preset="exact", audit="auto"):
    """`deltascene run` in this process; returns the run."""
    settings_ = ["--set", "numerics.threads=1", "--set", "save.video=false", "--no-archive"]
    settings_ += ["--set", f"run.audit={audit}"]
    arguments = ["run", *sources, "-o", out, "--model", model, "--preset", preset, *settings_]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["deltascene", *map(str, arguments)])
        with pytest.raises(SystemExit):
            app.main()
    return open_run(out)


@pytest.fixture(scope="module")
def finished(tiny, make_clip, tmp_path_factory):
    """A run of the tiny model: a clip with a hostile name, one under another, and an input that isn't a video."""
    root = tmp_path_factory.mktemp("report")
    clip = root / f"{HOSTILE}.avi"
    clip.write_bytes(make_clip(30).read_bytes())
    (root / "text.mp4").write_text("no video")
    run = run_command(root / "out", tiny, clip, make_clip(7, name="second"), root / "text.mp4")
    (run.videos[0].folder / "overlay.webm").write_bytes(b"")
    (run.videos[0].folder / "accuracy.json").write_text(json.dumps({"parts": {"mIoU": 0.5, "empty": float("nan")}}))
    json_path, html_path = write_report(run)
    return run, json.loads(json_path.read_text(encoding="utf-8")), html_path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def reused(tiny, make_clip, tmp_path_factory):
    """A run of the tiny model that computes moved patches only, with many audits, and its report."""
    run = run_command(tmp_path_factory.mktemp("report") / "out", tiny, make_clip(40), preset="balanced", audit=20)
    json_path, html_path = (run.folder / name for name in ("report.json", "report.html"))
    return run, json.loads(json_path.read_text(encoding="utf-8")), html_path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Every element with its attributes and text; complains where tags don't match."""

    def __init__(self, html):
        super().__init__()
        self.open, self.found, self.links = [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in {"src", "href", "action", "poster", "srcset", "data"}]
        assert not any(name.startswith("on") for name, _ in attrs)
        entry = [tag, dict(attrs), ""]
        self.found.append(entry)
        if tag not in VOID:
            self.open.append(entry)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, text):
        for entry in self.open:
            entry[2] += text

    def all(self, **wanted):
        return [each for each in self.found if all(each[1].get(name) == value for name, value in wanted.items())]


@pytest.fixture(scope="module")
def page(finished):
    return Page(re.sub(r"<!doctype html>", "", finished[2]))


def test_report_numbers_are_sums_over_the_ledger(finished):
    run, report, _ = finished
    rows = run.ledger().to_pylist()
    whole = report["totals"]
    assert report["format"] == 1
    assert whole["frames"] == 37
    assert whole["macs_executed"] == whole["macs_dense"] == sum(row["macs_executed"] for row in rows)
    assert whole["seconds"] == pytest.approx(sum(row["seconds"] for row in rows))
    for stage in ledger.STAGES:
        spent = sum(row[f"seconds_{stage}"] for row in rows)
        assert whole["seconds_by_stage"][stage] == pytest.approx(spent)
        assert sum(task["seconds_by_stage"][stage] for task in report["tasks"].values()) == pytest.approx(spent)
    for video in report["videos"][:2]:
        own = [row for row in rows if row["source"] == video["id"]]
        assert video["totals"]["macs_executed"] == sum(row["macs_executed"] for row in own)
        listed = video["frames"]
        at = listed["columns"].index("seconds")
        assert sum(row[at] for row in listed["rows"]) == pytest.approx(video["totals"]["seconds"])
        assert len(listed["rows"]) == listed["total"] == video["totals"]["frames"]
    assert report["headline"]["saved"].endswith("was computed (dense prediction), so nothing was saved.")


def test_class_shares_are_those_of_the_arrays(finished):
    run, report, _ = finished
    legend = report["videos"][1]["classes"]["parts"]
    values = np.stack([run.videos[1].frame(place)["parts"] for place in range(7)])
    assert legend["frames"] == 7
    for entry in legend["labels"]:
        label = run.videos[1].kinds["parts"].labels.index(entry["label"])
        assert entry["share"] == pytest.approx((values == label).mean())


@pytest.mark.parametrize("which", ["finished", "reused"])
def test_each_ledger_is_read_once_for_numbers_and_pictures(which, request, tmp_path, monkeypatch):
    run, told, html = request.getfixturevalue(which)
    read, real = Counter(), reader.read_rows
    monkeypatch.setattr(reader, "read_rows", lambda path: read.update([path]) or real(path))
    monkeypatch.setattr(build, "write_whole", lambda path, text: (tmp_path / path.name).write_text(text))
    write_report(run)
    assert read == {video.files.frames_parquet: 1 for video in run.videos if len(video)}
    assert json.loads((tmp_path / "report.json").read_text()) == told
    assert (tmp_path / "report.html").read_text() == html


def marked(page, name):
    """Elements with an attribute."""
    return [each for each in page.found if name in each[1]]


@pytest.mark.parametrize(("which", "frames"), [("finished", 37), ("reused", 40)])
def test_every_number_on_the_page_is_the_report_s(which, frames, request):
    _, report, html = request.getfixturevalue(which)
    page = Page(html.replace("<!doctype html>", ""))
    assert len(marked(page, "data-path")) > 150
    for _, attributes, text in marked(page, "data-path"):
        value = look_up(report, attributes["data-path"])
        assert text == FORMS[attributes["data-form"]](value)
    assert len(marked(page, "data-row")) == len(marked(page, "data-tasks")) == frames
    for _, attributes, text in marked(page, "data-row"):
        columns = look_up(report, attributes["data-row"].rpartition("/rows/")[0])["columns"]
        frame = dict(zip(columns, look_up(report, attributes["data-row"]), strict=True))
        assert text == "".join(frame_cells(frame))
        assert set(FRAME_TABLE) <= set(frame)
    for _, attributes, text in marked(page, "data-tasks"):
        listed, place = look_up(report, attributes["data-tasks"]), int(attributes["data-place"])
        costs = [dict(zip(listed["task_columns"], rows[place], strict=True)) for rows in listed["tasks"].values()]
        assert text.endswith("".join(cell for cost in costs for cell in task_cells(cost)))


def test_what_was_reused_is_told_per_frame_and_task(reused):
    run, report, _ = reused
    rows, listed = run.ledger().to_pylist(), report["videos"][0]["frames"]
    policies, partial = report["totals"]["policies"], report["totals"]["by_policy"]["rows"]
    assert set(policies) == {"dense", "rows", "warped"}
    share = 100 * partial["rows_computed"] / (13 * policies["rows"])
    assert (
        f" of 40 frames, {policies['dense']} ran dense, {policies['rows']} ran only on changed tokens ({share:.1f} % of"
        f" all on average), {policies['warped']} were warped. "
    ) in report["headline"]["saved"]
    for task in listed["tasks"]:
        own = [row for row in rows if row["task"] == task]
        told = [dict(zip(listed["task_columns"], row, strict=True)) for row in listed["tasks"][task]]
        assert told == [{name: row[name] for name in listed["task_columns"]} for row in own]
    for row, told in zip([row for row in rows if row["task"] == "parts"], listed["rows"], strict=True):
        frame = dict(zip(listed["columns"], told, strict=True))
        assert [frame[name] for name in ("policy", "reason", "oldest_s")] == [
            row[name] for name in ("policy", "reason", "oldest_s")
        ]
    assert report["totals"]["oldest_s"]["max"] == max(row["oldest_s"] for row in rows)


def test_what_reuse_cost_stands_beside_what_it_saved(reused):
    run, report, html = reused
    rows, video = run.ledger().to_pylist(), report["videos"][0]
    for task, found in report["totals"]["audits"].items():
        own = [row for row in rows if row["task"] == task]
        audited = [row for row in own if row["drift"] is not None]
        assert (found["audits"], found["frames"]) == (len(audited), 40)
        weights = [1 / row["audit_p"] for row in audited]
        mean = sum(weight * row["drift"] for weight, row in zip(weights, audited, strict=True)) / sum(weights)
        assert found["drift"]["mean"] == pytest.approx(mean * (1 - found["dense"] / 40))
        assert max(video["drift_series"][task]["values"]) == max(row["drift"] for row in audited)
    assert set(report["totals"]["audits"]) == {"parts", "height", "flow", "hands"}
    assert report["totals"]["macs_audit"] == sum(row["macs_audit"] for row in rows) > 0
    assert [worst["task"] for worst in video["worst"]] == ["parts", "height", "flow"]
    assert all(
        f"frame {worst['index']} · {worst['pts_s']:.2f} s" in Page(html[15:]).found[0][2] for worst in video["worst"]
    )


def with_pilot(run, folder, pilot):
    """The report of a copy of a run that has this pilot on record."""
    shutil.copytree(run.folder, folder)
    with (folder / "run.yaml").open("a") as record:
        record.write(f"pilot: {json.dumps(pilot)}\n")
    with pytest.MonkeyPatch.context() as patch:
        for cap in ("PICTURES_CAP", "FILM_CAP"):
            patch.setattr(build, cap, 0)
        written, html = write_report(open_run(folder))
    return json.loads(written.read_text(encoding="utf-8")), html.read_text(encoding="utf-8")


def test_what_a_pilot_predicted_stands_beside_what_audits_found(reused, tmp_path):
    run, before, plain = reused
    tasks = before["totals"]["audits"]
    assert before["bound"] is None
    assert "Bound: predicted and audited" not in plain

    def step(scale, macs, excess):
        found = {"drift": excess + 0.01, "floor": 0.01, "excess": excess, "at_most": 1.5 * excess}
        numbers = {"policy.max_age_s": scale, "policy.camera_price": None}
        regions = {region: {MEAN: found, **dict.fromkeys(tasks, found)} for region in ("moved", "whole")}
        return {"scale": scale, "numbers": numbers, "macs": macs, **regions}

    pilot = {
        "max_drift": {MEAN: 0.0001}, "frames": 30, "of_frames": 40, "windows": [{}], "chosen": 1.0, "kept": True,
        "steps": [step(0.5, 0.8, 0.01), step(1.0, 0.4, 0.02)],
    }  # fmt: skip
    report, html = with_pilot(run, tmp_path / "bound", pilot)
    page, bound = Page(html.replace("<!doctype html>", "")), report["bound"]
    marks = [each for each in marked(page, "data-path") if each[1]["data-path"].startswith("bound/")]
    for _, attributes, text in marks:
        assert text == FORMS[attributes["data-form"]](look_up(report, attributes["data-path"]))
    paths = {attributes["data-path"] for _, attributes, _ in marks}
    for task in (MEAN, *tasks):
        for region in ("moved", "whole"):
            step_at, audits_at = f"bound/steps/1/{region}/{task}", f"bound/audited/{region}/{task}"
            assert {f"{step_at}/{name}" for name in ("drift", "floor", "excess", "at_most")} <= paths
            assert {f"{audits_at}/excess/{end}" for end in ("mean", "low", "high")} <= paths
    assert {"bound/frames", "bound/macs", "bound/limits/0/at_most", f"bound/max_drift/{MEAN}"} <= paths
    plots = [each for each in page.found if each[0] == "svg" and "Excess drift" in each[1].get("aria-label", "")]
    mean, low, high = (
        FORMS["drift"](bound["audited"]["moved"][MEAN]["excess"][end]) for end in ("mean", "low", "high")
    )
    assert len(plots) == 2
    assert plots[0][1]["aria-label"].endswith(
        " Bound 0.01 %. Step at 80.0 %: 1.00 %, at most 1.50 %. Chosen step at 40.0 %: 2.00 %, at most 3.00 %."
        f" Audited {mean} ({low} to {high})."
    )
    chosen = page.all(**{"class": "step chosen"})
    assert [each[1]["cx"] for each in chosen if each[1]["r"] == "6"] == ["50.00%"] * 2  # of an axis up to 80 %
    assert len(page.all(**{"class": "bound"})) == 2
    assert "Audits found more than the bound. run … --tighten --force" in page.found[0][2]


def test_a_pilot_without_a_bound_on_drift_is_told_without_one(reused, tmp_path):
    pilot = {"frames": 30, "of_frames": 40, "chosen": 1.0, "steps": [{"scale": 1.0, "numbers": {}, "macs": 0.4}]}
    for number, added in enumerate(({}, {"max_drift": {}, "steps": []})):
        _, html = with_pilot(reused[0], tmp_path / str(number), pilot | added)
        assert "<h2>Pilot: predicted and audited</h2>" in html
        page = Page(html.replace("<!doctype html>", ""))
        assert not page.all(**{"class": "bound"})
        assert page.all(**{"class": "found"})


def test_the_film_shows_what_changed_in_words_too(reused):
    run, report, html = reused
    video, page = report["videos"][0], Page(html.replace("<!doctype html>", ""))
    assert len(video["film"]) == 24
    shown = [each for each in page.found if each[0] == "img" and "over the threshold" in each[1]["alt"]]
    assert len(shown) == 24
    for moment, (_, attributes, _) in zip(video["film"], shown, strict=True):
        change = run.videos[0].frame(moment["place"]).change()
        assert moment["moved"] == (change >= video["change_threshold"]).sum()
        if moment["policy"] == "rows":
            assert moment["rows_computed"] == 1 + moment["moved"]  # with the class token
        assert attributes["alt"] == (
            f"frame {moment['index']} at {moment['pts_s']:.2f} s: {moment['policy']}, {moment['reason']};"
            f" {moment['rows_computed']} of 13 tokens computed; {moment['moved']} patches over the threshold"
        )
        assert attributes["src"].startswith("data:image/jpeg;base64,")
    for policy, part in report["totals"]["by_policy"].items():
        assert f"{policy} {part['frames']} frames" in html  # of the band's text alternative


def test_of_many_videos_fewer_frames_are_shown_or_none(reused, monkeypatch, tmp_path):
    run, _, _ = reused
    for pictures, film in ((0, 2), (1, 0), (0, 0)):
        monkeypatch.setattr(build, "PICTURES_CAP", pictures)
        monkeypatch.setattr(build, "FILM_CAP", film)
        _, html = write_report(run, tmp_path / "page.html")
        assert html.read_text(encoding="utf-8").count("data:image/jpeg") == pictures + film + pictures // 2


def test_tasks_with_blocks_of_their_own_show_their_own_rows(tiny_delta, make_clip, tmp_path):
    run = run_command(tmp_path / "out", tiny_delta, make_clip(8, name="own"), preset="balanced")
    report = json.loads((run.folder / "report.json").read_text(encoding="utf-8"))
    rows = run.ledger().to_pylist()
    for task in ("parts", "height", "flow"):
        own = [row for row in rows if row["task"] == task]
        assert 0 < report["tasks"][task]["rows_computed"] == sum(row["rows_computed"] for row in own)
        assert report["tasks"][task]["macs_executed"] == sum(row["macs_executed"] for row in own)
    assert report["tasks"]["hands"]["rows_computed"] == 0
    html = (run.folder / "report.html").read_text(encoding="utf-8")
    assert html.count('<span class="soft">the base’s</span>') == 1


def test_a_run_from_before_change_maps_still_has_a_film(reused, tmp_path):
    run, _, _ = reused
    shutil.copytree(run.folder, tmp_path / "old")
    store = tmp_path / "old/videos/clip/predictions.zarr"
    shutil.rmtree(store / "change")
    about = json.loads((store / "zarr.json").read_text())
    del about["attributes"]["change_threshold"]
    (store / "zarr.json").write_text(json.dumps(about))
    written, _ = write_report(open_run(tmp_path / "old"))
    report = json.loads(written.read_text(encoding="utf-8"))
    assert {moment["moved"] for moment in report["videos"][0]["film"]} == {None}


def test_headline_numbers_stand_on_the_page_as_written(finished, page):
    _, report, html = finished
    executed, saved = report["totals"]["macs_executed"], report["totals"]["saved"]
    (big,) = [each for each in page.all(**{"data-path": "totals/macs_executed"}) if each[1]["data-form"] == "macs"][:1]
    number, unit = big[2].split()
    assert float(number) * {"MMAC": 1e6, "GMAC": 1e9}[unit] == pytest.approx(executed, rel=5e-3)
    assert saved == 0
    assert page.all(**{"data-path": "totals/saved"})[0][2] == "0 %"
    assert "AMD" in html or report["machine"]["cpu"].split()[0] in html


def test_the_page_stands_alone(finished, page):
    _, _, html = finished
    assert not re.search(r"(src|href|url\(|@import)\s*=?\s*[\"'(]?\s*(https?:)?//", html, re.IGNORECASE)
    outside = [link for link in page.links if not link.startswith(("data:", "#"))]
    assert [unquote(each) for each in outside] == [f"videos/{finished[0].videos[0].id}/overlay.webm"]
    assert sum(link.startswith("data:image/jpeg;base64,") for link in page.links) == 12
    assert len(html) < 2_000_000


def test_a_hostile_file_name_is_only_text(finished, page):
    _, report, html = finished
    assert HOSTILE in report["videos"][0]["source"]
    assert any(HOSTILE in text for tag, _, text in page.found if tag == "span")
    assert "<img src=x" not in html
    assert "49" not in Path(report["videos"][0]["source"]).name


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
def test_the_page_s_script_runs_in_a_browser(finished, tmp_path):
    """A pointer over a plot reads that frame's numbers; nothing breaks the page's own content policy."""
    _, report, html = finished
    probe = """<script>const svg = document.querySelectorAll(".plots svg")[1], box = svg.getBoundingClientRect();
    svg.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + box.width * 12.5 / 30}));</script>"""
    (tmp_path / "page.html").write_text(html.replace("</body>", f"{probe}</body>"), encoding="utf-8")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run(
        ["chromium", *flags, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    told = re.search(r'<p class="readout">(.*?)</p>', done.stdout, re.DOTALL)[1]
    milliseconds = 1e3 * report["videos"][0]["series"]["seconds"][12]
    assert told.startswith("frame 12 · 1.20 s · dense (every) · 100.0 % of tokens · oldest patch 0.00 s · ")
    assert f" · {milliseconds:.1f} ms (decode " in told
    assert "CONSOLE" not in done.stderr


def run_of(folder, records):
    """A run's folder that holds nothing but what `run.yaml` and `videos.parquet` say."""
    RunFolder(folder).root.mkdir()
    (folder / "run.yaml").write_text("deltascene: 1\n")
    write_records(RunFolder(folder).videos_parquet, records)
    return open_run(folder)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A run of 1200 inputs: one in a hundred failed with a very long cause, the last hundred wait."""
    records = [
        VideoRecord(f"v{number}", f"/in/v{number}.avi", "waiting")
        if number >= 1100
        else VideoRecord(
            f"v{number}", f"/in/v{number}.avi", "failed", "no <b>video</b> " * 99, retries=2, seconds=number
        )
        if number % 100 == 7
        else VideoRecord(f"v{number}", f"/in/v{number}.avi", "done", seconds=float(number))
        for number in range(1200)
    ]
    json_path, html_path = write_report(run_of(tmp_path_factory.mktemp("many") / "out", records))
    return json.loads(json_path.read_text(encoding="utf-8")), html_path.read_text(encoding="utf-8")


def test_of_many_videos_the_page_lists_a_thousand_and_shows_a_few(many):
    report, html = many
    page = Page(html.replace("<!doctype html>", ""))
    rows = [each for each in page.found if each[0] == "tr" and "data-status" in each[1]]
    assert [row[1]["data-status"] for row in rows] == ["failed"] * 11 + ["done"] * 989
    assert len([each for each in page.found if each[0] == "details" and each[1].get("class") == "video"]) == 40
    assert "1\u202f000 of 1\u202f200 inputs are listed, unfinished ones first" in html
    assert "40 of 1\u202f200 have a section below" in html
    assert len(html) < 2_000_000
    assert len(report["videos"]) == 1200
    assert all(video["totals"]["frames"] == 0 for video in report["videos"])
    assert report["videos"][7]["wall_seconds"] == 7
    assert (report["videos"][7]["retries"], report["videos"][8]["retries"]) == (2, 0)
    for row in rows[:11]:
        assert row[2].endswith("…")
        assert len(row[2]) < 300
    options = [each[2] for each in page.found if each[0] == "option"]
    assert options == ["all, 1\u202f200", "done, 1\u202f089", "failed, 11", "waiting, 100"]


def test_every_cell_that_is_sorted_by_has_its_plain_value(many):
    _, html = many
    page = Page(html.replace("<!doctype html>", ""))
    heads = [each for each in page.found if each[0] == "th"]
    at = next(place for place, each in enumerate(page.found) if each[1].get("id") == "videos")
    cells = [each for each in page.found[at:] if each[0] == "td" and "data-value" in each[1]]
    columns = [head[2] for head in heads[: heads.index(next(each for each in heads if each[2] == "cause")) + 1]]
    columns = columns[columns.index("video") :]
    assert len(cells) == 1000 * len(columns)
    first = dict(zip(columns, (cell[1]["data-value"] for cell in cells), strict=False))
    assert (first["video"], first["status"], first["retries"], first["elapsed time"], first["saved"]) == (
        "v7", "failed", "2", "7.0", "",
    )  # fmt: skip


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
def test_the_table_of_videos_is_sorted_and_filtered_in_a_browser(many, tmp_path):
    """Heads are buttons, so that a keyboard reaches them; a second press turns the order; missing values stay last."""
    probe = """<script>
    const told = [], table = document.getElementById("videos"), heads = [...table.tHead.rows[0].cells];
    const tell = () => told.push(table.tBodies[0].rows[0].cells[0].dataset.value, heads[6].getAttribute("aria-sort"));
    for (let press = 0; press < 2; press++) { heads[6].querySelector("button").click(); tell(); }
    const select = document.querySelector("[data-filters]");
    select.value = "failed"; select.dispatchEvent(new Event("change"));
    told.push([...table.tBodies[0].rows].filter((row) => row.offsetHeight > 0).length);
    document.title = JSON.stringify(told);</script>"""
    (tmp_path / "page.html").write_text(many[1].replace("</body>", f"{probe}</body>"), encoding="utf-8")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run(
        ["chromium", *flags, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    title = html_module.unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1])
    assert json.loads(title) == ["v0", "ascending", "v1007", "descending", 11]
    assert "CONSOLE" not in done.stderr


def test_a_failed_input_is_told_with_its_reason(finished, page):
    _, report, _ = finished
    failed = report["videos"][2]
    assert (failed["status"], failed["totals"]["frames"], failed["pictures"]) == ("failed", 0, [])
    assert any(failed["cause"] in text for tag, _, text in page.found if tag == "p")
    assert report["headline"]["what"].startswith("37 frames of 3 videos, 4 tasks, in ")
    assert report["headline"]["what"].endswith("1 input failed.")


def test_what_is_not_finite_is_null_and_shown_as_a_dash(finished):
    _, report, _ = finished
    assert report["videos"][0]["accuracy"] == [
        {"task": "parts", "metric": "mIoU", "value": 0.5},
        {"task": "parts", "metric": "empty", "value": None},
    ]


def test_a_source_that_is_gone_leaves_pictures_of_the_predictions(finished, tmp_path):
    run, _, _ = finished
    source = Path(run.videos[0].source)
    aside = source.rename(tmp_path / "aside.avi")
    try:
        _, html = write_report(run, tmp_path / "else where.html")
    finally:
        aside.rename(source)
    page = html.read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 12
    assert "../" in next(link for link in Page(page.replace("<!doctype html>", "")).links if "overlay" in link)


def test_a_run_of_one_frame_and_a_run_of_none(tiny, make_clip, tmp_path):
    (tmp_path / "no.mp4").write_text("no video")
    for name, source in (("one", make_clip(1, name="one")), ("none", tmp_path / "no.mp4")):
        written, _ = write_report(run_command(tmp_path / name, tiny, source))
        report = json.loads(written.read_text(encoding="utf-8"))
        assert report["totals"]["frames"] == (name == "one")
        Page((tmp_path / name / "report.html").read_text(encoding="utf-8").replace("<!doctype html>", ""))
