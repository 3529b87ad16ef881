import os
import re
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deltascene.cache.places import place
from deltascene.pipeline.sources.errors import SourceNotFound
from deltascene.pipeline.sources.find import Findings, find_sources, natural_key, search
from deltascene.pipeline.sources.pictures import positions_of


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
    assert [(spec.id, spec.kind) for spec in specs] == [("my clip", "video"), ("text", "video")]
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
    assert ids(f"{tmp_path}/**/y/**") == ["x_y_a3", "x_y_b1", "x_y_z_a4"]
    assert ids(f"{tmp_path}/**/y") == ["x_y_a3", "x_y_b1", "x_y_z_a4"]
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


def test_images_of_a_list_have_ids_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "one.jpg", "two.jpg")
    (tmp_path / "todo.txt").write_text("one.jpg\ntwo.jpg\n")
    assert ids(tmp_path / "todo.txt") == ["one", "two"]


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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_lists_as_other_programs_write_them(tmp_path: Path, encoding: str) -> None:
    touch(tmp_path, "a b.mp4", "日本.mp4", "c.mp4")
    text = "\ufeff" * (encoding == "utf-16-be") + "# today\r\n\"a b.mp4\" \r\n'日本.mp4'\r\n  c.mp4\t\r\n"
    (tmp_path / "todo.txt").write_bytes(text.encode(encoding))
    assert ids(tmp_path / "todo.txt") == ["a b", "日本", "c"]


@pytest.mark.parametrize("data", [b"\x00\x01video", "a.mp4".encode("utf-16-le"), b"\xff\xfea"])
def test_a_binary_list_is_told_in_a_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "todo.txt").write_bytes(data)
    with pytest.raises(SourceNotFound, match=r"todo\.t.*can't be read: .*(binary file|truncated)"):
        find_sources([str(tmp_path / "todo.txt")])


def found_in(out: Path, *arguments: Path | str) -> Findings:
    return search([str(each) for each in arguments], out)


def names(findings: Findings) -> list[str]:
    return [spec.path.name for spec in findings.specs]


def test_results_are_never_inputs(tmp_path: Path) -> None:
    out, old = tmp_path / "out", tmp_path / "deep/old"
    touch(tmp_path, "a.mp4", "deep/b.mp4", "out/x.mp4", "out/videos/a/overlay.webm")
    touch(old, "run.yaml", "videos.parquet", "videos/b/overlay.webm", "videos/b/png/seg/000001.png")
    touch(tmp_path, "not_one/run.yaml", "not_one/c.mp4")
    (tmp_path / "way").symlink_to(out)
    (tmp_path / "todo.txt").write_text("a.mp4\nout/x.mp4\ndeep\n")
    for arguments in ([tmp_path], [f"{tmp_path}/**"], [f"{tmp_path}/**/*.*"], [tmp_path, out], [f"{tmp_path}/*"]):
        findings = found_in(out, *arguments)
        assert sorted(names(findings)) == ["a.mp4", "b.mp4", "c.mp4"]
        assert "results of runs (" in findings.notes[0]
    for argument in (out / "x.mp4", tmp_path / "way/x.mp4", f"{out}/*.mp4", f"{tmp_path}/*/x.mp4"):
        findings = found_in(out, tmp_path / "a.mp4", argument)
        assert names(findings) == ["a.mp4"]
        assert findings.notes == ("passed over: results of runs (out)",)
        with pytest.raises(SourceNotFound, match=r"expected videos or images; passed over: results of runs \(out\)"):
            found_in(out, argument)
    assert names(found_in(out, tmp_path / "todo.txt")) == ["a.mp4", "b.mp4"]
    assert names(found_in(out, old / "videos/b/overlay.webm")) == ["overlay.webm"]  # another run's, named itself
    with pytest.raises(SourceNotFound, match="results of runs"):
        find_sources([str(old)])


