"""Cost and benefit of the archive: `python benchmarks/archive.py [--clip FILE] [--preset balanced] [--runs 3]`.

Runs base and task together, the base alone with an archive, and a backfill of the task, in rotation in this process;
prints medians. Expected: bytes within 1.1 of the formula, writing at most 10 % of a run, reading a segment at least 10
times as fast as computing it, backfill at most 1.25 x (L - s) / (2 L - s) of the time of running base and task.
"""

import argparse
import statistics
import tempfile
import time
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from deltascene.cache.segment import raw_bytes
from deltascene.cache.zarr_store import ZarrStore
from deltascene.pipeline.batch.backfill import plan_backfill, run_backfill
from deltascene.pipeline.batch.batch_run import BatchRun
from deltascene.pipeline.batch.choose_config import Choice
from deltascene.pipeline.batch.events import Stop
from deltascene.pipeline.batch.flow import run_batch
from deltascene.pipeline.batch.keys import result_key
from deltascene.pipeline.batch.resume import claim_folder
from deltascene.pipeline.commands.progress import LineEvents
from deltascene.pipeline.config import load_config
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.runs.folder import RunFolder
from deltascene.pipeline.runs.lock import locked
from deltascene.pipeline.runs.reader import open_run
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.workers.open_pool import open_pool

OUTPUT = ("seconds_write", "seconds_archive")  # stages that don't count as computing


def run(clip: Path, out: Path, preset: str, tasks: tuple[str, ...], model: str, archive: bool) -> pa.Table:
    """A run of one clip; returns its ledger."""
    values = {"model": model, "tasks": tasks, "archive.enabled": archive, "save.video": False, "run.executor": "local"}
    engine = Engine.from_config(load_config(preset, values=values))
    folder, key = RunFolder(out), result_key(engine.config, engine.model)
    with locked(out) as fence:
        claim_folder(folder, Choice(engine.config, preset), key, force=False)
        pool = open_pool(engine.model, engine.config)
        run_batch(BatchRun(engine.model, engine.config, pool, folder, key, fence, Quiet()), find_sources([str(clip)]))
    return open_run(out).ledger()


class Quiet(LineEvents):
    """Discards all events."""

    def __init__(self) -> None:
        super().__init__(open("/dev/null", "w"), inputs=1)  # noqa: SIM115 - for the life of the program


def seconds(table: pa.Table, without: tuple[str, ...] = ()) -> float:
    """Measured seconds of a ledger, without some stages."""
    left_out = sum(pc.sum(table[name]).as_py() for name in without)
    return float(pc.sum(table["seconds"]).as_py() - left_out)


def read_seconds(store: ZarrStore) -> float:
    """Seconds of reading every archived frame, checksums verified."""
    began = time.perf_counter()
    for start in store.starts():
        for _ in store.frames(start):
            pass
    return time.perf_counter() - began


def base_seconds(table: pa.Table, base: str) -> float:
    """Seconds of the base for computing what is archived: without decoding, heads and writing."""
    rows = table.filter(pc.equal(table["task"], base))
    stages = ("preprocess", "mask", "flow", "embed", "blocks")
    return float(sum(pc.sum(rows[f"seconds_{stage}"]).as_py() for stage in stages))


def main() -> None:
    """Prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    demo = Path(str(resources.files("deltascene.configs"))) / "demo" / "room.mp4"
    parser.add_argument("--clip", type=Path, default=demo)
    parser.add_argument("--model", default="rooms")
    parser.add_argument("--task", default="depth")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    engine = Engine.load(options.model, options.preset, tasks=[options.task])
    base, depth = engine.model.bundle.entry.base, engine.model.backbone.depth
    split = engine.model.bundle.entry.tasks[options.task].split or 0
    fresh, added, overhead, reading = [], [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(options.runs):
            outs = [Path(scratch) / f"{name}-{number}" for name in ("both", "base")]
            both = run(options.clip, outs[0], options.preset, (base, options.task), options.model, False)
            alone = run(options.clip, outs[1], options.preset, (base,), options.model, True)
            plan = plan_backfill(outs[1], options.task)
            run_backfill(plan, Quiet(), Stop())
            ledger = open_run(outs[1]).ledger()
            later = ledger.filter(pc.equal(ledger["task"], options.task))
            fresh.append(seconds(both, OUTPUT))
            added.append(seconds(later, OUTPUT))
            overhead.append(pc.sum(alone["seconds_archive"]).as_py() / seconds(alone))
            store = ZarrStore(next(outs[1].glob("videos/*/activations.zarr")))
            reading.append(base_seconds(alone, base) / read_seconds(store))
        formula = kept = frames = 0
        for start in store.starts():
            records = list(store.frames(start))
            warped = sum(record.flow is not None for record in records)
            formula += raw_bytes(store.info(start), [len(record.rows) for record in records], warped)
            kept, frames = kept + store.seal(start).bytes, frames + len(records)
    share, bound = statistics.median(added) / statistics.median(fresh), 1.25 * (depth - split) / (2 * depth - split)
    ratio = statistics.median(a / b for a, b in zip(added, fresh, strict=True))
    print(f"{options.clip.name}, {options.preset}, {frames} frames, {options.runs} runs in turns, medians")
    print(f"base + {options.task} afresh: {statistics.median(fresh):.2f} s; backfill: {statistics.median(added):.2f} s")
    print(f"backfill / afresh: {ratio:.3f} (of medians {share:.3f}); bound {bound:.3f}")
    print(f"writing the archive: {100 * statistics.median(overhead):.1f} % of the run (bound 10 %)")
    print(f"computing / reading the archived rows: {statistics.median(reading):.1f} (bound 10)")
    print(
        f"bytes a frame: {kept / frames:,.0f}; formula {formula / frames:,.0f}; ratio {kept / formula:.3f} (bound 1.1)"
    )


if __name__ == "__main__":
    main()
