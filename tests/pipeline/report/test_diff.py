"""Two runs side by side: numbers computed by hand, real tiny runs, and what can't be compared is refused by name."""

import json
import re
import shutil
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from deltascene import open_run
from deltascene.pipeline.cli import app
from deltascene.pipeline.config import flatten, load_config
from deltascene.pipeline.report.diff import build_diff, compare_accuracy, compare_costs, differences
from deltascene.pipeline.report.drift import compare_pair, drift_series, summarise
from deltascene.pipeline.report.page import FORMS, look_up
from deltascene.pipeline.report.pairs import Pair, common_rows
from deltascene.pipeline.report.pictures import drift_map
from deltascene.pipeline.report.sentences import diff_headline
from deltascene.pipeline.runs import ledger, reader
from deltascene.stages.kinds import Classes, Scalar, Vector

ROW = {"valid": True, "policy": "dense", "rows": 10, "rows_computed": 10, "macs_executed": 100, "macs_dense": 100}
KINDS = {"parts": Classes(("sky", "road", "car")), "height": Scalar("m", (0.5, 8.0))}


def table(*rows):
    return pa.Table.from_pylist(
        [ROW | {"source": "clip", "index": at, "task": "parts", "seconds": 1.0} | row for at, row in enumerate(rows)],
        schema=ledger.SCHEMA,
    )


def video(values, index=None, kinds=KINDS, **about):
    """A processed video as the comparison sees it; `values` are stored arrays by task."""
    frames = len(next(iter(values.values())))
    index = np.arange(frames) if index is None else np.asarray(index)
    arrays = SimpleNamespace(
        index=index, pts_s=index / 10, valid={task: np.ones(frames, bool) for task in values},
        stored=lambda task, at: values[task][at],
    )  # fmt: skip
    known = {task: kinds[task] for task in values}
    return SimpleNamespace(id="clip", arrays=arrays, kinds=known, **about)


def pair_of(a, b):
    _, ours, theirs = np.intersect1d(a.arrays.index, b.arrays.index, return_indices=True)
    return Pair(a, b, tuple(zip(ours.tolist(), theirs.tolist(), strict=True)))


def classes(*shares):
    """Frames of 10 x 10 pixels of which a share is 1, the others 0."""
    frames = np.zeros((len(shares), 100), np.uint8)
    for frame, share in zip(frames, shares, strict=True):
        frame[: round(100 * share)] = 1
    return frames.reshape(-1, 10, 10)


def test_costs_are_of_b_over_a():
    cost = compare_costs(
        table({}, {}, {"seconds": 4.0}),
        table({}, {"macs_executed": 20, "seconds": 0.5, "rows_computed": 2}, {"macs_executed": 0, "seconds": 0.1}),
    )
    assert cost["macs"] == 120 / 300
    assert cost["median"] == 0.5
    assert cost["mean"] == pytest.approx(1.6 / 6)
    assert (cost["b"]["saved"], cost["b"]["rows_computed"]) == (pytest.approx(0.6), 22)
    assert compare_costs(table(), table())["mean"] is None
    assert compare_costs(table({"macs_executed": 0}), table({}))["macs"] is None


def test_costs_are_of_frames_that_are_valid_in_both_and_tasks_that_both_ran():
    ours = [{}, {}, {"valid": False}, {"index": 0, "task": "only_a"}]
    theirs = [{"index": 1}, {"index": 2}, {"index": 7}, {"index": 1, "task": "only_b"}]
    rows_a, rows_b = common_rows(table(*ours), table(*theirs))
    assert [(row["index"], row["task"]) for row in rows_a.to_pylist()] == [(1, "parts")]
    assert rows_b["index"].to_pylist() == [1]


