"""`deltascene eval` as people call it: tables on the screen, eval.json and a picture in a folder."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from deltascene.pipeline.commands.eval import eval_command
from deltascene.pipeline.evaluation.compare import EvalRequest
from deltascene.pipeline.evaluation.tradeoff import Point, plot_tradeoff

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def clips(make_clip, tmp_path_factory) -> Path:
    """Two short clips with the truth of the tiny bundle's first two tasks."""
    folder, rng = tmp_path_factory.mktemp("judged"), np.random.default_rng(0)
    for name in ("one", "two"):
        shutil.copyfile(make_clip(frames=6, name=name), folder / f"{name}.avi")
        parts = rng.integers(0, 3, (48, 64, 1)).repeat(6, -1).astype(np.uint8)
        parts[8:20, 8:20, 3:] = (parts[8:20, 8:20, 3:] + 1) % 3
        height = np.full((48, 64, 6), 2.0, np.float16)
        np.savez(folder / f"{name}.truth.npz", parts=parts, height=height)
    return folder


def test_images_clips_and_references_in_one_call(run_cli, tiny, tiny_delta, alone, labelled, clips, tmp_path):
    out = tmp_path / "scores"
    singles = [part for task in ("flow", "height") for part in ("--stl", alone(task, 0.5))]
    code, said, error = run_cli(
        "eval", labelled.root, "--model", tiny, "--model", f"deltas={tiny_delta}", *singles, "--frozen", tiny,
        "--clips", clips, "--frames", 5, "--preset", "fast", "-o", out,
    )  # fmt: skip
    assert code == 0, error
    found = json.loads((out / "eval.json").read_text())
    assert found["models"] == {"tiny": tiny, "deltas": tiny_delta}

    images = found["images"]
    assert images.pop("part") == "test"
    assert list(images) == ["single-task", "frozen-shared", "tiny", "deltas"]
    assert list(images["tiny"]["measures"]) == ["parts", "height", "flow", "hands"]
    assert list(images["single-task"]["measures"]) == ["flow", "height"]
    assert images["tiny"]["measures"] == images["frozen-shared"]["measures"]
    assert images["single-task"]["gain"] == 0
    ours, theirs = (images[name]["measures"]["height"]["rmse"] for name in ("tiny", "single-task"))
    assert images["tiny"]["gain"] == pytest.approx(-100 * (ours - theirs) / theirs / 2)  # flow is the same
    low, high = images["tiny"]["intervals"]["gain"]
    assert low <= images["tiny"]["gain"] <= high
    low, high = images["deltas"]["intervals"]["parts"]
    assert low <= images["deltas"]["measures"]["parts"]["miou"] <= high
    assert images["deltas"]["macs"] > images["tiny"]["macs"] > 0

    assert list(found["clips"]) == ["tiny", "deltas"]
    assert list(found["clips"]["tiny"]) == ["one", "two", "mean"]
    judged = found["clips"]["tiny"]["one"]
    assert list(judged) == ["exact", "fast"]
    assert judged["exact"]["loss"] == {"whole": 0, "moving": 0}
    assert sum(judged["fast"]["policies"].values()) == 5
    assert (out / "tradeoff.svg").read_text().startswith("<?xml")

    assert f"{out / 'eval.json'}" in said.replace("\n", "")
    for part in ("test: headline measure with its 95 % interval", "tiny: fast against dense prediction", "single-task"):
        assert part in " ".join(said.split()), said


def test_every_number_stands_under_its_task(tiny, alone, labelled, tmp_path):
    """Single-task networks are given in another order than the bundle's tasks, and not for all of them."""
    asked = EvalRequest(labelled.root, "test", {"tiny": tiny}, [alone("hands"), alone("height")])
    console = Console(file=io.StringIO(), width=250)
    assert eval_command(asked, console) == 0
    lines = [line for line in console.file.getvalue().splitlines() if "│" in line or "┃" in line]
    cells = [[cell.strip() for cell in line.replace("┃", "│").strip("│").split("│")] for line in lines]
    columns = next(row for row in cells if "hands f_ods" in row)
    rows = {row[0]: dict(zip(columns, row, strict=True)) for row in cells}
    assert columns[1:] == ["hands f_ods", "height rmse", "parts miou", "flow mean_deg", "Δm %", "GMAC", "ms"]
    assert rows["single-task"]["parts miou"] == ""
    for column in ("hands f_ods", "height rmse"):
        assert rows["single-task"][column] == rows["tiny"][column]
    assert rows["tiny"]["Δm %"] == "+0.0"


def test_a_bundles_own_evidence_is_a_reference(run_cli, tiny, labelled, tmp_path):
    folder = Path(shutil.copytree(tiny, tmp_path / "told"))
    data = yaml.safe_load((folder / "bundle.yaml").read_text())
    data["evidence"] = {"single_task": {"height": {"rmse": 1.0, "abs_rel": 0.1}, "parts": {"pixel_accuracy": 0.5}}}
    (folder / "bundle.yaml").write_text(yaml.safe_dump(data))
    code, _, error = run_cli("eval", labelled.root, "--model", folder, "--part", "val", "-o", tmp_path / "out")
    assert code == 0, error
    row = json.loads((tmp_path / "out" / "eval.json").read_text())["images"]["told"]
    assert row["gain"] == pytest.approx(-100 * (row["measures"]["height"]["rmse"] - 1))
    assert "gain" not in row["intervals"]


