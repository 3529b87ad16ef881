"""Adds a sub-task to a finished run from its archived activations, without the video and the base's blocks.

The sub-task's blocks and head compute every archived segment. Outputs and ledger rows are sealed segment by segment
beside those of the run, so that a backfill can be stopped and resumed. The result equals that of a run with the task
switched on, byte for byte.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from deltascene.cache.errors import BrokenSeal, CacheError
from deltascene.cache.keys import file_sha256, fingerprint
from deltascene.cache.places import Place, place, remove, scratch
from deltascene.cache.seal import read_seal, write_part
from deltascene.cache.zarr_store import ZarrStore
from deltascene.pipeline.batch.events import Events, Stop
from deltascene.pipeline.batch.keys import base_key
from deltascene.pipeline.bundles.bundle import Bundle, read_bundle
from deltascene.pipeline.bundles.scene_model import SceneModel, load_sub_task_model, prepare_model
from deltascene.pipeline.config import Config, recorded_config
from deltascene.pipeline.errors import ConfigError, OutputError, UsageError, nearest
from deltascene.pipeline.numerics.plain_torch import plain_torch
from deltascene.pipeline.numerics.settle import honour, numerics_record, settle, split_dtype
from deltascene.pipeline.runs import ledger
from deltascene.pipeline.runs.assembly import add_task
from deltascene.pipeline.runs.done import read_done, write_done
from deltascene.pipeline.runs.folder import RunFolder, read_run_yaml, write_run_yaml
from deltascene.pipeline.runs.links import refuse_links
from deltascene.pipeline.runs.lock import Fence, locked
from deltascene.pipeline.runs.predictions import LEDGER, PredictionWriter, plan_layout
from deltascene.pipeline.runs.reader import Run, RunVideo, open_run
from deltascene.pipeline.runs.videos_table import VideoRecord
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.workers.jobs import FrameSummary
from deltascene.pipeline.workers.outputs import StoredForm, ledger_rows
from deltascene.pipeline.workers.reader_part import timed
from deltascene.pipeline.workers.task_part import TaskPart
from deltascene.stages.delta import DeltaWeights
from deltascene.stages.errors import StageError
from deltascene.stages.input_plan import InputPlan
from deltascene.stages.sub_task import build_sub_task
from deltascene.stages.types import TokenGrid


@dataclass(frozen=True, slots=True)
class Backfill:
    """A task to be added to a run.

    Attributes:
        run: the run.
        task: name of the task.
        model: head of the task and its blocks from the split on.
        config: config of the run.
        key: what the outputs depend on besides the activations, as flat plain values.
        base: part of the archive's key that must be the same.
    """

    run: Run
    task: str
    model: SceneModel
    config: Config
    key: Mapping[str, Any]
    base: Mapping[str, Any]

    @property
    def split(self) -> int:
        """Number of blocks that run before the task's own part."""
        return self.model.sub_tasks[self.task].split


