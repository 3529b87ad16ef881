"""docs/training.md, command by command, on a tiny folder with a tiny network: the page can't rot."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from deltascene import open_run
from deltascene.pipeline.bundles.bundle import read_folder
from deltascene.pipeline.training.recipe import Recipe, load_recipe

pytestmark = pytest.mark.usefixtures("one_thread")

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "training.md").read_text(encoding="utf-8")

# What the test changes: the network, the input's size, the clip, and how long a training takes.
TINY = {"timm:vit_base_patch16_224": "timm:test_vit", "clip.mp4": "clip.avi"}
MORE = {
    ("models", "new"): ["--random", "--size", "48,64"],
    ("train",): ["--set", "batch=4", "--set", "rank=2", "--set", "judged=1"],
}


def blocks() -> Iterator[str]:
    """Indented blocks of the page, without their indentation."""
    for match in re.finditer(r"(?:^    .*\n|^\n(?=    ))+", PAGE, re.MULTILINE):
        text = re.sub(r"^    ", "", match[0], flags=re.MULTILINE).strip("\n")
        if text:
            yield text


def commands(block: str) -> Iterator[list[str]]:
    for line in block.splitlines():
        words = [TINY.get(word, word) for word in shlex.split(line, comments=True)[1:]]
        yield words + [more for start, extra in MORE.items() if tuple(words[: len(start)]) == start for more in extra]


def annotate(folder: Path) -> None:
    """Photographs of three rooms, annotated at another size than the model's; joints at the model's own."""
    rng = np.random.default_rng(0)
    for name in ("mydata/images", "mydata/parts", "mydata/distance", "mydata/joints"):
        (folder / name).mkdir(parents=True)
    for name in ("annotated/parts", "annotated/distance"):
        (folder / name).mkdir(parents=True)
    for number in range(12):
        stem = f"{('hall', 'kitchen', 'yard')[number % 3]}_{number:02d}"
        pixels = rng.integers(0, 256, (72, 96, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "mydata/images" / f"{stem}.{'jpg' if number % 2 else 'png'}")
        ids = (pixels[..., 0] // 64).astype(np.uint8)
        Image.fromarray(ids).save(folder / "annotated/parts" / f"{stem}.png")
        np.save(folder / "annotated/distance" / f"{stem}.npy", 1 + ids.astype(np.float64))
        np.save(folder / "mydata/joints" / f"{stem}.npy", rng.random((48, 64, 2)).astype(np.float16))


def say_what_it_means(path: Path, block: str) -> None:
    """Puts the page's lines into bundle.yaml, as a reader would."""
    data, told = yaml.safe_load(path.read_text()), yaml.safe_load(block)
    for task, lines in told["tasks"].items():
        kept = {key: value for key, value in data["tasks"][task].items() if key != "channels"}
        data["tasks"][task] = {**kept, **lines}
    path.write_text(yaml.safe_dump(data, sort_keys=False))


def test_the_page_from_labelled_images_to_a_video(run_cli, make_clip, tmp_path, monkeypatch):
    annotate(tmp_path)
    shutil.copyfile(make_clip(frames=4), tmp_path / "clip.avi")
    monkeypatch.chdir(tmp_path)
    ran = []
    for block in blocks():
        if block.startswith("import"):
            exec(compile(block.replace("(224, 224)", "(64, 48)"), "docs/training.md", "exec"), {})
        elif block.startswith("tasks:"):
            say_what_it_means(tmp_path / "mine" / "bundle.yaml", block)
        elif block.startswith("deltascene"):
            for words in commands(block):
                code, out, error = run_cli(*words)
                assert code == 0, f"{' '.join(words)}\n{out}{error}"
                ran.append(" ".join(words[:2]))
        else:
            assert block.startswith("mydata/"), f"a block that isn't run: {block}"
    assert ran == [
        *("models new", "models check", "train base", "train subtask", "train subtask"),
        *("train stl", "train stl", "train frozen", "train frozen"),
        *("eval mydata", "run clip.avi", "backfill out"),
    ]

    model = read_folder(tmp_path / "model").entry
    assert model.tasks["parts"].labels == ("floor", "worker", "hand", "tool")
    assert model.tasks["joints"].delta == "joints.safetensors"
    assert model.evidence["training"].keys() == {"base", "distance", "joints"}
    assert read_folder(tmp_path / "frozen").entry.tasks["joints"].delta is None
    assert (tmp_path / "scores" / "tradeoff.svg").is_file()
    assert (tmp_path / "out" / "report.html").is_file()
    video = open_run(tmp_path / "out")["clip"]
    assert set(video.frame(3).tasks) == {"parts", "distance", "joints"}


def test_the_base_is_the_single_task_network_of_its_task(run_cli, tiny, labelled, tmp_path):
    """As the page says; so nobody need train it twice."""
    quick = ["--set", "batch=4", "--set", "judged=1"]
    assert run_cli("train", "base", labelled.root, tiny, "-o", tmp_path / "base", *quick)[0] == 0
    assert run_cli("train", "stl", labelled.root, tiny, "-o", tmp_path / "stl", "--task", "parts", *quick)[0] == 0
    for name in ("base.safetensors", "parts.safetensors"):
        assert (tmp_path / "base" / name).read_bytes() == (tmp_path / "stl" / name).read_bytes()


def test_the_table_of_the_recipe_is_the_recipe():
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|", PAGE, re.MULTILINE)
    told = {}
    for names, *columns in rows:
        keys = re.findall(r"\w+", names)
        if set(keys) <= set(Recipe.model_fields):
            for place, key in enumerate(keys):
                told[key] = [column.split(", ")[place].strip() for column in columns]
    assert told.keys() == Recipe.model_fields.keys()
    for step, place in (("base", 0), ("stl", 0), ("subtask", 1), ("frozen", 2)):
        recipe = load_recipe(step).model_dump(mode="json")
        for key, columns in told.items():
            if columns[place] != "–":
                value = yaml.safe_load(columns[place])
                assert (float(value) if isinstance(value, str) else value) == recipe[key], f"{key} of {step}"


def test_links_of_the_page_lead_somewhere():
    folder = Path(__file__).resolve().parents[3] / "docs"
    for target, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", PAGE)):
        text = (folder / target).read_text(encoding="utf-8")
        headings = [
            re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
            for line in re.findall(r"^#.*$", text, re.M)
        ]
        assert not anchor or anchor in headings, f"{target}#{anchor}"
