"""Inputs, results and archive in a store that speaks S3, on a real server on this machine."""

import json
import re
import threading

import boto3
import pytest
import zarr
from equal_runs import compare_runs, compare_task
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from deltascene import open_run
from deltascene.cache.places import create_whole, place, put_new, put_tree, remove, write_whole
from deltascene.pipeline.batch import flow
from deltascene.pipeline.errors import OutputError, Overtaken
from deltascene.pipeline.runs import lock
from deltascene.pipeline.runs.lock import locked

OPTIONS = ["--save", "arrays", "--preset", "balanced", "--set", "segment.frames=8", "--set", "numerics.threads=1"]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        client = boto3.client("s3")
        client.create_bucket(Bucket="films")
        yield client
        client.close()
    server.stop()


@pytest.fixture(scope="module")
def local(run_cli, tiny_delta, make_clip, tmp_path_factory):
    out = tmp_path_factory.mktemp("local") / "out"
    assert run_cli("run", make_clip(20), "-o", out, "--model", tiny_delta, *OPTIONS)[0] == 0
    return out


def test_a_run_from_a_bucket_into_a_bucket(bucket, run_cli, tiny_delta, make_clip, local, tmp_path):
    clip = make_clip(20)
    bucket.upload_file(str(clip), "films", f"in/{clip.name}")
    bucket.put_object(Bucket="films", Key="in/notes.txt", Body=b"no video")
    arguments = ["run", "s3://films/in/**", "-o", "s3://films/out", "--model", tiny_delta, *OPTIONS]
    code, text, error = run_cli(*arguments, "--tasks", "parts,flow", "--save", "arrays,video")
    assert code == 0, text + error
    run = open_run("s3://films/out")
    assert [(video.id, video.status, len(video)) for video in run.videos] == [("clip", "done", 20)]
    code, text, error = run_cli("run", "s3://films/**", *arguments[2:], "--tasks", "parts,flow")  # with OUT below it
    assert code == 0
    assert "by an earlier run" in text
    assert "passed over: results of runs (out); 1 file of other kinds (notes.txt)" in error
    assert [video.id for video in open_run("s3://films/out").videos] == ["clip"]
    code, text, error = run_cli("backfill", "s3://films/out", "--task", "height")
    assert code == 0, text + error
    for task in ("parts", "height"):
        assert not (found := compare_task(local, "s3://films/out", task)), found
    keys = [each["Key"] for each in bucket.list_objects_v2(Bucket="films", Prefix="out/")["Contents"]]
    assert {key.split("/")[1] for key in keys} == {
        "locks", "report.html", "report.json", "run.yaml", "videos", "videos.parquet",
    }  # fmt: skip
    assert not [key for key in keys if "segments/" in key and "activations" not in key]
    assert "out/videos/clip/overlay.webm" in keys
    assert run_cli("report", "s3://films/out")[0] == 0
    code, text, _ = run_cli("cache", "verify", "s3://films/out")
    assert code == 0
    assert "checked" in text


@pytest.mark.nightly
def test_what_was_begun_in_a_bucket_goes_on(bucket, run_cli, tiny_delta, make_clip, local, monkeypatch):
    """With a segment that isn't what was sealed; and after the end, with a torn shard."""
    out = ["-o", "s3://films/again", "--model", tiny_delta, *OPTIONS, "--json"]
    with monkeypatch.context() as patch:
        patch.setattr(flow, "_tidy", lambda *_: None)
        assert run_cli("run", make_clip(20), *out)[0] == 0
    bucket.delete_object(Bucket="films", Key="again/videos/clip/done.json")
    bucket.put_object(Bucket="films", Key="again/videos/clip/segments/00000008.zip", Body=b"torn")
    _, text, _ = run_cli("run", make_clip(20), *out)
    assert sum(json.loads(line)["event"] == "frame" for line in text.splitlines()) == 8
    assert not (found := compare_runs(local, "s3://films/again")), found
    bucket.put_object(Bucket="films", Key="again/videos/clip/predictions.zarr/parts/c/0/0/0", Body=b"torn")
    _, text, _ = run_cli("run", make_clip(20), *out)
    assert sum(json.loads(line)["event"] == "frame" for line in text.splitlines()) == 20


