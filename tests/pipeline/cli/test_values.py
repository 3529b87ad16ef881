"""Texts of options as values, and what is refused."""

import re

import pytest

from deltascene.pipeline.cli.values import (
    parse_budgets,
    parse_bytes,
    parse_goal,
    parse_max_drift,
    parse_models,
    parse_save,
    parse_size,
    parse_time,
    read_zones,
    split_names,
)
from deltascene.pipeline.config import load_config
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.evaluation.bounds import MEAN, Goal, bounds_text
from deltascene.pipeline.evaluation.clip_scores import REGIONS


def test_names_are_separated_by_commas():
    assert split_names("seg, depth,,") == ("seg", "depth")
    assert split_names(None) is None


@pytest.mark.parametrize(
    ("text", "size"), [("518", 518), ("480,640", (480, 640)), ("480x640", (480, 640)), (" 480 , 640 ", (480, 640))]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "480,", "480,0", "a", "1,2,3", "-5"])
def test_a_size_has_one_or_two_positive_numbers(text):
    with pytest.raises(UsageError, match="--size: expected a short side in pixels or H,W; found"):
        parse_size(text)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1.5", 1.5), ("01:30", 90), ("1:00:00.5", 3600.5)])
def test_times(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "1:2:3:4", "-1", "1m", ":30"])
def test_a_time_has_seconds_minutes_and_hours(text):
    with pytest.raises(UsageError, match="time: expected seconds, MM:SS or HH:MM:SS; found"):
        parse_time(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1000", 1000), ("20GB", 20 * 10**9), ("1.5 tb", 1500 * 10**9), ("512 MB", 512 * 10**6), ("2k", 2000)],
)
def test_bytes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "1 PB", "1 G B"])
def test_bytes_have_a_number_and_a_unit(text):
    with pytest.raises(UsageError, match="size: expected bytes such as 20GB; found"):
        parse_bytes(text)


def test_what_is_saved():
    assert parse_save(None) == {}
    assert parse_save("arrays") == {"save.video": False, "save.png": False, "save.npz": False}
    assert parse_save("video,npz") == {"save.video": True, "save.png": False, "save.npz": True}
    with pytest.raises(UsageError, match="--save: expected some of arrays, video, png, npz; found 'gif'"):
        parse_save("video,gif")


def test_models_have_names():
    assert parse_models(["rooms", "mine=/a/b", "/c/d=e"]) == {"rooms": "rooms", "mine": "/a/b", "d=e": "/c/d=e"}
    with pytest.raises(UsageError, match="expected a name for each, NAME=BUNDLE; found 'b' twice"):
        parse_models(["/a/b", "/c/b"])


@pytest.mark.parametrize("text", ["moved.loss<0.05", "moved<=0.05", "all.loss<=1", "moved.loss<=-1", "moved.loss<=x"])
def test_a_budget_has_one_form(text):
    with pytest.raises(UsageError, match=r"--budget: expected whole\.loss<=NUMBER or moved\.loss<=NUMBER; found"):
        parse_budgets([text])


def test_budgets_are_by_region():
    assert parse_budgets(["moved.loss<=0.05", "whole.loss <= .01"]) == {"moving": 0.05, "whole": 0.01}
    assert set(parse_budgets(["moved.loss<=1", "whole.loss<=1"])) == set(REGIONS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("zones: 3", "expected `zones:` with a list; found {'zones': 3}"),
        ("- 1", "expected a mapping; found list"),
        (
            "zones: [{polygon: [[0, 0], [1, 1]]}]",
            "zone 1: polygon: expected three corners [x, y] or more, none below 0; found [[0, 0], [1, 1]]",
        ),
        ("zones: [{polygon: [[0, 0], [1, 1], [0, .nan]]}]", "zone 1: polygon: expected three corners"),
        ("zones: [{polygon: [0, 1, 2]}]", "zone 1: polygon: expected three corners"),
        ("zones: [{sources: a, polygon: []}]", "zone 1: sources: unknown key; did you mean 'source'?"),
        ("zones: [{}]", "zone 1: polygon: expected a value; found none"),
        ("zones: [7]", "zone 1: expected a mapping"),
        ("zones: [", "not readable as YAML: line 1"),
    ],
)
def test_a_bad_file_of_zones_is_told_in_one_line(tmp_path, text, problem):
    file = tmp_path / "zones.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=re.escape(f"--ignore {file}: {problem}")) as error:
        read_zones(file)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="can't be read"):
        read_zones(tmp_path / "none.yaml")


def test_zones_are_the_same_however_they_are_written(tmp_path):
    file, found = tmp_path / "zones.yaml", []
    for text in (
        "zones: [{polygon: [[0, 0], [1, 0], [1, 0.5]], source: 'cam-*'}]",
        "# screens\nzones:\n- source: cam-*\n  polygon:\n  - [0.0, 0.0]\n  - [1.0, 0]\n  - [1, 5.0e-1]\n",
    ):
        file.write_text(text)
        found.append(load_config(values={"change.ignore": read_zones(file)}))
    assert found[0] == found[1]
    assert found[0].change.ignored_in("cam-3") == [((0, 0), (1, 0), (1, 0.5))]
    assert found[0].change.ignored_in("other") == []
    assert load_config(values={"change.ignore": []}) == load_config()


def test_bounds_on_drift_are_shares_by_task_or_of_the_mean():
    assert parse_max_drift(None) == {}
    assert parse_max_drift("5%") == parse_max_drift(" 0.05 ") == {MEAN: 0.05}
    assert parse_max_drift("seg=3%, depth=.08") == {"seg": 0.03, "depth": 0.08}
    assert bounds_text({MEAN: 0.05, "seg": 0.025}) == "5%,seg=2.5%"
    assert bounds_text({"seg": 0.11911}, up=True) == "seg=12%"
    for text in ("", "5", "0", "-1%", "200%", "seg", "seg=", "=5%", "5%,6%", "seg=1%,seg=2%"):
        with pytest.raises(UsageError, match="--max-drift: expected a bound such as 5%, or seg=3%,depth=8%; found"):
            parse_max_drift(text)


def test_a_goal_is_a_bound_on_drift_or_on_time():
    assert not parse_goal(None, None, None)
    assert parse_goal("5%", None, None) == Goal({MEAN: 0.05})
    assert parse_goal(None, 20.0, None) == parse_goal(None, None, 50.0) == Goal(max_ms=20.0)
    for goal in (Goal({"seg": 0.1}), Goal(max_ms=12.5), Goal()):
        assert Goal.recorded(goal.record()) == goal
    assert [str(goal) for goal in (Goal({"seg": 0.1}), Goal(max_ms=12.5))] == ["--max-drift seg=10%", "--max-ms 12.5"]
    with pytest.raises(UsageError, match=r"--max-drift: expected one bound.*; found --max-drift and --target-fps"):
        parse_goal("5%", None, 30.0)
    for value in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="--max-ms: expected a number above 0"):
            parse_goal(None, value, None)
        with pytest.raises(UsageError, match="--target-fps: expected a number above 0"):
            parse_goal(None, None, value)