def test_drift_is_that_of_the_kind_on_common_frames():
    a = video({"parts": classes(0, 0, 0, 0), "height": np.full((4, 10, 10), 2, np.float16)}, index=[0, 2, 4, 6])
    b = video(
        {"parts": classes(0.5, 0, 0.25, 0.1, 1), "height": np.full((5, 10, 10), 2.5, np.float16)}, index=[1, 2, 4, 6, 8]
    )
    pair = pair_of(a, b)
    found = compare_pair(pair, ["parts", "height"], 100)
    told = summarise([pair], [found], ["parts", "height"])
    parts = told["parts"]
    assert (parts["unit"], parts["frames"], parts["identical"]) == ("share of pixels", 3, 1)
    assert parts["mean"] == pytest.approx(0.35 / 3)
    assert parts["max"] == 0.25
    assert parts["p95"] == pytest.approx(np.percentile([0, 0.25, 0.1], 95))
    assert parts["equal"] == pytest.approx(1 - 0.35 / 3)
    assert parts["worst"][0] == {
        "pair": 0, "where": 1, "video": "clip", "index": 4, "pts_s": pytest.approx(0.4), "drift": 0.25,
    }  # fmt: skip
    assert told["height"]["mean"] == pytest.approx(0.25)
    assert (told["height"]["equal"], told["height"]["identical"]) == (0, 0)
    series = drift_series(pair, found, ["dense", "rows", "warped", "rows", "held"])
    assert series["index"] == [2, 4, 6]
    assert series["policy"] == ["rows", "warped", "rows"]
    assert series["drift"]["parts"] == [0, 0.25, pytest.approx(0.1)]


def test_frames_that_were_not_predicted_are_not_compared():
    a, b = video({"parts": classes(0, 0, 0)}), video({"parts": classes(1, 1, 1)})
    b.arrays.valid["parts"][1] = False
    pair = pair_of(a, b)
    found = compare_pair(pair, ["parts"], 100)
    assert found["parts"].where.tolist() == [0, 2]
    b.arrays.valid["parts"][:] = False
    nothing = summarise([pair], [compare_pair(pair, ["parts"], 100)], ["parts"])["parts"]
    assert (nothing["frames"], nothing["mean"], nothing["worst"]) == (0, None, [])


def test_long_videos_are_compared_on_evenly_sampled_frames_and_named_worst_ones_lie_apart():
    shares = np.zeros(400)
    shares[100:104], shares[300] = (0.9, 1, 0.9, 0.8), 0.5
    a, b = video({"parts": classes(*np.zeros(400))}), video({"parts": classes(*shares)})
    pair = pair_of(a, b)
    every, some = compare_pair(pair, ["parts"], 1000), compare_pair(pair, ["parts"], 40)
    assert len(some["parts"].drift) == 40
    worst = summarise([pair], [every], ["parts"])["parts"]["worst"]
    assert [each["index"] for each in worst] == [101, 300]
    series = drift_series(pair, every, ["rows"] * 400)
    assert (series["frames_per_point"], len(series["index"])) == (2, 200)
    assert max(series["drift"]["parts"]) == 1


def test_a_map_of_drift_has_the_kind_s_measure_in_blocks():
    reference = np.zeros((96, 64), np.uint8)
    value = reference.copy()
    value[:2, :2] = 1
    blocks = drift_map(value, reference, KINDS["parts"])
    assert blocks.shape == (48, 32)
    assert (blocks[0, 0], blocks.sum()) == (1, 1)
    up, side = np.zeros((10, 10, 3), np.float32), np.zeros((10, 10, 3), np.float32)
    up[..., 2] = side[..., 0] = 1
    assert drift_map(up, side, Vector(3)) == pytest.approx(90)


def test_differences_are_named():
    facts = {"config": {"x": 1, "y": 2}, "weights": {}, "numerics": {"threads": 1}, "versions": {}, "machine": {}}
    other = facts | {"config": {"x": 1, "y": 3}, "numerics": {}, "weights": {"w": "ab"}}
    assert differences(facts, facts) == []
    assert differences(facts, other) == [
        {"group": "config", "name": "y", "a": 2, "b": 3},
        {"group": "weights", "name": "w", "a": None, "b": "ab"},
        {"group": "numerics", "name": "threads", "a": 1, "b": None},
    ]


def test_accuracy_stands_side_by_side_where_both_were_scored():
    a, b, c = (SimpleNamespace(id="clip", accuracy=each) for each in ({"t": {"m": 1, "n": 2}}, {"t": {"m": 3}}, None))
    told = compare_accuracy([Pair(a, b, ()), Pair(a, c, ())])
    assert told == [{"video": "clip", "task": "t", "metric": "m", "a": 1, "b": 3}]


