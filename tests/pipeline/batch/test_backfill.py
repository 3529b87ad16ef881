"""Archive and backfill of real runs: a task added later is the task run at once, byte for byte, and costs its part."""

import json
import shutil

import numpy as np
import pyarrow.compute as pc
import pytest
import yaml
from equal_runs import CLOCK_COLUMNS, compare_task, without_audits
from safetensors import safe_open
from safetensors.torch import save_file

from deltascene import open_run
from deltascene.cache.zarr_store import ZarrStore
from deltascene.pipeline.batch import backfill
from deltascene.pipeline.config import load_config
from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.evaluation.what_if import replay
from deltascene.pipeline.runs.folder import RunFolder
from deltascene.pipeline.sources.find import find_sources

FRAMES = 44
OPTIONS = ["--preset", "balanced", "--save", "arrays", "--set", "numerics.threads=1", "--set", "segment.frames=20"]


@pytest.fixture(scope="module")
def clip(make_clip):
    return make_clip(FRAMES)


@pytest.fixture(scope="module")
def whole(run_cli, tiny_delta, clip, tmp_path_factory):
    """A run with every task."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run_cli("run", clip, "-o", out, "--model", tiny_delta, *OPTIONS)[0] == 0
    return out


@pytest.fixture(scope="module")
def part(run_cli, tiny_delta, clip, tmp_path_factory):
    """A run of the base task alone."""
    out = tmp_path_factory.mktemp("part") / "out"
    assert run_cli("run", clip, "-o", out, "--model", tiny_delta, "--tasks", "parts", *OPTIONS)[0] == 0
    return out


@pytest.fixture
def copy(part, tmp_path):
    return shutil.copytree(part, tmp_path / "copy")


def rows_of(out, task):
    """A task's ledger rows, without audits, what the clock says and where its activations came from."""
    table = without_audits(open_run(out)["clip"].ledger())
    return table.filter(pc.equal(table["task"], task)).drop_columns([*CLOCK_COLUMNS, "bytes_read", "patches_moved"])


def test_the_clip_asks_for_everything(whole):
    table = open_run(whole)["clip"].ledger()
    assert set(table["policy"].to_pylist()) == {"dense", "rows", "warped"}
    starts = ZarrStore(open_run(whole)["clip"].files.activations).starts()
    assert starts == (0, 20, 40)


@pytest.mark.parametrize("task", ["height", "flow"])
def test_a_backfill_is_the_run_with_the_task_on(run_cli, whole, copy, task):
    code, text, _ = run_cli("backfill", copy, "--task", task)
    assert code == 0, text
    assert f"{task}: 1 of 1 videos done" in text
    assert not (found := compare_task(whole, copy, task)), found
    assert rows_of(whole, task).equals(rows_of(copy, task))
    assert not (found := compare_task(whole, copy, "parts")), found  # what was there stays
    assert open_run(copy).config["backfilled"][task]["numerics.threads"] == 1
    report = json.loads((copy / "report.json").read_text())
    assert set(report["tasks"]) == {"parts", task}


def test_a_task_that_shares_the_bases_blocks_runs_them_from_the_archive(run_cli, tiny_delta, clip, tmp_path):
    unrounded = [*OPTIONS, "--set", "numerics.split_dtype=float32", "--model", tiny_delta]
    whole, later = tmp_path / "whole", tmp_path / "later"
    assert run_cli("run", clip, "-o", whole, *unrounded)[0] == 0
    assert run_cli("run", clip, "-o", later, "--tasks", "parts", *unrounded)[0] == 0
    assert run_cli("backfill", later, "--task", "hands")[0] == 0
    assert not (found := compare_task(whole, later, "hands")), found


def test_a_backfill_needs_no_video_and_nothing_below_the_split(
    run_cli, tiny_delta, whole, copy, clip, tmp_path, monkeypatch
):
    model = shutil.copytree(tiny_delta, tmp_path / "model")
    with safe_open(model / "base.safetensors", framework="pt") as file:
        kept = {
            name: file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118 - not a mapping
            if name.startswith(("blocks.3.", "blocks.4.", "blocks.5."))
        }
    path = model / "base.safetensors"
    data = path.read_bytes()
    save_file(kept, path)
    moved = clip.rename(clip.with_suffix(".gone"))
    monkeypatch.setattr("deltascene.pipeline.batch.backfill.file_sha256", _sha_of({path: data}))
    try:
        code, text, error = run_cli("backfill", copy, "--task", "height", "--model", model)
    finally:
        moved.rename(clip)
    assert code == 0, text + error
    assert not (found := compare_task(whole, copy, "height")), found


