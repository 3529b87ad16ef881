"""A tiny bundle on another network than the packaged one, and real little clips: what tests and the fault bench run."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save_file

from deltascene.pipeline.bundles.bundle import read_bundle
from deltascene.pipeline.bundles.networks import build_backbone, build_task_head
from deltascene.pipeline.bundles.weight_files import DELTA, write_head, write_task, write_weights
from deltascene.stages.backbone import Backbone
from deltascene.stages.delta import DeltaWeights, LowRank, start_delta

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

# The same base and heads; height keeps its delta beside its head, flow in a file of its own, hands has none.
TINY_DELTA = TINY.replace("name: tiny", "name: tiny_delta").replace(
    "log: true, split: 3,", "log: true, split: 3, delta: height.safetensors,"
)
TINY_DELTA = TINY_DELTA.replace("split: 4,", "split: 4, delta: flow_delta.safetensors,")


def write_tiny_bundle(folder: Path, text: str = TINY) -> Path:
    """A bundle with seeded random weights."""
    folder.mkdir(parents=True)
    (folder / "bundle.yaml").write_text(text)
    torch.manual_seed(7)
    bundle = read_bundle(str(folder))
    backbone = build_backbone(bundle)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.dim() < 2 else 0.08)
    save_file(backbone.state_dict(), folder / "base.safetensors")
    heads = {task: build_task_head(bundle, backbone, task) for task in bundle.entry.tasks}
    for task, head in heads.items():
        entry = bundle.entry.tasks[task]
        delta = random_delta(backbone, entry.split or 0, rank=2) if entry.delta else None
        if delta is not None and bundle.delta_file(task) == bundle.head_file(task):
            write_task(bundle.head_file(task), head, delta)
            continue
        write_head(bundle.head_file(task), head)
        if delta is not None:
            write_delta(bundle.delta_file(task), delta)
    return folder


def random_delta(backbone: Backbone, split: int, rank: int, seed: int = 11) -> DeltaWeights:
    """A delta of every tensor from the split on, large enough to change every answer."""
    generator = torch.Generator().manual_seed(seed)
    start = start_delta(backbone.blocks, split, rank, generator)
    flat = start.to_tensors().items()
    return DeltaWeights.from_tensors({name: 0.2 * torch.randn(x.shape, generator=generator) for name, x in flat})


def write_delta(path: Path, delta: DeltaWeights, dtype: torch.dtype = torch.float16) -> None:
    """A delta as safetensors, in a file of its own."""
    write_weights(path, {f"{DELTA}{name}": tensor.to(dtype) for name, tensor in delta.to_tensors().items()})


def is_zero(delta: DeltaWeights) -> bool:
    """Whether the weights of a sub-task are its base's."""
    dense = (change.product() if isinstance(change, LowRank) else change for change in delta.tensors.values())
    return not any(bool(change.any()) for change in dense)


def moving_square(count: int, size: tuple[int, int] = (72, 96)) -> Iterator[np.ndarray]:
    """Frames of a square that moves over a still gradient, RGB."""
    ramp = np.linspace(0, 200, size[1], dtype=np.uint8)
    for number in range(count):
        image = np.repeat(np.tile(ramp, (size[0], 1))[..., None], 3, axis=2)
        left = 4 + (number * 3) % (size[1] - 28)
        image[20:44, left : left + 24] = (220, 40, 90)
        yield image


def write_clip(path: Path, frames: int, fps: float = 10.0, size: tuple[int, int] = (72, 96)) -> Path:
    """A real MJPG clip of them."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, size[::-1])
    assert writer.isOpened()
    for image in moving_square(frames, size):
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()
    return path