def test_the_headline_claims_macs_and_clock_together():
    cost = compare_costs(table({}, {}), table({}, {"macs_executed": 20, "seconds": 2.0}))
    drift = {"parts": {"mean": 0.01234, "unit": "share of pixels", "identical": 1, "frames": 2}}
    diff = {"videos": [{"common": 2}], "cost": cost, "drift": drift, "differences": []}
    assert diff_headline(diff) == {
        "what": "2 frames of 1 video are in both runs.",
        "cost": "B computes 60.0 % of A’s MACs and takes 150.0 % of its time:"
        " 1500 ms a frame against 1000 ms, on average.",
        "drift": "The mean drift of B’s predictions from A’s: parts 0.0123 share of pixels.",
    }
    drift["parts"]["identical"] = 2
    elsewhere = diff_headline(diff | {"differences": [{"group": "machine"}]})
    assert elsewhere["cost"].endswith("The runs were made on different machines, so their times can’t be compared.")
    assert elsewhere["drift"] == "B’s predictions equal A’s in every pixel."


@pytest.fixture(scope="module")
def runs(tiny, make_clip, tmp_path_factory):
    """Real runs of the tiny model: `exact` and `balanced` of one clip, `other` of another, `small` at another size."""
    root, clip = tmp_path_factory.mktemp("diff"), make_clip(24)
    quiet = ["--set", "numerics.threads=1", "--set", "save.video=false", "--no-archive", "--model", tiny]
    make = {
        "exact": [clip, "--preset", "exact"],
        "balanced": [clip, "--preset", "balanced"],
        "other": [make_clip(2, name="other")],
        "small": [clip, "--size", "32,48", "--end", "0.2"],
        "height": [clip, "--preset", "exact", "--tasks", "height", "--end", "0.2"],
        "flow": [clip, "--tasks", "flow", "--end", "0.2"],
        "late": [clip, "--preset", "exact", "--start", "1.9"],
    }
    for name, arguments in make.items():
        call("run", *arguments, "-o", root / name, *quiet)
    (root / "exact/videos/clip/accuracy.json").write_text(json.dumps({"parts": {"mIoU": 0.5}}))
    (root / "balanced/videos/clip/accuracy.json").write_text(json.dumps({"parts": {"mIoU": 0.25}}))
    return root


