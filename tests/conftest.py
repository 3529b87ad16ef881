"""A tiny bundle on another network than the packaged one, and real little clips, made once per session."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from deltascene.pipeline.bundle import read_bundle
from deltascene.pipeline.model import build_backbone, build_task_head, write_head

TINY = """\
format: 1
name: tiny
backbone: {timm: test_vit, args: {img_size: 64}}
input: {size: [48, 64]}
base: parts
archive: {blocks: [3, 4]}
tasks:
  parts: {kind: classes, labels: [sky, road, car], taps: [3, 6], head: token_mlp, head_args: {hidden: 16, side: 4}}
  height: {kind: scalar, unit: m, range: [0.1, 5.0], log: true, split: 3, taps: [4, 6], head: linear}
  flow: {kind: vector, channels: 3, split: 4, taps: [6], head: linear, head_args: {side: 2}}
  hands: {kind: heatmaps, names: [left, right], split: 3, taps: [3, 6], head: token_mlp, head_args: {hidden: 8}}
"""


def write_tiny_bundle(folder: Path, text: str = TINY) -> Path:
    """A bundle with seeded random weights."""
    folder.mkdir(parents=True)
    (folder / "bundle.yaml").write_text(text)
    torch.manual_seed(7)
    bundle = read_bundle(str(folder))
    backbone = build_backbone(bundle)
    for parameter in backbone.vit.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.dim() < 2 else 0.08)
    save_file(backbone.vit.state_dict(), folder / "base.safetensors")
    for task in bundle.entry.tasks:
        write_head(folder / f"{task}.safetensors", build_task_head(bundle, backbone, task))
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the tiny bundle: four tasks of four kinds, 12 tokens a frame."""
    return str(write_tiny_bundle(tmp_path_factory.mktemp("models") / "tiny"))


def moving_square(count: int, size: tuple[int, int] = (72, 96)) -> Iterator[np.ndarray]:
    """Frames of a square that moves over a still gradient, RGB."""
    ramp = np.linspace(0, 200, size[1], dtype=np.uint8)
    for number in range(count):
        image = np.repeat(np.tile(ramp, (size[0], 1))[..., None], 3, axis=2)
        left = 4 + (number * 3) % (size[1] - 28)
        image[20:44, left : left + 24] = (220, 40, 90)
        yield image


@pytest.fixture(scope="session")
def make_clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a real MJPG clip: `make_clip(frames, fps, name)`."""

    def make(frames: int = 20, fps: float = 10.0, name: str = "clip", size: tuple[int, int] = (72, 96)) -> Path:
        path = tmp_path_factory.mktemp("clips") / f"{name}.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, size[::-1])
        assert writer.isOpened()
        for image in moving_square(frames, size):
            writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        writer.release()
        return path

    return make
