"""Writes a store to be kept as this version writes it, `data/stores/NAME.tar.xz`: `python tests/kept_store.py NAME`.

A released version's is named like it. `2026-11` is of the last state in which `run` without `--preset` was `exact`: its
record has no preset and no `schema_version`, and its key is of the bytes of `bundle.yaml`.

In it: the model (few and coarse weights, so that it stays small), two clips, and OUT, in which `a` is finished and `b`
has one of its two segments. `tests/pipeline/batch/test_kept_stores.py` goes on with each store.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_model import write_clip

from deltascene.pipeline.bundles.bundle import read_bundle
from deltascene.pipeline.bundles.networks import build_backbone, build_task_head
from deltascene.pipeline.bundles.weight_files import write_head
from deltascene.pipeline.runs.videos_table import read_records, write_records

BUNDLE = """\
format: 1
backbone: {timm: test_vit, args: {img_size: 32, patch_size: 8, embed_dim: 16, depth: 2, num_heads: 2, mlp_ratio: 2.0}}
input: {size: [24, 32]}
base: parts
archive: {blocks: [1]}
tasks:
  parts: {kind: classes, labels: [sky, road, car], taps: [2], head: linear}
  height: {kind: scalar, unit: m, range: [0.1, 5.0], split: 1, taps: [2], head: linear}
"""

FRAMES = 4
COMMAND = [
    "run", "a.avi", "b.avi", "-o", "out", "--model", "model", "--tasks", "parts", "--preset", "balanced",
    "--set", "change.threshold=10", "--set", "segment.frames=2", "--set", "numerics.threads=1",
    "--set", "numerics.kernel=torch", "--set", "numerics.split_dtype=float32", "--dtype", "float32", "--save", "arrays",
]  # fmt: skip


def write_model(folder: Path) -> None:
    """A bundle with seeded weights of four bits."""
    folder.mkdir()
    (folder / "bundle.yaml").write_text(BUNDLE)
    torch.manual_seed(7)
    bundle = read_bundle(str(folder))
    backbone = build_backbone(bundle)
    heads = {task: build_task_head(bundle, backbone, task) for task in bundle.entry.tasks}
    with torch.no_grad():
        for network in (backbone, *heads.values()):
            for parameter in network.parameters():
                parameter.copy_(torch.randint(-8, 8, parameter.shape) / 32)
    save_file(backbone.state_dict(), folder / "base.safetensors")
    for task, head in heads.items():
        write_head(bundle.head_file(task), head)


def write_store(folder: Path) -> None:
    """The model, the clips and OUT."""
    write_model(folder / "model")
    for name in "ab":
        write_clip(folder / f"{name}.avi", FRAMES, size=(48, 64))
    code = f"""
import sys
from deltascene.pipeline.batch import flow
from deltascene.pipeline.cli import app
flow._tidy = lambda *_: None  # the parts of finished videos stay
sys.argv = ["deltascene", *{COMMAND}]
app.main()
"""
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    out = folder / "out"
    shutil.rmtree(out / "videos/a/segments")
    for name in ("done.json", "frames.parquet", "predictions.zarr", "segments/00000002.zip"):
        path = out / "videos/b" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in ("report.html", "report.json"):  # large, and written again
        (out / name).unlink()
    records = read_records(out / "videos.parquet")
    partial = {"status": "partial", "frames": 2}
    write_records(out / "videos.parquet", [replace(each, **partial if each.id == "b" else {}) for each in records])


if __name__ == "__main__":
    kept = Path(__file__).resolve().parent / "data" / "stores"
    with tempfile.TemporaryDirectory() as scratch:
        write_store(Path(scratch))
        print(shutil.make_archive(str(kept / sys.argv[1]), "xztar", scratch))
