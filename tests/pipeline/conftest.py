import csv
import io
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import jinja2
import numpy as np
import pytest
from PIL import Image

from deltascene.pipeline.cli import app
from deltascene.pipeline.training.data import LabelledFolder, open_labelled

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session", autouse=True)
def _pages_compiled_once(made_once) -> Iterator[None]:
    """The templates of reports are compiled once in the suite, not for each of its hundreds of reports."""
    kept = jinja2.FileSystemBytecodeCache(str(made_once("templates", lambda folder: None)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2, "Environment", partial(jinja2.Environment, bytecode_cache=kept))
        yield


@pytest.fixture(scope="session")
def run_cli() -> Command:
    """Runs the command in this process; returns exit code, standard output and error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        out, error = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(error):
            patch.setattr(sys, "argv", ["deltascene", *map(str, arguments)])
            with pytest.raises(SystemExit) as exit_:
                app.main()
        code = exit_.value.code
        return (0 if code is None else int(code)), out.getvalue(), error.getvalue()

    return call


@pytest.fixture(scope="session")
def harm() -> Callable[[Path, str], None]:
    """Changes a byte in the middle of a file in a sealed segment."""

    def change(segment: Path, name: str) -> None:
        with zipfile.ZipFile(segment) as sealed:
            found = sealed.getinfo(name)
        content = bytearray(segment.read_bytes())
        content[found.header_offset + 30 + len(found.filename) + found.file_size // 2] ^= 1
        segment.write_bytes(content)

    return change


@pytest.fixture
def pids(monkeypatch):
    """Processes of every worker's actors, by name, as they are when all of them are ready."""
    import ray

    from deltascene.pipeline.workers.worker_ray import RayWorker

    found, real_ready = {}, RayWorker.ready

    def ready(self):
        real_ready(self)
        asked = {name: actor.__ray_call__.remote(lambda self: os.getpid()) for name, actor in self._actors.items()}
        found[self] = dict(zip(asked, ray.get(list(asked.values())), strict=True))

    monkeypatch.setattr(RayWorker, "ready", ready)
    return found


@pytest.fixture(scope="session")
def labelled(tmp_path_factory) -> LabelledFolder:
    """Squares on a ramp: class, height, direction and two heatmaps follow from the picture."""
    root = tmp_path_factory.mktemp("labelled")
    for name in ("images", "parts", "height", "flow", "hands"):
        (root / name).mkdir()
    rng, rows = np.random.default_rng(0), []
    for number in range(22):
        stem, left = f"a{number:02d}", int(rng.integers(0, 40))
        image = np.full((48, 64, 3), 60, np.uint8)
        inside = np.zeros((48, 64), bool)
        inside[8:40, left : left + 24] = True
        image[inside] = (230, 40, 40)
        Image.fromarray(image).save(root / "images" / f"{stem}.png")
        Image.fromarray(inside.astype(np.uint8) * 2).save(root / "parts" / f"{stem}.png")
        np.save(root / "height" / f"{stem}.npy", np.where(inside, 0.5, 4.0).astype(np.float16))
        flow = np.where(inside[..., None], (0, 0, 127), (0, 127, 0)).astype(np.int8)
        np.save(root / "flow" / f"{stem}.npy", flow)
        np.save(root / "hands" / f"{stem}.npy", np.stack([inside, ~inside], -1).astype(np.float16))
        part = "train" if number < 16 else "val" if number < 18 else "test"
        rows.append({"stem": stem, "split": part, "room": f"r{number // 2}"})
    with (root / "split.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["stem", "split", "room"])
        writer.writeheader()
        writer.writerows(rows)
    return open_labelled(root)