def call(*arguments):
    """The command in this process; returns its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["deltascene", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            app.main()
    return exit_.value.code or 0


def test_exact_against_balanced(runs):
    a, b = open_run(runs / "exact"), open_run(runs / "balanced")
    diff, pairs = build_diff(a, b)
    rows = [run.ledger().to_pylist() for run in (a, b)]
    named = [(each["group"], each["name"]) for each in diff["differences"]]
    exact, balanced = (flatten(load_config(preset).model_dump()) for preset in ("exact", "balanced"))
    assert named == [("config", key) for key in exact if exact[key] != balanced[key]]
    assert ("config", "policy.reuse") in named
    assert diff["policies"]["a"] == {"dense": 24}
    assert sum(diff["policies"]["b"].values()) == 24
    for run, own in zip("ab", rows, strict=True):
        assert diff["cost"][run]["macs_executed"] == sum(row["macs_executed"] for row in own)
        height = [row for row in own if row["task"] == "height"]
        assert diff["costs"]["height"][run]["macs_executed"] == sum(row["macs_executed"] for row in height)
        seconds = np.median([row["seconds"] for row in height])
        assert diff["costs"]["height"][run]["frame_seconds"]["median"] == pytest.approx(seconds)
    for task, kind in a["clip"].kinds.items():
        ours, theirs = ([run["clip"].frame(place)[task] for place in range(24)] for run in (a, b))
        drift = [kind.drift(value, reference) for value, reference in zip(theirs, ours, strict=True)]
        assert diff["drift"][task]["mean"] == pytest.approx(np.mean(drift))
        assert diff["drift"][task]["max"] == pytest.approx(max(drift))
        assert diff["drift"][task]["worst"][0]["index"] == int(np.argmax(drift))
    assert diff["accuracy"] == [{"video": "clip", "task": "parts", "metric": "mIoU", "a": 0.5, "b": 0.25}]
    assert (len(pairs), diff["videos"][0]["common"], diff["videos"][0]["compared"]) == (1, 24, 24)


def test_a_run_against_itself_is_the_same_in_every_pixel(runs):
    run = open_run(runs / "balanced")
    diff, _ = build_diff(run, run)
    assert diff["differences"] == []
    assert diff["headline"]["drift"] == "B’s predictions equal A’s in every pixel."
    assert {each["max"] for each in diff["drift"].values()} == {0}
    assert (diff["cost"]["macs"], diff["cost"]["mean"]) == (1, 1)


def test_the_table_the_page_and_the_json_say_the_same(runs, tmp_path, capsys):
    page = tmp_path / "diff.html"
    assert call("report", "diff", runs / "exact", runs / "balanced", "--html", page) == 0
    printed = capsys.readouterr().out
    assert call("report", "diff", runs / "exact", runs / "balanced", "--json") == 0
    diff = json.loads(capsys.readouterr().out)
    for title in ("What differs", "Policies", "MACs executed", "Time of a frame", "Drift of B from A", "Accuracy"):
        assert title in printed
    assert re.search(r"config +policy\.reuse +false +true", printed)
    assert diff["headline"]["drift"] in printed.replace("\n", " ")
    html = page.read_text(encoding="utf-8")
    numbers = re.findall(r'<span class="n" data-path="([^"]+)" data-form="([^"]+)">([^<]*)</span>', html)
    assert len(numbers) > 80
    for path, form, text in numbers:
        value = look_up(diff, path)
        assert text.replace("&lt;", "<").replace("&gt;", ">") == FORMS[form](value), path
    assert not re.search(r"(src|href|url\(|@import)\s*=?\s*[\"'(]?\s*(https?:)?//", html, re.IGNORECASE)
    assert html.count("data:image/jpeg;base64,") == sum(len(each["worst"]) for each in diff["drift"].values()) > 0
    assert 'alt="parts of frame' in html


def test_a_comparison_and_its_page_read_each_ledger_once(runs, tmp_path, monkeypatch):
    read, real = Counter(), reader.read_rows
    monkeypatch.setattr(reader, "read_rows", lambda path: read.update([path]) or real(path))
    assert call("report", "diff", runs / "exact", runs / "balanced", "--html", tmp_path / "page.html") == 0
    assert read == {runs / name / "videos/clip/frames.parquet": 1 for name in ("exact", "balanced")}


def test_the_page_is_drawn_without_the_source_and_of_equal_runs(runs, tmp_path):
    copy = tmp_path / "moved"
    shutil.copytree(runs / "balanced", copy)
    table_ = ledger.pq.read_table(copy / "videos.parquet").to_pylist()
    gone = [row | {"source": str(tmp_path / "gone.avi")} for row in table_]
    ledger.pq.write_table(pa.Table.from_pylist(gone), copy / "videos.parquet")
    for other in (copy, runs / "height"):
        assert call("report", "diff", copy, other, "--html", tmp_path / "page.html") == 0
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "parts is left out: only in A." in html
    assert "data:image/jpeg" in html


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ("exact", "nothing", "nothing: expected a run's folder; found no run.yaml in it"),
        ("exact", "other", "expected a video of .*exact .clip.; found none of them: other"),
        ("exact", "small", "clip: expected predictions of the same size; found 48x64 in .*exact and 32x48 in .*small"),
        ("height", "flow", "expected a task that .*height predicted in the same form .height.; found flow"),
    ],
)
def test_what_can_not_be_compared_is_refused_by_name(runs, capsys, a, b, said):
    assert call("report", "diff", runs / a, runs / b) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(said, error)


def test_common_frames_are_enough_and_none_is_refused(runs, capsys):
    diff, _ = build_diff(open_run(runs / "exact"), open_run(runs / "late"))
    assert (diff["videos"][0]["common"], diff["videos"][0]["frames_b"]) == (5, 5)
    assert [each["name"] for each in diff["differences"]] == ["source.start_s"]
    assert call("report", "diff", runs / "exact", runs / "late", "--html", runs / "none" / "page.html") == 2
    assert "--html" in capsys.readouterr().err


def test_report_keeps_its_short_form(runs, capsys):
    elsewhere, json_path = runs / "page.html", runs / "late/report.json"
    for arguments, html in (
        ([runs / "late"], runs / "late/report.html"),
        (["--html", elsewhere, runs / "late"], elsewhere),
    ):
        assert call("report", *arguments) == 0
        assert capsys.readouterr().out.split() == [str(html), str(json_path)]
        assert html.is_file()
    assert call("report") == 2
    capsys.readouterr()
    assert call("report", "--help") == 0
    told = capsys.readouterr().out
    assert "diff OUT_A OUT_B" in told
    assert "Compare two runs" in told