@plain_torch()
def plan_backfill(
    out: Place, task: str, model: str | None = None, *, other_numerics: bool = False, allow_code: bool = False
) -> Backfill:
    """Loads a task that a run didn't predict.

    Args:
        out: folder of the run.
        task: name of the task in the bundle.
        model: bundle that has the task; None is the bundle of the run.
        other_numerics: accept numerics of this machine that differ from the recorded ones; the result then equals that
            of a run only within float tolerance.
        allow_code: whether a bundle may bring its own head class.

    Raises:
        OutputError: the folder isn't a run's, or its config is damaged.
        UsageError: the task is unknown, the base or predicted already; or the numerics differ.
    """
    run = open_run(out)
    config = _config_of(run)
    bundle = read_bundle(model or config.model)
    if task not in bundle.entry.tasks:
        known = ", ".join(bundle.entry.tasks)
        raise UsageError(f"--task: {bundle.name} has {known}; found {task!r}{nearest(task, bundle.entry.tasks)}")
    if task == bundle.entry.base:
        raise UsageError(f"--task: {task} is the base, which has no split to start from; run it on the video")
    if task in (config.tasks or _tasks_of_run(run)):
        raise UsageError(f"--task: the run has predicted {task} already")
    if not any(len(video) for video in run.videos):
        raise UsageError(f"{out}: expected a run with finished segments; found none; run its own command first")
    if other_numerics:
        kept = {"kernel": "auto", "dtype": "auto", "split_dtype": split_dtype(config)}  # as the archive has it
        anew = config.numerics.model_copy(update={**kept, "threads": torch.get_num_threads()})
        config = settle(config.model_copy(update={"numerics": anew}))
    else:
        recorded = {name.removeprefix("numerics."): value for name, value in run.config["key"].items()}
        wanted = {name: recorded.get(name) for name in numerics_record(config)}
        honour(config, wanted)
    loaded = load_sub_task_model(bundle, task, allow_code=allow_code, merged=config.numerics.delta == "merged")
    base = base_key(bundle, file_sha256(bundle.backbone_file()), run.config["key"])
    loaded = prepare_model(_with_blocks(loaded, task, config), config.numerics)
    return Backfill(run, task, loaded, config, _task_key(bundle, task, config), base)


def _config_of(run: Run) -> Config:
    """The recorded config of a run."""
    try:
        assert isinstance(run.config["config"], dict)
        assert isinstance(run.config["key"], dict)
        config = recorded_config(run.config["config"])
    except (KeyError, AssertionError, ConfigError) as error:
        raise OutputError(
            f"{run.folder / 'run.yaml'}: expected the run's config and key; found them damaged; run it again"
        ) from error
    return config


def run_backfill(plan: Backfill, events: Events, stop: Stop) -> list[VideoRecord]:
    """Adds the task to every video of the run that has an archive.

    Returns:
        One record per video; `failed` with the cause if its archive can't be used.
    """
    folder, records = RunFolder(plan.run.folder), []
    with locked(folder.root) as fence:
        for video in plan.run.videos:
            if not len(video):
                continue
            try:
                record = _fill_video(plan, video, fence, events, stop)
            except (CacheError, StageError, OutputError) as error:
                cause = f"{' '.join(str(error).split())}; the run's own command with --force archives it again"
                record = replace(video.record, status="failed", cause=cause)
            events.video_ended(record, reused=False)
            records.append(record)
            if stop.asked:
                break
        data = read_run_yaml(folder)
        data["backfilled"] = {**data.get("backfilled", {}), plan.task: dict(plan.key)}
        write_run_yaml(folder, data)
    return records


@dataclass(slots=True)
class _VideoBackfill:
    """A video that the task is being added to."""

    plan: Backfill
    video: RunVideo
    store: ZarrStore
    fence: Fence


def _fill_video(plan: Backfill, video: RunVideo, fence: Fence, events: Events, stop: Stop) -> VideoRecord:
    """Adds the task to a video, segment by segment; sealed segments are kept."""
    refuse_links(video.files.root, below=True)
    files, starts, done = video.files, _starts(video), read_done(video.files)
    backfill = _VideoBackfill(plan, video, ZarrStore(files.activations), fence)
    remove(files.root / "unfinished")
    spec = SourceSpec(video.id, "video", (place(video.source),))
    events.video_started(spec, len(video), 0)
    for start in starts:
        for frame in _fill_segment(backfill, start):
            events.frame_done(spec, frame)
        if stop.asked:
            break
    if not all(files.part(start, plan.task).is_file() for start in starts):
        return replace(video.record, status="partial", cause="")
    fence.require()
    sums = add_task(files, plan.task, starts, plan.config.segment.frames)
    if done is not None:
        write_done(files, replace(done, files={**done.files, **sums}))
        for start in starts:
            remove(files.part(start, plan.task))
    return video.record