def test_a_backfill_goes_on_where_it_stopped(run_cli, whole, copy, monkeypatch, harm):
    def stopped(*_):
        raise OutputError("stopped before its parts were joined")

    with monkeypatch.context() as patch:
        patch.setattr(backfill, "add_task", stopped)
        assert run_cli("backfill", copy, "--task", "height")[0] == 3
    files = RunFolder(copy).video("clip")
    before = files.part(0, "height").stat().st_mtime_ns
    harm(files.part(20, "height"), "height/c/0/0/0")
    code, text, _ = run_cli("backfill", copy, "--task", "height", "--json")
    assert code == 0
    assert sum(json.loads(line)["event"] == "frame" for line in text.splitlines()) == 20
    assert before < files.done.stat().st_mtime_ns
    assert not files.segments.exists() or not any(files.segments.iterdir())
    assert not (found := compare_task(whole, copy, "height")), found


def test_a_run_goes_on_beside_a_backfilled_task(run_cli, tiny_delta, clip, whole, copy):
    assert run_cli("backfill", copy, "--task", "height")[0] == 0
    code, text, _ = run_cli("run", clip, "-o", copy, "--model", tiny_delta, "--tasks", "parts", *OPTIONS)
    assert code == 0
    assert "by an earlier run" in text
    assert not (found := compare_task(whole, copy, "height")), found


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--task", "hight"], "did you mean 'height'"),
        (["--task", "parts"], "parts is the base"),
    ],
)
def test_what_cannot_be_added_is_refused_in_one_line(run_cli, copy, arguments, expected):
    code, _, error = run_cli("backfill", copy, *arguments)
    assert (code, error.count("\n")) == (2, 1)
    assert expected in error


def damage_parquet(name):
    return lambda out: next(out.glob(f"**/{name}")).write_bytes(b"PAR1 no longer")


def damage_yaml(out):
    (out / "run.yaml").write_text("format: 1\n")


def damage_array(out):
    shutil.rmtree(next(out.glob("videos/*/predictions.zarr")) / "valid")


@pytest.mark.parametrize(
    ("command", "damage", "expected"),
    [
        (["report"], damage_parquet("videos.parquet"), "videos.parquet: expected a Parquet file"),
        (["report"], damage_parquet("frames.parquet"), "frames.parquet: expected a Parquet file"),
        (["report"], damage_array, "expected array valid/parts"),
        (["backfill", "--task", "height"], damage_yaml, "run.yaml: expected the run's config"),
    ],
)
def test_a_damaged_run_is_said_in_one_line(run_cli, copy, command, damage, expected):
    damage(copy)
    code, _, error = run_cli(command[0], copy, *command[1:])
    assert (code, error.count("\n")) == (2, 1), error
    assert expected in error


def test_a_task_that_is_there_is_refused(run_cli, whole):
    code, _, error = run_cli("backfill", whole, "--task", "height")
    assert (code, error.count("\n")) == (2, 1)
    assert "has predicted height already" in error


def test_other_numerics_are_refused_by_name_unless_accepted(run_cli, copy):
    run = copy / "run.yaml"
    data = yaml.safe_load(run.read_text())
    data["key"]["numerics.torch"] = "0.1"
    run.write_text(yaml.safe_dump(data))
    code, _, error = run_cli("backfill", copy, "--task", "height")
    assert (code, error.count("\n")) == (2, 1)
    assert "expected torch = 0.1" in error
    assert run_cli("backfill", copy, "--task", "height", "--other-numerics")[0] == 0