def test_results_in_a_store_are_never_inputs() -> None:
    store, keys = fsspec.filesystem("memory"), ("a.mp4", "out/videos/a/overlay.webm", ".x.mp4", "day/日本.mkv", "c.txt")
    for key in (*keys, *(f"old/{name}" for name in ("run.yaml", "videos.parquet", "videos/b/overlay.webm"))):
        store.pipe_file(f"/find/{key}", b"x")
    out = place("memory://find/out")
    for url in ("memory://find", "memory://find/**"):
        findings = search([url], out)
        assert [spec.id for spec in findings.specs] == ["a", "day_日本"]
        assert findings.notes == ("passed over: results of runs (old, out); 1 file of other kinds (c.txt)",)
    assert [spec.id for spec in search(["memory://find/**/*.webm", "memory://find/a.mp4"], out).specs] == ["a"]
    with pytest.raises(SourceNotFound, match="results of runs"):
        search(["memory://find/out/videos/a/overlay.webm"], out)


def test_what_is_passed_over_is_counted_and_named_in_one_line(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.srt", "b.wav", "notes.md", "z.txt", "Thumbs.db", ".DS_Store", "__MACOSX/x.mp4")
    touch(tmp_path / "shots", "1.jpg", "2.jpg")
    findings = found_in(tmp_path / "out", tmp_path, f"{tmp_path}/**")
    assert findings.notes == (
        "passed over: 4 files of other kinds (a.srt, b.wav, notes.md, …); 2 images beside videos"
        f" ('{tmp_path}/shots/*.jpg' names them as a sequence)",
    )
    assert ids(f"{tmp_path}/shots/*.jpg") == ["shots"]
    assert found_in(tmp_path / "out", tmp_path / "a.mp4").notes == ()


def test_an_animated_picture_is_a_video_and_leaves_sequences_beside_it(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 90, 180)]
    for name in ("a.gif", "b.png", "c.webp"):
        pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:])
    for name in ("f/1.png", "f/2.webp", "f/3.jpg"):
        (tmp_path / "f").mkdir(exist_ok=True)
        pictures[0].save(tmp_path / name, save_all=False)
    kinds = {spec.id: (spec.kind, len(spec.paths)) for spec in find_sources([str(tmp_path)])}
    assert kinds == {"a": ("video", 1), "b": ("video", 1), "c": ("video", 1), "f": ("sequence", 3)}
    named = find_sources([str(tmp_path / name) for name in ("a.gif", "b.png", "c.webp", "f/1.png", "f/2.webp")])
    assert [spec.kind for spec in named] == ["video"] * 3 + ["sequence"] * 2


def test_a_pipe_among_images_is_not_opened(tmp_path: Path) -> None:
    touch(tmp_path, "1.png")
    os.mkfifo(tmp_path / "2.png")
    assert [len(spec.paths) for spec in find_sources([str(tmp_path)])] == [1]
    assert [spec.kind for spec in find_sources([str(tmp_path / "2.png")])] == ["sequence"]


@pytest.mark.parametrize(
    ("numbers", "positions"),
    [
        ("f5.jpg f6.jpg f9.jpg", (0, 1, 4)),
        ("take2_0007.jpg take2_0107.jpg", (0, 100)),
        ("0.jpg 1.jpg 2.jpg", ()),
        ("f5.jpg", ()),
        ("f5.jpg f6.jpg g9.jpg", ()),
        ("1-5.jpg 1-7.jpg 2-9.jpg", ()),
        ("f1.jpg f01.jpg f3.jpg", ()),
        ("20240131.jpg 20240201.jpg", ()),
        ("1706700000.jpg 1706700033.jpg", ()),
        ("1.jpg 10002.jpg", ()),
    ],
)
def test_numbers_of_images_are_their_times(tmp_path: Path, numbers: str, positions: tuple[int, ...]) -> None:
    touch(tmp_path / "shots", *numbers.split())
    assert [positions_of(spec.paths) for spec in find_sources([str(tmp_path / "shots")])] == [positions]


