import hashlib
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltascene.pipeline.sources import find
from deltascene.pipeline.sources.errors import SourceNotFound
from deltascene.pipeline.sources.find import find_sources, natural_key
from deltascene.pipeline.sources.spec import Found


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def ids(*arguments: Path | str) -> list[str]:
    return [spec.id for spec in find_sources([str(each) for each in arguments])]


def test_single_file_is_its_name_whatever_its_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "my clip.mp4", "text.bin")
    specs = find_sources([str(tmp_path / "my clip.mp4"), str(tmp_path / "text.bin")])
    assert [(spec.id, spec.kind) for spec in specs] == [("my_clip", "video"), ("text", "video")]
    assert specs[0].path == tmp_path / "my clip.mp4"


def test_folder_is_all_videos_below_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, "cam10.mp4", "cam2.MP4", "day/a.webm", "notes.md", "thumb.jpg", ".hidden/b.mp4")
    assert ids(tmp_path) == ["cam2", "cam10", "day_a"]


def test_folder_of_images_is_one_sequence_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path / "shots", "f10.jpg", "f9.jpg", "f1.PNG", "readme.md")
    (spec,) = find_sources([str(tmp_path / "shots")])
    assert (spec.id, spec.kind, spec.path) == ("shots", "sequence", tmp_path / "shots")
    assert [path.name for path in spec.paths] == ["f1.PNG", "f9.jpg", "f10.jpg"]


def test_folders_of_images_below_are_a_sequence_each(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/2.jpg", "b/c.d/1.jpg")
    assert ids(tmp_path) == ["a", "b_c.d"]


def test_globs(tmp_path: Path) -> None:
    touch(
        tmp_path, "x/a1.mp4", "x/a2.mp4", "x/y/a3.mp4", "x/y/b1.mp4", "x/y/z/a4.avi", "x/a5.txt", "f/01.png", "f/02.png"
    )
    assert ids(f"{tmp_path}/x/*.mp4") == ["a1", "a2"]
    assert ids(f"{tmp_path}/x/a?.mp4") == ["a1", "a2"]
    assert ids(f"{tmp_path}/x/[!b]2.mp4") == ["a2"]
    assert ids(f"{tmp_path}/x/**/a*") == ["a1", "a2", "y_a3", "y_z_a4"]
    assert ids(f"{tmp_path}/**/y/*.mp4") == ["x_y_a3", "x_y_b1"]
    assert ids(f"{tmp_path}/**") == ["x_a1", "x_a2", "x_y_a3", "x_y_b1", "x_y_z_a4"]
    assert ids(f"{tmp_path}/x/*") == ["a1", "a2", "y_a3", "y_b1", "y_z_a4"]
    (spec,) = find_sources([f"{tmp_path}/f/*.png"])
    assert spec.kind == "sequence"
    assert len(spec.paths) == 2


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    touch(tmp_path, "clip[1].mp4", "clip1.mp4")
    assert ids(tmp_path / "clip[1].mp4") == ["clip_1_"]


def test_list_file_is_relative_to_its_folder(tmp_path: Path) -> None:
    touch(tmp_path, "lists/a/clip.mp4", "lists/b/clip.mp4", "far.mp4", "frames/1.jpg")
    listing = tmp_path / "lists" / "todo.txt"
    listing.write_text("# today\na/clip.mp4\n\nb/clip.mp4\n../far.mp4\n../frames\n")
    assert ids(listing) == ["a_clip", "b_clip", "far", "frames"]


def test_missing_line_of_a_list_says_where(tmp_path: Path) -> None:
    touch(tmp_path, "clip.mp4")
    (tmp_path / "todo.txt").write_text("clip.mp4\nclop.mp4\n")
    with pytest.raises(SourceNotFound, match=r"clop\.mp4 \(todo\.txt line 2\).*did you mean .*clip\.mp4"):
        find_sources([str(tmp_path / "todo.txt")])


def test_number_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "img000002.jpg", "img000001.jpg", "img000010.jpg", "other.jpg", "img1.png")
    (spec,) = find_sources([str(tmp_path / "img%06d.jpg")])
    assert spec.id == "img"
    assert [path.name for path in spec.paths] == ["img000001.jpg", "img000002.jpg", "img000010.jpg"]


def test_same_name_twice_gets_six_digits_each_that_do_not_depend_on_the_order(tmp_path: Path) -> None:
    touch(tmp_path, "a/clip.mp4", "b/clip.mp4", "b/CLIP.avi")
    one, two, three = ids(tmp_path / "a/clip.mp4", tmp_path / "b/clip.mp4", tmp_path / "b/CLIP.avi")
    assert len({one, two, three.lower()}) == 3
    assert all(re.fullmatch(r"clip-[0-9a-f]{6}", each.lower()) for each in (one, two, three))
    assert ids(tmp_path / "b/clip.mp4", tmp_path / "a/clip.mp4") == [two, one]
    assert ids(tmp_path / "a/clip.mp4") == ["clip"]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    touch(tmp_path, "clip.mp4")
    assert ids(tmp_path, tmp_path / "clip.mp4", tmp_path / "." / "clip.mp4") == ["clip"]


