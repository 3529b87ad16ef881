"""Files with every kind of name, through the whole command: nothing may break a terminal, a table, a page or JSON."""

import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata

import pytest

from deltascene import open_run
from deltascene.pipeline.text import path_text, printable

GOOD = [
    "new\nline", "esc\x1b[31mred\x1b[0m", "-o", "quote'\"`$(x)\\", "<b>&amp;{{7*7}}", "[bold]x[red]", "CASE", "case",
    unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"), "日本", "中国", "\u202egnp", "%03d", "a*?[1]",
    "🎬 #x?y=1;z", "x" * 251, unicodedata.normalize("NFD", "é") * 83, os.fsdecode(b"\xff\xfe"),
]  # fmt: skip
BROKEN = ["bad\x1b]0;title\x07", "bad\nline\r\u2028x", "<script>alert(1)<", os.fsdecode(b"\xfebad"), "\u0301" * 125]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def made(make_clip, tiny, made_once):
    """A folder of inputs, and the command's results and streams."""

    def make(folder):
        make_inputs(folder / "names", make_clip(2))
        options = ["--model", tiny, "--no-archive", "--set", "save.video=false", "--set", "numerics.threads=1"]
        command = [
            sys.executable,
            "-m",
            "deltascene",
            "run",
            str(folder / "names"),
            "-o",
            str(folder / "out"),
            *options,
        ]
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as error:
            done = subprocess.run(command, stdout=out, stderr=error, timeout=600, env=os.environ | {"COLUMNS": "100"})
        (folder / "code").write_text(str(done.returncode))

    return made_once("strange names", make)


def make_inputs(root, clip):
    """Clips and broken files, one below another folder, and links that go round in circles."""
    root.mkdir()
    for name in GOOD:
        shutil.copy(clip, root / f"{name}.avi")
    for name in BROKEN:
        (root / f"{name}.mp4").touch()
    (root / "sub").mkdir()
    shutil.copy(clip, root / "sub/case.avi")
    (root / "sub/up").symlink_to(root)
    (root / "loop").symlink_to("loop")
    (root / "self.avi").symlink_to("self.avi")
    (root / "to itself").symlink_to(".")


@pytest.fixture(scope="module")
def folder(made):
    return made / "names"


@pytest.fixture(scope="module")
def ran(made):
    """OUT, and the command as it ran in a process of its own, with real streams."""
    code, streams = int((made / "code").read_text()), [(made / name).read_bytes() for name in ("stdout", "stderr")]
    return made / "out", subprocess.CompletedProcess([], code, *streams)


@pytest.mark.nightly
def test_every_file_is_an_input_of_its_own(folder, ran):
    out, done = ran
    assert done.returncode == 3, done.stderr.decode()
    run = open_run(out)
    sources = {path_text(folder / f"{name}.avi") for name in GOOD} | {str(folder / "sub/case.avi")}
    assert {video.source for video in run.videos if video.status == "done"} == sources
    broken = {path_text(folder / f"{name}.mp4") for name in BROKEN}
    assert {video.source for video in run.videos if video.status == "failed"} == broken
    ids = [video.id.casefold() for video in run.videos]
    assert len(set(ids)) == len(GOOD) + len(BROKEN) + 1
    for id_ in ids:
        assert not re.search(r"[/\\:*?\"<>|\[\]#%]", id_)
        assert not CONTROL.search(id_)
        assert id_.strip(". ") == id_
        assert 0 < len(id_.encode()) <= 120
    assert {"日本", "中国", "🎬 _x_y=1;z"} <= set(ids)
    assert all(len(video) == 2 and video.frame(1).valid for video in run.videos if video.status == "done")


@pytest.mark.nightly
def test_the_terminal_gets_nothing_but_lines_of_text(ran):
    out, done = ran
    jobs = subprocess.run([sys.executable, "-m", "deltascene", "jobs", str(out)], capture_output=True, check=True)
    for text in (done.stdout.decode(), done.stderr.decode(), jobs.stdout.decode()):
        assert not CONTROL.search(text)
    assert r"bad\x1b]0;title\x07.mp4: expected a video, found an empty file" in done.stdout.decode()
    assert len(jobs.stdout.decode().splitlines()) == len(GOOD) + len(BROKEN) + 3


@pytest.mark.nightly
def test_files_for_programs_can_be_read(ran):
    out, _ = ran
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert len(report["videos"]) == len(GOOD) + len(BROKEN) + 1
    errors = [json.loads(line) for line in (out / "errors.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(errors) == len(BROKEN)
    assert not any(CONTROL.search(error["error"]) for error in errors)
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert "{{7*7}}" in html
    assert "<b>&amp;" not in html.replace("&lt;b&gt;", "")


# Each name of a file that isn't there is a command of its own; the process and its real streams are the same.
ONE_BY_ONE = """
import sys
from deltascene.pipeline.cli.app import main
_, out, *names = sys.argv
for name in names:
    sys.argv = ["deltascene", "run", "-o", out, "--", name]
    try:
        main()
    except SystemExit as ended:
        assert ended.code == 2, ended.code
"""


@pytest.mark.nightly
def test_one_of_them_alone_is_named_on_the_command_line_and_an_error_stays_on_its_line(folder, tmp_path):
    names = ["gone\x1b[31m\n.mp4", "y" * 300 + ".mp4", os.fsdecode(b"\xfa.mp4")]
    command = [sys.executable, "-c", ONE_BY_ONE, str(tmp_path / "out"), *names]
    done = subprocess.run(command, capture_output=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.decode().splitlines()
    assert len(lines) == done.stderr.count(b"\n") == len(names)
    for name, line in zip(names, lines, strict=True):
        assert not CONTROL.search(line)
        assert printable(name)[:20] in line


def test_printable_leaves_words_and_spells_out_the_rest():
    plain = "Größe 日本 é 🎬 12\u202f500 «x» | [a]"
    assert printable(plain) == plain
    assert printable("a\x1b[0m\n\u202eb\udcff") == "a\\x1b[0m\\n\\u202eb\\udcff"