def test_gaps_are_told_once(tmp_path: Path) -> None:
    touch(tmp_path, *(f"shots/f{number:04d}.jpg" for number in (3, 4, 17, 18, 21)), "b/1.png", "b/3.png")
    (spec,) = find_sources([f"{tmp_path}/shots/f%04d.jpg"])
    assert positions_of(spec.paths) == (0, 1, 14, 15, 18)
    line = "shots: its numbered images have 2 gaps, the longest of 12 images"
    assert found_in(tmp_path / "out", tmp_path / "shots").notes == (f"{line}; times follow the numbers",)
    both = found_in(tmp_path / "out", tmp_path / "shots", tmp_path / "b")
    assert both.notes == (f"{line}, and 1 more sequence has gaps; times follow the numbers",)


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


def test_a_list_may_hold_names_that_are_not_utf_8_and_letters_that_end_lines_elsewhere(tmp_path: Path) -> None:
    names = [b"\xff.mp4", "a\u2028b.mp4".encode(), b"c\x0cd.mp4"]
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    (tmp_path / "todo.txt").write_bytes(b"\r\n".join(names))
    specs = find_sources([str(tmp_path / "todo.txt")])
    assert [os.fsencode(spec.path.name) for spec in specs] == names
    assert len({spec.id for spec in specs}) == 3


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


def named(found: Findings) -> list[tuple[str, list[str]]]:
    return [(spec.id, [path.name for path in spec.paths]) for spec in found.specs]


def test_numbered_images_of_several_names_are_several_sequences(tmp_path: Path) -> None:
    names = ["left_001.png", "left_002.png", "right_001.png", "right_005.png"]
    touch(tmp_path / "two", *names)
    found = search([str(tmp_path / "two")])
    assert named(found) == [("two_left", names[:2]), ("two_right", names[2:])]
    assert found.notes == ("two_right: its numbered images have 1 gap of 3 images; times follow the numbers",)
    touch(tmp_path / "kinds", "f1_rgb.png", "f1_depth.png", "f2_rgb.png", "f2_depth.png")
    assert named(search([str(tmp_path / "kinds")])) == [
        ("kinds_f_depth", ["f1_depth.png", "f2_depth.png"]),
        ("kinds_f_rgb", ["f1_rgb.png", "f2_rgb.png"]),
    ]


def test_a_single_image_beside_numbered_ones_is_told(tmp_path: Path) -> None:
    touch(tmp_path / "film", "f_0001.jpg", "f_0003.JPG", "f_0009.jpg", "poster.jpg")
    found = search([str(tmp_path / "film")])
    assert named(found) == [("film", ["f_0001.jpg", "f_0003.JPG", "f_0009.jpg"])]
    assert found.notes == (
        "passed over: 1 image beside numbered ones (poster.jpg)",
        "film: its numbered images have 2 gaps, the longest of 5 images; times follow the numbers",
    )


def test_photographs_of_any_name_stay_one_sequence(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "a.jpg", "b.jpg", "c1.jpg", "c2.jpg")
    assert named(search([str(tmp_path / "photos")])) == [("photos", ["a.jpg", "b.jpg", "c1.jpg", "c2.jpg"])]


@pytest.mark.parametrize("pattern", ["*/*", "*/videos/*/*.webm", "**"])
def test_results_are_no_inputs_of_globs(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip/a.mp4").touch()
    inside = tmp_path / "results/videos/a"
    inside.mkdir(parents=True)
    (inside / "overlay.webm").touch()
    for name in ("run.yaml", "videos.parquet"):
        (tmp_path / "results" / name).touch()
    if "webm" in pattern:
        with pytest.raises(SourceNotFound, match=r"results of runs \(results\)"):
            search([str(tmp_path / pattern)])
    else:
        found = search([str(tmp_path / pattern)])
        assert [spec.path.name for spec in found.specs] == ["a.mp4"]


def test_no_name_is_no_folder() -> None:
    with pytest.raises(SourceNotFound, match="empty name"):
        search([""])