def test_plain_zarr_reads_predictions_from_the_bucket(bucket, run_cli, tiny_delta, make_clip):
    assert run_cli("run", make_clip(3), "-o", "s3://films/plain", "--model", tiny_delta, *OPTIONS)[0] == 0
    group = zarr.open_group("s3://films/plain/videos/clip/predictions.zarr", mode="r")
    assert group["parts"].shape == (3, 48, 64)


@pytest.mark.parametrize("kind", ["disk", "bucket"])
def test_one_of_many_writers_makes_a_file(bucket, tmp_path, kind):
    root = tmp_path if kind == "disk" else place("s3://films/race")
    won, barrier = [], threading.Barrier(8)

    def make(number):
        file = tmp_path / f"mine{number}"
        file.write_bytes(b"%d" % number)
        barrier.wait()
        small, large = create_whole(root / "small", b"%d" % number), put_new(file, root / "large")
        won.append((number, small, large))

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, place_of in (("small", 1), ("large", 2)):
        (winner,) = [each[0] for each in won if each[place_of]]
        assert (root / name).read_bytes() == b"%d" % winner


@pytest.mark.parametrize("kind", ["disk", "bucket"])
def test_places_behave_alike(bucket, tmp_path, kind):
    root = tmp_path / "root" if kind == "disk" else place("s3://films/alike")
    root.mkdir(parents=True, exist_ok=True)
    write_whole(root / "a.txt", "one")
    write_whole(root / "a.txt", "two")
    assert (root / "a.txt").read_text() == "two"
    tree = tmp_path / "tree"
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "deep" / "er" / "b").write_bytes(b"b")
    (tree / "zarr.json").write_bytes(b"{}")
    put_tree(tree, root / "tree", last="zarr.json")
    assert (root / "tree" / "deep" / "er" / "b").read_bytes() == b"b"
    remove(root / "tree")
    remove(root / "tree")
    assert not (root / "tree" / "deep" / "er" / "b").exists()
    assert (root / "a.txt").exists()


@pytest.mark.parametrize("kind", ["disk", "bucket"])
def test_a_writer_that_was_taken_for_dead_can_seal_nothing(bucket, tmp_path, monkeypatch, kind):
    root = tmp_path / "out" if kind == "disk" else place("s3://films/fenced")
    monkeypatch.setattr(lock.socket, "gethostname", lambda: "here")
    with locked(root) as asleep:
        with pytest.raises(OutputError, match="is writing there"), locked(root):
            pass
        monkeypatch.setattr(lock.socket, "gethostname", lambda: "there")
        with pytest.raises(OutputError, match=r"process \d+ on here is writing there"), locked(root):
            pass
        monkeypatch.setattr(lock, "STALE_S", -1.0)
        with locked(root) as awake:
            assert awake.number == asleep.number + 1
            awake.require()
            with pytest.raises(Overtaken, match="another run took over"):
                asleep.require()
    with locked(root) as later:
        assert later.number == awake.number + 1


@pytest.mark.parametrize("kind", ["disk", "bucket"])
def test_of_drivers_that_race_one_has_the_lock(bucket, tmp_path, kind):
    root = tmp_path / "out" if kind == "disk" else place("s3://films/raced")
    barrier, inside, refused = threading.Barrier(6), [], []

    def drive():
        barrier.wait()
        try:
            with locked(root) as fence:
                inside.append(fence.number)
                ended.wait(20)
        except OutputError as error:
            refused.append(str(error))
            if len(refused) == 5:
                ended.set()

    ended = threading.Event()
    threads = [threading.Thread(target=drive) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, len(refused)) == ([1], 5)


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["s3://films/nothing/**"], 2, "found none there"),
        (["s3://no-such-bucket/a.mp4"], 2, "s3://no-such-bucket/a.mp4: expected videos"),
        (["nosuch://x/a.mp4"], 2, "nosuch://"),
    ],
)
def test_what_is_not_in_a_store_is_one_clear_line(bucket, run_cli, tiny_delta, tmp_path, arguments, code, expected):
    found, _, error = run_cli("run", *arguments, "-o", tmp_path / "out", "--model", tiny_delta)
    assert (found, error.count("\n")) == (code, 1), error
    assert expected in error


def test_a_store_that_cannot_tell_two_writers_apart_is_refused(run_cli, tiny_delta, make_clip):
    code, _, error = run_cli("run", make_clip(2), "-o", "memory://out", "--model", tiny_delta)
    assert (code, error.count("\n")) == (2, 1)
    assert re.search(r"expected a folder or an s3:// URL.* found memory://", error)