def _fill_segment(backfill: _VideoBackfill, start: int) -> Iterator[FrameSummary]:
    """Computes the task on an archived segment and seals it, unless an earlier call sealed it."""
    plan, files, store = backfill.plan, backfill.video.files, backfill.store
    archived = store.seal(start)
    archived.require({**archived.key, **plan.base})
    key = fingerprint({**plan.key, "archive": archived.fingerprint})
    if _sealed(backfill.video, start, plan.task, key):
        return
    info, rows = store.info(start), list[dict[str, Any]]()
    form = StoredForm(InputPlan(info.frame_size, info.model_size, info.content), plan.config.save.size == "frame")
    grid, part = TokenGrid(*info.grid, info.patch, info.prefix), TaskPart(plan.model, plan.config)
    task, kind = plan.task, plan.model.bundle.kinds[plan.task]
    layout = plan_layout({task: kind}, form.size, plan.config.segment.frames)
    backfill.fence.require()
    with scratch(files.root) as folder:
        writer = PredictionWriter(folder, layout, archived.frames)
        for record, read_s in timed(store.frames(start, [plan.split])):
            output = part.step(record, grid, form)
            began = time.perf_counter()
            writer.add({task: output.tasks[task].stored}, output.age)
            shared = {"decode": read_s, "write": time.perf_counter() - began}
            read = sum(stored.nbytes for stored in record.activations.values())
            rows += [row | {"bytes_read": read} for row in ledger_rows(output, backfill.video.id, task, shared)]
            yield _summary(rows[-1])
        writer.flush()
        ledger.write_rows(folder / LEDGER, rows)
        about = {"start": start, "frames": len(rows), "next_index": archived.next_index, "fingerprint": key}
        write_part(folder, files.part(start, task), {**about, "token": backfill.fence.token})


def _sealed(video: RunVideo, start: int, task: str, key: str) -> bool:
    """Whether an earlier call sealed the task's part of a segment; a broken or different part is removed."""
    path = video.files.part(start, task)
    try:
        if read_seal(path).fingerprint == key:
            return True
    except FileNotFoundError:
        return False
    except BrokenSeal:
        pass
    remove(path)
    return False


def _starts(video: RunVideo) -> list[int]:
    """Starts of a video's finished segments."""
    if (done := read_done(video.files)) is not None:
        return [start for start, _ in done.segments]
    starts, frames = [], 0
    while frames < len(video):
        starts.append(frames)
        frames += read_seal(video.files.part(frames)).frames
    return starts


def _with_blocks(model: SceneModel, task: str, config: Config) -> SceneModel:
    """Gives a task without a delta the base's blocks, as it can't share the base's tokens here.

    Raises:
        UsageError: archived activations were rounded, so that these blocks would compute other tokens than the base's.
    """
    if task in model.sub_tasks:
        return model
    if split_dtype(config) != "float32":
        raise UsageError(
            f"--task: {task} has no delta and reads the base's own tokens, which are float32; the archive holds them"
            f" rounded to {split_dtype(config)}; run it on the video, or archive with split_dtype=float32"
        )
    split = model.bundle.entry.tasks[task].split
    assert split is not None
    sub = build_sub_task(model.backbone, split, DeltaWeights({}), True)
    return replace(model, sub_tasks={task: sub})


def _tasks_of_run(run: Run) -> tuple[str, ...]:
    """Tasks of a run whose config names none: all tasks that its bundle had at the time."""
    later = run.config.get("backfilled") or {}
    found = dict.fromkeys(task for video in run.videos if len(video) for task in video.kinds)
    return tuple(task for task in found if task not in later)


def _task_key(bundle: Bundle, task: str, config: Config) -> dict[str, Any]:
    entry = bundle.entry.tasks[task]
    files = dict.fromkeys(path for path in bundle.weight_files([task]) if path != bundle.backbone_file())
    key: dict[str, Any] = {f"weights.{path.name}": file_sha256(path) for path in files}
    key["task"] = fingerprint(entry.model_dump(mode="json"))
    return key | {f"numerics.{name}": value for name, value in numerics_record(config).items()}


def _summary(row: Mapping[str, Any]) -> FrameSummary:
    return FrameSummary(**{field.name: row[field.name] for field in fields(FrameSummary)})
