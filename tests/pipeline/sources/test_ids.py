"""Ids of sources: of their own paths, safe on every disk, distinct, and the recorded ones stay."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltascene.pipeline.sources import ids
from deltascene.pipeline.sources.ids import ids_of, safe_name
from deltascene.pipeline.sources.spec import SourceSpec

NAMES = st.text(max_size=60) | st.binary(max_size=60).map(os.fsdecode)
E_NFC, E_NFD = "\u00e9", "e\u0301"


def videos(*names: str, root: str = "/in") -> list[SourceSpec]:
    return [SourceSpec(name, "video", (Path(f"{root}/{name}"),)) for name in names]


def ids_by_name(*names: str, recorded: Mapping[str, str] | None = None, root: str = "/in") -> dict[str, str]:
    return dict(zip(names, ids_of(videos(*names, root=root), recorded or {}), strict=True))


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("day 1/cam.2.mp4", "day 1_cam.2"),
        ("日本/видео.mov", "日本_видео"),
        (f"caf{E_NFD}.mp4", f"caf{E_NFC}"),
        (" .x. .mp4", "x"),
        ("a:b*c?\n\u202e[1].mp4", "a_b_c____1_"),
        ("...mp4", "source"),
        ("con.mp4", "_con"),
        ("-x.mp4", "-x"),
        (os.fsdecode(b"\xff.mp4"), "_"),
    ],
)
def test_an_id_is_the_path_below_the_folder_without_its_suffix(name: str, id_: str) -> None:
    assert ids_of(videos(name), {}) == [id_]


@given(NAMES)
def test_ids_are_safe_names_of_bounded_length(name: str) -> None:
    safe = safe_name(name)
    assert not re.search(r'[/\\:*?"<>|\x00-\x1f\x7f]', safe)
    assert safe.strip(". ") == safe
    assert 0 < len(safe.encode()) <= 107  # `encode` refuses what isn't Unicode
    assert unicodedata.is_normalized("NFC", safe)
    assert safe_name(safe) == safe or len(safe.encode()) > 100


def test_long_names_are_cut_between_letters_and_stay_distinct() -> None:
    one, two = (safe_name("長" * 80 + end) for end in "ab")
    assert re.fullmatch("長{33}-[0-9a-f]{6}", one)
    assert one != two


@given(st.lists(NAMES.filter(lambda name: "/" not in name and "\0" not in name), max_size=8, unique=True))
def test_ids_are_distinct_whatever_case_and_accents(names: list[str]) -> None:
    found = [f"{name}.mp4" for name in names]
    assert len({unicodedata.normalize("NFC", id_.casefold()) for id_ in ids_by_name(*found).values()}) == len(found)


def test_files_that_are_added_change_no_id() -> None:
    alone = ids_by_name("a.mp4", "日本.mp4", "day/b.mp4")
    assert alone == {"a.mp4": "a", "日本.mp4": "日本", "day/b.mp4": "day_b"}
    assert alone.items() <= ids_by_name(*alone, "c.mp4", "中国.mp4", "ночь/b.mp4").items()


@pytest.mark.parametrize("other", ["a.mov", "A.mp4", "x/a.mp4"])
def test_those_that_collide_get_digits_of_their_own_path_and_a_recorded_id_stays(other: str) -> None:
    name = "x_a.mp4" if "/" in other else "a.mp4"
    both = ids_by_name(name, other)
    assert all(re.fullmatch(r"(x_)?a-[0-9a-f]{6}", id_.lower()) for id_ in both.values())
    assert both == ids_by_name(other, name) == ids_by_name(name, other, root="/elsewhere")
    before = ids_by_name(name)
    now = ids_by_name(name, other, recorded={id_: f"/in/{each}" for each, id_ in before.items()})
    assert now == {name: before[name], other: both[other]}
    recorded = {id_: f"/in/{each}" for each, id_ in now.items()}
    assert ids_by_name(other, recorded=recorded) == {other: both[other]}
    assert ids_by_name(name, other, recorded=recorded, root="/moved") == now


def test_accents_of_either_form_are_two_files() -> None:
    one, two = ids_by_name(f"{E_NFC}.mp4", f"{E_NFD}.mp4").values()
    assert {one[:2], two[:2]} == {f"{E_NFC}-"}
    assert one != two


def test_ids_of_earlier_versions_stay() -> None:
    """They had `_` for all that isn't ASCII, and digits where that made two the same."""
    recorded = {"__-aaaaaa": "/in/日本.mp4", "__-bbbbbb": "/in/中国.mp4", "my_clip": "/in/my clip.mp4"}
    ids_now = {"日本.mp4": "__-aaaaaa", "中国.mp4": "__-bbbbbb", "my clip.mp4": "my_clip", "東京.mp4": "東京"}
    assert ids_by_name(*ids_now, recorded=recorded) == ids_now
    assert ids_by_name(*ids_now, recorded=recorded, root="/moved") == ids_now


def test_of_two_files_of_one_name_only_that_on_record_keeps_the_id() -> None:
    one, two = ids_of([*videos("clip.mp4"), *videos("clip.mp4", root="/other")], {"clip": "/in/clip.mp4"})
    assert one == "clip"
    assert re.fullmatch("clip-[0-9a-f]{6}", two)


def test_two_sequences_of_one_folder_are_told_apart() -> None:
    one, two = (SourceSpec(name, "sequence", (Path(f"/in/{name}1.jpg"),)) for name in ("кадр", "b"))
    assert ids_of([one, two], {"____": "/in"}) == ["____", "b"]
    assert ids_of([two], {"____": "/in"}) == ["b"]


def test_sequences_of_one_folder_and_name_get_digits_of_their_first_images() -> None:
    found = [SourceSpec("img", "sequence", (Path(f"/in/img1{suffix}"),)) for suffix in (".jpg", ".png")]
    assert len(set(ids_of(found, {}))) == 2


def test_ten_thousand_of_one_name_have_ids_of_their_own() -> None:
    """Six digits of a hash would give some three pairs of them one folder."""
    found = [SourceSpec("日本.mp4", "video", (Path(f"/in/{number}/日本.mp4"),)) for number in range(10_000)]
    made = ids_of(found, {})
    assert len(set(made)) == 10_000
    assert {len(each.removeprefix("日本-")) for each in made} == {6, 16}


def test_six_digits_that_collide_get_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_digest", lambda text: "0" * 6 + hashlib.sha256(text.encode()).hexdigest())
    one, two, three = ids_by_name("a.mp4", "a.mov", "other.mp4").values()
    assert re.fullmatch("a-0{6}[0-9a-f]{10}", one)
    assert re.fullmatch("a-0{6}[0-9a-f]{10}", two)
    assert (one != two, three) == (True, "other")
