"""`--verify full` beside `quick`: an input is the same under both; `full` sees the bytes that `quick` leaves out."""

import json
import os
import shutil
import signal
from itertools import product

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from deltascene import open_run
from deltascene.cache.keys import fingerprint
from deltascene.cache.seal import read_seal
from deltascene.pipeline.batch import flow
from deltascene.pipeline.commands.progress import JsonEvents
from deltascene.pipeline.report.pictures import read_images
from deltascene.pipeline.runs.archives import archives
from deltascene.pipeline.runs.folder import RunFolder
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.identity import Identity, identity, recognise
from deltascene.pipeline.sources.reader import TIMEOUT_S, probe

MIB = 1 << 20
FRAMES, SEGMENT = 12, 3
OPTIONS = [
    "--set",
    f"segment.frames={SEGMENT}",
    "--set",
    "numerics.threads=1",
    "--dtype",
    "float32",
    "--save",
    "arrays",
]
WAYS = ["quick", "full"]


def noise(number):
    return np.random.default_rng(number).integers(0, 256, (720, 1280, 3), dtype=np.uint8)


def change_between(path):
    """Changes a byte after the first and before the middle MiB."""
    size = path.stat().st_size
    place = (MIB + (size - MIB) // 2) // 2
    assert place > MIB + 1000
    with path.open("r+b") as file:
        file.seek(place)
        before = file.read(1)
        file.seek(place)
        file.write(bytes([before[0] ^ 1]))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A real MJPG video of more than 3 MiB."""
    path = tmp_path_factory.mktemp("film") / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (1280, 720))
    for number in range(FRAMES):
        writer.write(noise(number))
    writer.release()
    assert path.stat().st_size > 4 * MIB
    return path


@pytest.fixture(scope="module")
def run(run_cli, tiny_delta):
    """Runs an input; returns exit code, events and standard error."""

    def call(source, out, *options):
        arguments = ["run", source, "-o", out, "--model", tiny_delta, "--tasks", "parts", "--json", *OPTIONS]
        code, text, error = run_cli(*arguments, *options)
        return code, [json.loads(line) for line in text.splitlines()], error

    return call


@pytest.fixture(scope="module")
def finished(run, film, tmp_path_factory):
    """A finished run under each way, and under `full` as the version before wrote it."""
    outs = {way: tmp_path_factory.mktemp(way) / "out" for way in [*WAYS, "older full"]}
    for way in WAYS:
        assert run(film, outs[way], "--verify", way)[0] == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, "identity", older_full)
        assert run(film, outs["older full"], "--verify", "full")[0] == 0
    as_older(outs["older full"])
    return outs


@pytest.fixture
def copied(finished, tmp_path):
    return lambda way: shutil.copytree(finished[way], tmp_path / "out")


def older_full(spec, full):
    """What the version before took for the identity with `--verify full`."""
    assert full
    return Identity(identity(spec, full=True).full)


def as_older(out):
    """Takes away what the version before didn't write."""
    done = out / "videos/film/done.json"
    data = json.loads(done.read_text())
    assert data.pop("identity_full") == ""
    done.write_text(json.dumps(data))
    table = pq.read_table(out / "videos.parquet")
    pq.write_table(table.drop_columns(["identity_full"]), out / "videos.parquet")


def stopped(run, film, out, way):
    """A run that is asked to stop at its first frame; returns how many frames it sealed."""
    real = JsonEvents.frame_done

    def stop(self, spec, frame):
        real(self, spec, frame)
        if frame.index == 0:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JsonEvents, "frame_done", stop)
        assert run(film, out, "--verify", way)[0] == 130
    sealed = [read_seal(path) for path in (out / "videos/film/segments").glob("*.zip")]
    assert 0 < len(sealed) < FRAMES // SEGMENT
    return sum(seal.frames for seal in sealed)


def count(events, name):
    return sum(event["event"] == name for event in events)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        *product(WAYS, WAYS),
        ("older full", "quick"),
        pytest.param("older full", "full", marks=pytest.mark.nightly),
    ],
)
def test_a_finished_run_stays_finished_under_the_other_way(run, film, copied, first, then):
    out = copied(first)
    code, events, error = run(film, out, "--verify", then)
    assert (code, count(events, "frame")) == (0, 0), error
    assert events[0]["reused"]
    whole = identity(find_sources([str(film)])[0], full=True)
    assert whole.quick != whole.full
    known = "" if first == then == "quick" else whole.full
    video = open_run(out)["film"]
    assert (video.record.identity, video.record.identity_full) == (whole.quick, known)
    done = json.loads((out / "videos/film/done.json").read_text())
    assert (done["identity"], done["identity_full"]) == (whole.quick, known)
    assert list(read_images(video, [0, 7], TIMEOUT_S)) == [0, 7]


def test_a_store_of_the_version_before_is_not_written_where_nothing_new_is_known(run, film, copied):
    out = copied("quick")
    as_older(out)
    done = out / "videos/film/done.json"
    before = done.read_bytes()
    code, events, error = run(film, out)
    assert (code, count(events, "frame")) == (0, 0), error
    assert done.read_bytes() == before


