"""What the programs about reading videos find: nothing in a good file, what is wrong in another."""

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
ODD = Path(__file__).resolve().parents[1] / "data" / "odd_videos"


@pytest.fixture(scope="module")
def program() -> Iterator[None]:
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def odd_videos(program: None) -> ModuleType:
    return importlib.import_module("odd_videos")


def test_a_table_says_of_a_folder_what_is_wrong(odd_videos, tmp_path, monkeypatch, capsys):
    truth = odd_videos.json.loads((ODD / "truth.json").read_text())
    truth["th.ogv"]["quarter_means"]["0"][0][0][0] += 9
    truth["th.ogv"]["frames"] += 1
    for name in ("th.ogv", "hflip.mp4"):
        shutil.copy(ODD / name, tmp_path)
    (tmp_path / "truth.json").write_text(odd_videos.json.dumps(truth))
    (tmp_path / "none.mp4").write_bytes(b"nothing")
    out = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["odd_videos.py", str(tmp_path), "--out", str(out)])
    assert odd_videos.main() == 1
    flipped, none, theora = odd_videos.json.loads(out.read_text())
    assert (flipped["frames"], flipped["seeks"], flipped["invalid"], flipped["wrong"]) == (30, True, {}, [])
    assert (none["frames"], none["wrong"]) == (0, [])
    assert theora["wrong"] == ["truth.json: frames, picture 0"]
    assert "3 files, 1 differ" in capsys.readouterr().out


def test_joined_recordings_follow_one_another(program):
    says = importlib.import_module("ffmpeg_says")
    assert says.continuous(np.array([5, 7, 9, 2, 4, 6])).tolist() == [0, 2, 4, 6, 8, 10]
    assert says.continuous(np.array([0, 2, 4, 90, 92]), jump=50).tolist() == [0, 2, 4, 6, 8]
    assert says.continuous(np.array([0, 2, 4, 90, 92])).tolist() == [0, 2, 4, 90, 92]


def test_damage_is_counted_where_it_shows(program, tmp_path):
    damage = importlib.import_module("decode_damage")
    kind = damage.KINDS["H.264 mp4"]
    clip = damage.write_clip(tmp_path / "whole.mp4", kind, 50)
    assert [group for _, _, group in clip.packets] == sorted(clip.groups) == [0] * 25 + [1] * 25
    count = damage.Count("", "")
    (tmp_path / "same.mp4").write_bytes(clip.path.read_bytes())
    damage.add(count, clip, set(), tmp_path / "same.mp4")
    assert (count.seen, count.flagged, count.same, count.falsely) == (0, 0, 50, 0)
    data = bytearray(clip.path.read_bytes())
    pos, size, _ = clip.packets[0]
    data[pos + size // 4 : pos + size] = Random(1).randbytes(size - size // 4)
    (tmp_path / "damaged.mp4").write_bytes(data)
    damage.add(count, clip, {0}, tmp_path / "damaged.mp4")
    assert 0 < count.flagged <= count.seen <= 25
    assert (count.same, count.falsely) == (50 + 25, 0)


def test_damage_lies_where_it_is_said_to_be(program, tmp_path):
    damage = importlib.import_module("decode_damage")
    clip = damage.write_clip(tmp_path / "whole.mp4", damage.KINDS["MPEG-4 mp4"], 30)
    whole = clip.path.read_bytes()
    for style in damage.STYLES[:4]:
        data, groups = damage.damaged(clip, style, Random(1))
        changed = [at for at, (a, b) in enumerate(zip(data, whole, strict=True)) if a != b]
        inside = {group for pos, size, group in clip.packets for at in changed if pos <= at < pos + size}
        assert changed
        assert inside <= groups


def test_both_readers_read_the_whole_clip(program, tmp_path, monkeypatch):
    cost = importlib.import_module("decode_cost")
    monkeypatch.setattr(cost, "THREADS", (1,))
    cost.write_clip(tmp_path / "clip.mp4", "MPEG-4", (64, 48), 6)
    (found,) = cost.measure({("MPEG-4", (64, 48)): tmp_path / "clip.mp4"}, 6, 1)
    assert found.ratio == found.ours / found.opencv > 0
