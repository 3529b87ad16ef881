"""Single-task networks beside the tiny bundle: its base and one of its heads each."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="session")
def alone(tiny, tmp_path_factory) -> Callable[..., str]:
    """`alone("height", 0.5)`: folder of a network for one task; its head's last layer is taken so many times."""

    def make(task: str, times: float = 1.0) -> str:
        folder = tmp_path_factory.mktemp("alone") / task
        folder.mkdir()
        data = yaml.safe_load((Path(tiny) / "bundle.yaml").read_text())
        entry = {key: value for key, value in data["tasks"][task].items() if key not in ("split", "delta")}
        (folder / "bundle.yaml").write_text(yaml.safe_dump({**data, "name": "", "base": task, "tasks": {task: entry}}))
        shutil.copyfile(Path(tiny) / "base.safetensors", folder / "base.safetensors")
        head = load_file(Path(tiny) / f"{task}.safetensors")
        for name in [name for name in head if name.startswith("head.layers")][-2:]:
            head[name] *= times
        save_file(head, folder / f"{task}.safetensors")
        return str(folder)

    return make