def test_another_base_is_refused_by_name(run_cli, tiny_delta, copy, tmp_path):
    model = shutil.copytree(tiny_delta, tmp_path / "model")
    with safe_open(model / "base.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    tensors["blocks.4.norm1.bias"][0] += 1
    save_file(tensors, model / "base.safetensors")
    code, text, _ = run_cli("backfill", copy, "--task", "height", "--model", model)
    assert code == 3
    assert "weights.base" in text


def test_a_changed_byte_in_the_archive_is_found(run_cli, copy, harm):
    harm(RunFolder(copy).video("clip").activations / "segments/00000020.zip", "rows_3/c/0/0")
    code, text, _ = run_cli("cache", "verify", copy)
    assert code == 3
    assert "rows_3" in text
    code, text, _ = run_cli("backfill", copy, "--task", "height")
    assert code == 3
    assert "rows_3" in text
    code, text, _ = run_cli("cache", "gc", copy)
    assert code == 0
    assert "segment 20: broken" in text
    assert ZarrStore(RunFolder(copy).video("clip").activations).starts() == (0, 40)


def test_cache_commands(run_cli, copy, tmp_path):
    code, text, _ = run_cli("cache", "ls", copy)
    assert code == 0
    assert str(FRAMES) in text
    assert run_cli("cache", "verify", copy)[0] == 0
    code, text, _ = run_cli("cache", "gc", copy, "--budget", "0B", "--dry-run")
    assert (code, "3 segments would be removed" in text) == (0, True)
    assert text.count(", would be removed\n") == 3
    assert ZarrStore(RunFolder(copy).video("clip").activations).starts() == (0, 20, 40)
    code, text, _ = run_cli("cache", "gc", copy, "--budget", "0")
    assert (code, "3 segments removed" in text) == (0, True)
    assert ZarrStore(RunFolder(copy).video("clip").activations).starts() == ()
    code, _, error = run_cli("cache", "ls", tmp_path)
    assert (code, error.count("\n")) == (2, 1)
    code, _, error = run_cli("cache", "gc", copy, "--budget", "much")
    assert (code, error.count("\n")) == (2, 1)


def test_without_an_archive_nothing_is_kept_and_results_are_the_same(run_cli, tiny_delta, clip, whole, tmp_path):
    out = tmp_path / "out"
    assert run_cli("run", clip, "-o", out, "--model", tiny_delta, "--no-archive", *OPTIONS)[0] == 0
    assert not RunFolder(out).video("clip").activations.exists()
    for task in ("parts", "height", "flow", "hands"):
        assert not (found := compare_task(whole, out, task)), found


def test_what_was_not_archived_cannot_be_backfilled(run_cli, tiny_delta, clip, tmp_path):
    out = tmp_path / "out"
    options = ["--model", tiny_delta, "--tasks", "parts", "--no-archive", *OPTIONS]
    assert run_cli("run", clip, "-o", out, *options)[0] == 0
    code, text, _ = run_cli("backfill", out, "--task", "height")
    assert code == 3
    assert "clip: segment 0" in text


def test_a_budget_ends_the_archive_not_the_run(run_cli, tiny_delta, clip, tmp_path):
    out = tmp_path / "out"
    code, text, _ = run_cli("run", clip, "-o", out, "--model", tiny_delta, "--archive-budget", "30kB", *OPTIONS)
    assert code == 4
    assert "reached its budget" in text
    video = open_run(out)["clip"]
    assert (video.status, len(video)) == ("done", FRAMES)
    assert 1 <= len(ZarrStore(video.files.activations).starts()) < 3


def test_the_archive_is_estimated_before_the_run(run_cli, tiny_delta, clip, tmp_path):
    code, text, _ = run_cli("run", clip, "-o", tmp_path / "out", "--model", tiny_delta, "--dry-run", *OPTIONS)
    assert code == 0
    assert "archive: about" in text


def test_an_archive_written_by_other_blocks_is_the_same_for_all_task_choices(whole, part):
    """What is archived doesn't depend on which tasks ran."""
    ours, theirs = (ZarrStore(open_run(out)["clip"].files.activations) for out in (whole, part))
    for start in ours.starts():
        one, other = ours.seal(start), theirs.seal(start)
        assert one.fingerprint == other.fingerprint
        assert one.files == other.files


def test_a_what_if_is_exact(whole, tiny_delta, clip):
    config = load_config("balanced", overrides=["segment.frames=20"], values={"model": tiny_delta})
    table = without_audits(open_run(whole)["clip"].ledger())
    base = table.filter(pc.equal(table["task"], "parts"))
    frames = list(replay(config, find_sources([str(clip)])[0]))
    assert [frame.policy for frame in frames] == base["policy"].to_pylist()
    assert [frame.rows for frame in frames] == base["rows_computed"].to_pylist()
    executed = table.group_by("index").aggregate([("macs_executed", "sum")]).sort_by("index")
    assert [frame.macs_executed for frame in frames] == executed["macs_executed_sum"].to_pylist()


def test_audits_change_no_result_and_measure_drift(run_cli, tiny_delta, clip, whole, tmp_path):
    out = tmp_path / "out"
    code, text, _ = run_cli("run", clip, "-o", out, "--model", tiny_delta, "--audit-every", 7, *OPTIONS)
    assert code == 0, text
    for task in ("parts", "height", "flow", "hands"):
        assert not (found := compare_task(whole, out, task)), found
    table, plain = open_run(out)["clip"].ledger(), without_audits(open_run(whole)["clip"].ledger())
    audited = np.array([drift is not None for drift in table["drift"].to_pylist()])
    policies = np.array(table["policy"].to_pylist())
    due = np.array(table["index"].to_pylist()) % 7 == 0
    np.testing.assert_array_equal(audited, due & (policies != "dense"))
    extra = np.array(table["macs_executed"].to_pylist()) - np.array(plain["macs_executed"].to_pylist())
    np.testing.assert_array_equal(extra, np.where(audited, table["macs_dense"].to_pylist(), 0))
    assert extra.tolist() == table["macs_audit"].to_pylist()
    assert table["audit_p"].null_count == len(table)


def _sha_of(contents):
    """Sums of files as they were before they were cut down."""
    from hashlib import sha256

    from deltascene.cache.keys import file_sha256

    sums = {path: sha256(data).hexdigest() for path, data in contents.items()}
    return lambda path: sums.get(path) or file_sha256(path)