def test_pictures_of_a_report_of_an_older_run_with_a_full_identity(finished):
    assert list(read_images(open_run(finished["older full"])["film"], [3], TIMEOUT_S)) == [3]


@pytest.mark.parametrize("way", [*WAYS, "older full"])
def test_bytes_that_quick_leaves_out_are_refused_by_full_where_it_is_known(run, film, copied, tmp_path, way):
    changed, out = tmp_path / "film.avi", copied(way)
    shutil.copy(film, changed)
    change_between(changed)
    codes = {then: run(changed, out, "--verify", then)[::2] for then in ("full", "quick")}
    refused = {then for then, (code, error) in codes.items() if code == 2 and "was made from another film.avi" in error}
    assert refused == {"quick": set(), "full": {"full"}, "older full": {"full", "quick"}}[way]
    assert {code for then, (code, _) in codes.items() if then not in refused} <= {0}


@pytest.mark.parametrize(("first", "then"), [("quick", "full"), ("full", "quick"), ("older full", "full")])
def test_an_unfinished_run_keeps_its_sealed_segments_under_the_other_way(
    run, film, finished, tmp_path, monkeypatch, first, then
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        if first == "older full":
            patch.setattr(flow, "identity", older_full)
        sealed = stopped(run, film, out, first.split()[-1])
    code, events, error = run(film, out, "--verify", then)
    assert code == 0, error
    assert events[0] == {**events[0], "event": "video_started", "frames": FRAMES, "sealed": sealed}
    assert count(events, "frame") == FRAMES - sealed
    record, whole = open_run(out)["film"].record, identity(find_sources([str(film)])[0], full=True)
    assert (record.identity, record.identity_full) == (whole.quick, whole.full)
    ours, theirs = (open_run(each)["film"].arrays for each in (out, finished["quick"]))
    assert ours._read("parts").tobytes() == theirs._read("parts").tobytes()


def test_sealed_segments_of_other_bytes_are_done_again_under_full_alone(run, film, tmp_path):
    changed = shutil.copy(film, tmp_path / "film.avi")
    sealed = stopped(run, changed, tmp_path / "out", "full")
    change_between(changed)
    shutil.copytree(tmp_path / "out", tmp_path / "other")
    for out, then, kept in (("out", "full", 0), ("other", "quick", sealed)):
        code, events, error = run(changed, tmp_path / out, "--verify", then)
        assert (code, events[0]["sealed"]) == (0, kept), error


@pytest.mark.parametrize("way", WAYS)
def test_segments_and_archive_are_keyed_by_the_quick_identity(run, film, tmp_path, way):
    stopped(run, film, tmp_path, way)
    spec, key = find_sources([str(film)])[0], open_run(tmp_path).config["key"]
    now = identity(spec, full=True)
    seal = read_seal(tmp_path / "videos/film/segments/00000000.zip")
    assert seal.fingerprint == fingerprint({**key, "input": now.quick, "decoder": probe(spec).decoder})
    assert seal.input_full == (now.full if way == "full" else "")
    ((_, store),) = archives(RunFolder(tmp_path))
    assert store.seal(0).key["input"] == now.quick


@pytest.mark.parametrize("first", [*WAYS, "older full"])
def test_an_archive_is_filled_whichever_way_it_was_verified(run, run_cli, film, copied, tiny_delta, first):
    out = copied(first)
    assert run(film, out, "--verify", "full" if first == "quick" else "quick")[0] == 0
    code, text, error = run_cli("backfill", out, "--task", "height", "--model", tiny_delta)
    assert code == 0, text + error
    assert open_run(out)["film"].frame(11).tasks == ("parts", "height")


def test_a_sequence_of_large_images(run, tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for number in range(3):
        cv2.imwrite(str(images / f"{number}.bmp"), np.tile(noise(number), (2, 1, 1)))
    (spec,) = find_sources([str(images)])
    whole, alone = identity(spec, full=True), identity(spec)
    assert (whole.quick, alone.full) == (alone.quick, "")
    assert whole.full not in (whole.quick, "")
    for way in ("quick", "full", "quick"):
        code, events, error = run(images, out, "--verify", way)
        assert code == 0, error
    assert count(events, "frame") == 0
    change_between(images / "1.bmp")
    assert run(images, out)[0] == 0
    code, _, error = run(images, out, "--verify", "full")
    assert (code, error.count("\n")) == (2, 1)
    assert "was made from another images" in error


def test_like_is_compared_with_like():
    one = Identity("q", "f")
    assert one.matches(one)
    assert one.matches(Identity("q"))
    assert one.matches(Identity("f")), "as the version before recorded it"
    assert not one.matches(Identity("q", "g"))
    assert not one.matches(Identity("p"))
    assert not Identity("q").matches(Identity("p"))
    assert not Identity("").matches(Identity(""))


def test_up_to_three_mib_both_hashes_are_the_same(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(bytes(3 * MIB))
    (spec,) = find_sources([str(path)])
    small = identity(spec, full=True)
    assert small.quick == small.full == identity(spec).quick
    path.write_bytes(bytes(3 * MIB + 1))
    large = identity(spec, full=True)
    assert large.quick not in (large.full, small.quick)
    assert recognise(spec, Identity(large.full), Identity(large.quick)) == large
    assert recognise(spec, small, large) is None