def test_missing_path_names_the_nearest(tmp_path: Path) -> None:
    touch(tmp_path, "videos/kitchen.mp4")
    with pytest.raises(SourceNotFound, match=r"kitchn\.mp4: expected .* did you mean .*kitchen\.mp4\?") as caught:
        find_sources([str(tmp_path / "videos" / "kitchn.mp4")])
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    with pytest.raises(SourceNotFound, match=r"did you mean .*videos"):
        find_sources([str(tmp_path / "vidoes" / "kitchen.mp4")])
    with pytest.raises(SourceNotFound, match=r"did you mean .*videos"):
        find_sources([str(tmp_path / "vidoes" / "*.mp4")])


@pytest.mark.parametrize("argument", ["", "*.mp4", "%04d.jpg", "**/x"])
def test_nothing_to_read_is_an_error(tmp_path: Path, argument: str) -> None:
    touch(tmp_path, "notes.md")
    with pytest.raises(SourceNotFound, match="expected"):
        find_sources([str(tmp_path / argument)])


def test_empty_list_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "todo.txt").write_text("# nothing\n")
    with pytest.raises(SourceNotFound, match="one path on each line"):
        find_sources([str(tmp_path / "todo.txt")])


def test_loop_of_links_ends(tmp_path: Path) -> None:
    touch(tmp_path, "a/clip.mp4")
    os.symlink(tmp_path, tmp_path / "a" / "up")
    os.symlink(tmp_path / "a", tmp_path / "b")
    assert ids(tmp_path) == ["a_clip"]
    assert ids(f"{tmp_path}/**/*.mp4") == ["a_clip"]


def test_broken_link_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "clip.mp4")
    os.symlink(tmp_path / "gone.mp4", tmp_path / "link.mp4")
    assert ids(tmp_path) == ["clip"]


def test_ten_thousand_of_one_name_have_ids_of_their_own() -> None:
    """Six digits of a hash would give some three pairs of them one folder."""
    places = [Path(f"/in/{number}/日本.mp4") for number in range(10_000)]
    found = find._ids([Found("日本", "video", (place,)) for place in places])
    assert len({each.casefold() for each in found}) == 10_000
    assert {len(each.removeprefix("__-")) for each in found} == {6, 16}


def test_six_digits_that_collide_get_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(find, "_digest", lambda text: "0" * 6 + hashlib.sha256(text.encode()).hexdigest())
    touch(tmp_path, "日本.mp4", "中国.mp4", "other.mp4")
    one, two, three = sorted(ids(tmp_path))
    assert re.fullmatch("__-0{6}[0-9a-f]{10}", one)
    assert re.fullmatch("__-0{6}[0-9a-f]{10}", two)
    assert (one != two, three) == (True, "other")


def test_a_list_may_hold_names_that_are_not_utf_8_and_letters_that_end_lines_elsewhere(tmp_path: Path) -> None:
    names = [b"\xff.mp4", "a\u2028b.mp4".encode(), b"c\x0cd.mp4"]
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    (tmp_path / "todo.txt").write_bytes(b"\r\n".join(names))
    specs = find_sources([str(tmp_path / "todo.txt")])
    assert [os.fsencode(spec.path.name) for spec in specs] == names
    assert len({spec.id for spec in specs}) == 3


@pytest.mark.parametrize("name", ["...mp4", "видео.mp4", "a" * 180 + ".mp4", "-x.mp4"])
def test_ids_are_safe_file_names(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name)
    (id_,) = ids(tmp_path / name)
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,120}", id_)


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=8))
def test_natural_order_is_that_of_the_numbers(numbers: list[int]) -> None:
    names = sorted((f"f{number}.jpg" for number in numbers), key=natural_key)
    assert names == [f"f{number}.jpg" for number in sorted(numbers)]


@pytest.mark.parametrize("name", ["x" * 4096, "x/" * 3000, "a\0b", "~nobody-such/x.mp4"])
def test_names_that_no_disk_takes_are_told_in_a_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "list.txt").write_text(f"{name}\n")
    for argument in (str(tmp_path / "list.txt"), name):
        with pytest.raises(SourceNotFound, match=r"expected a file, folder, glob"):
            find_sources([argument])


def test_lists_that_are_no_text_and_links_to_themselves(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    for name in ("list.txt", "loop.mp4"):
        with pytest.raises(SourceNotFound, match=name):
            find_sources([str(tmp_path / name)])
