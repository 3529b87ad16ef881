"""Stores that earlier versions wrote go on, are reported and backfilled; `kept_store.py` in `tests/` wrote them."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import kept_store
import pytest
import yaml

from deltascene import open_run
from deltascene.pipeline.batch import plan_video

STORES = sorted((Path(kept_store.__file__).parent / "data/stores").glob("*.tar.xz"))


@pytest.fixture(params=STORES, ids=[path.name.removesuffix(".tar.xz") for path in STORES])
def store(request, tmp_path, monkeypatch):
    """Its record, in a folder with model, clips and OUT; arithmetic and decoder have the versions that they had."""
    with tarfile.open(request.param) as kept:
        kept.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    record = yaml.safe_load(Path("out/run.yaml").read_text())
    heads = [name.partition(".") for name in record["key"]]
    key = {name: record["key"][f"numerics.{name}"] for head, _, name in heads if head == "numerics"}
    for module in ("batch.keys", "batch.backfill", "numerics.settle"):
        monkeypatch.setattr(f"deltascene.pipeline.{module}.numerics_record", lambda config: key)
    probe, decoder = plan_video.probe, f"av {record['versions']['av']}"
    monkeypatch.setattr(plan_video, "probe", lambda spec, **how: replace(probe(spec, **how), decoder=decoder))
    return record


def test_a_kept_store_goes_on_is_reported_and_backfilled(store, run_cli):
    """By the command that began it, and by the shortest one; nothing that is sealed is done again."""
    for command in (kept_store.COMMAND, ["run", "a.avi", "b.avi", "-o", "out"]):
        code, text, error = run_cli(*command, "--json")
        assert (code, error) == (0, "")
        events = [json.loads(line) for line in text.splitlines()]
        started = [(each["id"], each["sealed"]) for each in events if each["event"] == "video_started"]
        assert started == ([("b", 2)] if command is kept_store.COMMAND else [])
    assert [len(video) for video in open_run("out").videos] == [kept_store.FRAMES] * 2
    assert run_cli("report", "out")[0] == 0
    assert run_cli("cache", "verify", "out")[0] == 0
    code, text, error = run_cli("backfill", "out", "--task", "height")
    assert code == 0, text + error
    for video in open_run("out").videos:
        frame = video.frame(kept_store.FRAMES - 1)
        assert (frame["parts"].shape, frame["height"].shape) == ((24, 32), (24, 32))
    with Path("model/bundle.yaml").open("a") as bundle:
        bundle.write("# a comment\n")
    code, _, error = run_cli(*kept_store.COMMAND)
    of_bytes = "weights.bundle.yaml" in store["key"]
    assert (code, error.count("\n")) == ((2, 1) if of_bytes else (0, 0))
    assert not of_bytes or "out: holds a run with weights.bundle.yaml = " in error
