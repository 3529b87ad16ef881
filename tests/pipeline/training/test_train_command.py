"""`deltascene train` as people call it: what it says, what it refuses, and a real kill of the real process."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError, safe_open

from deltascene.pipeline.bundles.bundle import read_folder
from deltascene.pipeline.commands import train as train_command
from deltascene.pipeline.training import curves, fit

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = ["--set", "batch=4", "--set", "rank=2", "--set", "judged=2", "--set", "checkpoint_s=0"]
DEADLINE_S = 120


@pytest.fixture
def model(tiny, tmp_path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def test_a_base_then_its_sub_tasks_and_the_references(run_cli, tiny, labelled, tmp_path):
    """What the tutorial does, with everything left on standard output."""
    data, mine, kept = labelled.root, tmp_path / "mine", tmp_path / "kept"
    code, out, error = run_cli("train", "base", data, tiny, "-o", mine, *QUICK)
    assert code == 0, error
    assert "val at step 4: miou" in out
    assert f"{mine}: base parts trained" in out
    assert f"{mine / 'training' / 'base' / 'curve.svg'}" in out.replace("\n", "")
    assert (mine / "training" / "base" / "curve.svg").read_text().startswith("<?xml")

    for step, out_folder, *more in (
        ("subtask", mine, "--activations", kept),
        ("frozen", tmp_path / "frozen", "--activations", kept),
        ("stl", tmp_path / "stl"),
    ):
        code, out, error = run_cli(
            "train", step, data, mine, "-o", out_folder, "--task", "height", *more, "--json", *QUICK
        )
        assert code == 0, error
        events = [json.loads(line) for line in out.splitlines()]
        assert events[-1]["step"] == 4
        assert set(events[-1]["val"]) == {"rmse", "abs_rel", "delta1"}
        assert f"{step} height trained" in error
    assert read_folder(mine).entry.tasks["height"].delta == "height.safetensors"
    assert read_folder(tmp_path / "frozen").entry.tasks["height"].delta is None
    assert list(read_folder(tmp_path / "stl").entry.tasks) == ["height"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "rnk=3"], "recipe: unknown key 'rnk'; did you mean 'rank'?"),
        (["--set", "rank"], "--set: expected key=value; found 'rank'"),
        (["--config", "none.yaml"], "recipe none.yaml: can't be read: No such file or directory"),
        (["--split", "2"], "bundle: tasks.height.split: expected one of archive.blocks [3, 4]; found 2"),
        (
            ["--task", "hight"],
            "--task: expected one of parts, height, flow, hands; found 'hight'; did you mean 'height'?",
        ),
        (["--task", "parts"], "--task: expected a sub-task of tiny, height, flow, hands; found its base 'parts'"),
        (["--device", "warp"], "--device: expected cpu or a device of this torch; found 'warp'"),
    ],
)
def test_wrong_use_is_one_line_and_changes_nothing(run_cli, model, labelled, written, arguments, said):
    before = written(model)
    task = [] if "--task" in arguments else ["--task", "height"]
    code, _, error = run_cli("train", "subtask", labelled.root, model, "-o", model, *task, *arguments)
    assert code == 2
    assert error.startswith(f"deltascene: {said}")
    assert len(error.splitlines()) == 1
    assert written(model) == before
    assert not (model / "training").exists()


def test_a_base_is_not_trained_over_its_model(run_cli, model, labelled, written):
    before = written(model)
    code, _, error = run_cli("train", "base", labelled.root, model, "-o", model)
    assert (code, error) == (
        2,
        f"deltascene: {model}: expected a new folder; found a bundle; name another, or remove it\n",
    )
    assert written(model) == before


def test_an_unknown_step_and_a_missing_task_are_wrong_use(run_cli, model, labelled):
    assert run_cli("train", "bass", labelled.root, model, "-o", model)[0] == 2
    code, _, error = run_cli("train", "subtask", labelled.root, model, "-o", model)
    assert code == 2
    assert "--task" in error


def test_an_interrupt_is_no_fault_and_the_same_command_goes_on(run_cli, model, tiny, labelled, written, monkeypatch):
    command = ("train", "subtask", labelled.root, model, "-o", model, "--task", "height", *QUICK)
    original = fit.learning_rate

    def interrupted(peak, step, steps):
        if step == 3:
            raise KeyboardInterrupt
        return original(peak, step, steps)

    monkeypatch.setattr(fit, "learning_rate", interrupted)
    code, out, error = run_cli(*command)
    assert (code, error) == (130, "")
    assert "stopped; run the same command again to continue from the last checkpoint" in out
    monkeypatch.setattr(fit, "learning_rate", original)
    began: list[int] = []
    monkeypatch.setattr(fit, "read_ahead", lambda read, batches: began.append(len(batches)) or map(read, batches))
    assert run_cli(*command)[0] == 0
    assert began == [2]


def test_without_matplotlib_there_is_no_plot_and_no_fault(run_cli, model, labelled, monkeypatch):
    monkeypatch.setattr(train_command, "plot_log", lambda path: None)
    code, out, _ = run_cli(
        "train", "frozen", labelled.root, model, "-o", model, "--task", "hands", "--set", "steps=1", *QUICK
    )
    assert code == 0
    assert "no plot: it needs matplotlib, pip install 'deltascene[train]'" in out


def test_several_logs_are_plotted_beside_each_other(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        lines = [{"step": step, "of": 40, "loss": 1 / step} for step in (20, 40)]
        lines += [{"step": 40, "of": 40, "val": {"rmse": 0.5}}] if name == "two" else []
        (tmp_path / name / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "curves.svg"
    assert curves.plot_curves({name: tmp_path / name / "log.jsonl" for name in ("one", "two")}, out) == out
    assert out.read_text().count('<g id="legend_1"') == 1
    assert curves.plot_log(tmp_path / "one" / "log.jsonl") == tmp_path / "one" / "curve.svg"


# ---- a real kill of the real process


def position(path: Path) -> int:
    """Steps done of a checkpoint that a running process may just be replacing; 0 where there is none."""
    try:
        with safe_open(path, framework="pt") as file:
            return int(file.metadata()["position"])
    except (FileNotFoundError, SafetensorError):
        return 0


@pytest.mark.parametrize(
    ("step", "options"),
    [
        ("base", ["--set", "layer_decay=0.75"]),
        ("subtask", ["--task", "flow", "--activations", "kept", "--set", "gate_penalty=0.01"]),
    ],
    ids=["base", "subtask"],
)
def test_a_process_killed_at_a_seeded_moment_ends_with_the_same_bytes(
    run_cli, tiny, labelled, written, tmp_path, monkeypatch, step, options
):
    moment = random.Random(f"kill {step}").randrange(3, 30)

    def command(name: str) -> list[str]:
        monkeypatch.chdir(tmp_path)
        own = [option if option != "kept" else f"{name}_kept" for option in options]
        return ["train", step, str(labelled.root), tiny, "-o", name, *own, *QUICK, "--set", "passes=15"]

    assert run_cli(*command("whole"))[0] == 0
    folder = tmp_path / "cut" / "training" / ("base" if step == "base" else "flow")
    process = subprocess.Popen(
        [sys.executable, "-m", "deltascene", *command("cut")],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    with process:
        deadline = time.monotonic() + DEADLINE_S
        while position(folder / "checkpoint.safetensors") < moment:
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < deadline, f"no step {moment} after {DEADLINE_S} s"
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert moment <= position(folder / "checkpoint.safetensors") < 60
    assert not (tmp_path / "cut" / "bundle.yaml").exists()

    code, _, error = run_cli(*command("cut"))
    assert code == 0, error
    assert {name: data for name, data in written(tmp_path / "cut").items() if not name.endswith(".part")} == written(
        tmp_path / "whole"
    )
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps[-1] == 60