def test_what_is_unknown_is_null(run_cli, tiny, labelled, tmp_path):
    root = Path(shutil.copytree(labelled.root, tmp_path / "data"))
    for stem in ("a16", "a17"):
        np.save(root / "hands" / f"{stem}.npy", np.zeros((48, 64, 2), np.float16))
    code, _, error = run_cli("eval", root, "--model", tiny, "--part", "val", "-o", tmp_path / "out")
    assert code == 0, error
    row = json.loads((tmp_path / "out" / "eval.json").read_text(), parse_constant=pytest.fail)["images"]["tiny"]
    assert row["measures"]["hands"]["f_ods"] is None
    assert row["intervals"]["hands"] == [None, None]
    assert row["gain"] is None
    assert not (tmp_path / "out" / "tradeoff.svg").exists()


def test_a_film_in_which_nothing_moves_says_nothing_of_the_moving_region(run_cli, make_clip, tiny, clips, tmp_path):
    folder = Path(shutil.copytree(clips, tmp_path / "clips"))
    shutil.copyfile(make_clip(frames=6, name="rest"), folder / "rest.avi")
    rest = {"parts": np.ones((48, 64, 6), np.uint8), "height": np.full((48, 64, 6), 2.0, np.float16)}
    np.savez(folder / "rest.truth.npz", **rest)
    code, said, error = run_cli("eval", "--model", tiny, "--clips", folder, "-o", tmp_path / "out")
    assert code == 0, error
    (found,) = json.loads((tmp_path / "out" / "eval.json").read_text())["clips"].values()
    moving = {clip: of["balanced"]["loss"]["moving"] for clip, of in found.items()}
    assert moving["rest"] is None
    assert moving["mean"] == pytest.approx((moving["one"] + moving["two"]) / 2)
    assert "nan" not in said


def test_a_damaged_truth_is_said_before_any_clip_runs(run_cli, tiny, clips, tmp_path):
    folder = Path(shutil.copytree(clips, tmp_path / "clips"))
    whole = (folder / "two.truth.npz").read_bytes()
    (folder / "two.truth.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "one.avi").write_bytes(b"")  # would fail first, if it ran
    code, _, error = run_cli("eval", "--model", tiny, "--clips", folder, "-o", tmp_path / "out")
    assert code == 2
    assert "two.truth.npz: expected an npz file" in error


def test_wrong_use_is_one_line(run_cli, tiny, alone, labelled, clips, tmp_path):
    (tmp_path / "no_clips").mkdir()
    only = tmp_path / "only"
    only.mkdir()
    shutil.copyfile(clips / "one.avi", only / "one.avi")
    np.savez(only / "one.truth.npz", height=np.ones((48, 64, 6), np.float16))
    data, height = labelled.root, alone("height")
    both, twice = ["--model", f"mine={tiny}", "--model", f"mine={height}"], ["--stl", height, "--stl", height]
    for arguments, expected in (
        ([], "eval: expected a labelled folder DATA, --clips FOLDER, or both; found neither"),
        ([tmp_path, "--model", tiny], f"{tmp_path}: expected a data folder with split.csv; found none"),
        ([data, "--model", tiny, "--part", "dev"], "expected images of part 'dev'; found ['test', 'train', 'val']"),
        ([data, "--model", "nowhere"], "no packaged model or folder 'nowhere'"),
        ([data, *both], "--model: expected a name for each, NAME=BUNDLE; found 'mine' twice"),
        ([data, "--model", f"part={tiny}"], "--model: expected another name than part, which eval.json has"),
        ([data, "--model", tiny, *twice], "--stl: expected one network for each task; found 2 for 'height'"),
        ([data, "--model", alone("flow"), "--stl", height], "expected networks for tasks of flow, flow; found height"),
        (["--clips", tmp_path / "no_clips", "--model", tiny], "expected videos with <stem>.truth.npz beside them"),
        (["--clips", only, "--model", tiny], "expected truth of a task of classes, parts; found height"),
        (["--clips", only, "--model", height], "expected truth of a task of classes, which the model has none of"),
    ):
        code, _, error = run_cli("eval", *arguments)
        assert code == 2, (arguments, error)
        assert expected in error
        assert len(error.splitlines()) == 1


def test_the_picture_needs_points(tmp_path):
    assert plot_tradeoff({}, tmp_path / "none.svg") is None
    assert not (tmp_path / "none.svg").exists()
    points = {"a": Point(10**9, 1.0), "b": Point(2 * 10**9, -1.0, (-2.0, 0.5))}
    assert plot_tradeoff(points, tmp_path / "some.svg") == tmp_path / "some.svg"
    assert "Δm against single-task networks" in (tmp_path / "some.svg").read_text()
