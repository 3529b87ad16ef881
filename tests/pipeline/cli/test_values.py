"""Texts of options as values, and what is refused."""

import pytest

from deltascene.pipeline.cli.values import (
    parse_budgets,
    parse_bytes,
    parse_models,
    parse_save,
    parse_size,
    parse_time,
    split_names,
)
from deltascene.pipeline.errors import UsageError
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
